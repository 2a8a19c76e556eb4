"""What the live side of consensus needs from others, as protocols.

The driver (`mesh.driver`) speaks only these; the adapters implement them and
the tests bring toys of their own.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import grpc

from mesh.ids import HostId, Index, MemberId
from mesh.raft.model import Membership, Message, Ready, Restored, Snapshot, SoftState


class StateMachine(Protocol):
    """The replicated state: equal entries in equal order give equal state on every host."""

    def apply(self, index: Index, data: bytes) -> object:
        """Apply the command at *index* and return its outcome.

        Fails: never for bad input (a refusal is an outcome); an exception is a
        bug and stops the driver.
        """

    def check(self, data: bytes) -> None:
        """Refuse a command that `apply` would not understand, before it is in the log.

        Fails: a `TrellisError`.
        """

    def snapshot(self) -> Callable[[], bytes]:
        """The whole state as of the last `apply`; what is returned encodes it, in any thread."""

    def restore(self, data: bytes) -> None:
        """Become the state that `snapshot` described; *data* was checked by hash."""


class OutcomeCodec(Protocol):
    """Carries outcomes of the state machine between hosts."""

    def encode(self, outcome: object) -> bytes:
        """The outcome as bytes."""

    def decode(self, data: bytes) -> object:
        """The inverse of `encode`. Fails: `ValueError`."""


class LogStore(Protocol):
    """Durable home of one member's log, hard state and newest snapshot.

    Order: calls come from one thread at a time; each returns once what it was
    given is durable.
    Fails: `StorageFailed` when the disk refuses; nothing may be sent after that.
    """

    def load(self) -> Restored:
        """Everything stored, verified. Fails: `Corruption`."""

    def save(self, ready: Ready) -> None:
        """Make snapshot, entries and hard state of *ready* durable in one transaction."""

    def stage_snapshot(self, snapshot: Snapshot) -> None:
        """Do the slow part of `save_snapshot` beforehand; beside other calls, in any thread."""

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Make *snapshot* durable and forget the entries that it covers; later ones stay."""

    def close(self) -> None:
        """Give the directory back."""

    @property
    def fsync_s(self) -> float:
        """Duration of the newest durable write."""


class Network(Protocol):
    """Carries messages between members; may lose and delay them, never alters them."""

    def send(self, messages: Iterable[Message]) -> None:
        """Hand *messages* to the outboxes of their receivers; never blocks.

        Bound: each outbox drops its oldest.
        """


class DriverObserver(Protocol):
    """Who wants to know what a driver goes through; called in its event loop, must not block."""

    def role_changed(self, soft: SoftState) -> None:
        """Role, leader or term is another."""

    def command_applied(self, index: Index, outcome: object) -> None:
        """The command at *index* was applied here."""

    def membership_changed(self, membership: Membership) -> None:
        """A membership was committed, or came with a snapshot."""

    def crash_proven(self, member: MemberId) -> None:
        """*member*'s sidecar is certainly dead."""


class MeshIdentity(Protocol):
    """Who this host is to the other hosts, and who they are to it."""

    def server_credentials(self) -> grpc.ServerCredentials:
        """For listeners; asks every client for a certificate of this cluster."""

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For channels to other hosts."""

    def authority_of(self, host: HostId) -> str:
        """The name that *host*'s server certificate must carry."""

    def check_peer(self, auth_context: Mapping[str, Iterable[bytes]]) -> HostId:
        """The host that a call comes from. Fails: `Denied` for anybody else."""


#: Called with a member whose sidecar is certainly dead.
CrashCallback = Callable[[MemberId], None]
