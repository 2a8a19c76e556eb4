"""What the live side of consensus needs from others, as protocols.

The driver (`mesh.driver`) speaks only these; the adapters implement them and
the tests bring toys of their own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import grpc

from mesh.ids import HostId, Index, MemberId
from mesh.raft.model import Entry, Membership, Message, Ready, Restored, Snapshot, SoftState


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


class Transport(Network, Protocol):
    """This member's connections to all others."""

    async def run(self) -> None:
        """Keep them until cancelled."""

    def set_peers(self, addresses: Mapping[MemberId, str]) -> None:
        """The members to be linked to from now on, with their mesh addresses; itself is left out."""


class LeaderServices(Protocol):
    """What a leader does for other members."""

    async def run(self) -> None:
        """Carry proposals until cancelled."""

    async def propose(self, leader: MemberId, data: bytes, *, timeout_s: float) -> tuple[Index, bytes]:
        """Have *leader* add a command; its index and encoded outcome once applied.

        Cancellation: the command may still be applied.
        Fails: a `Refused` or `Unavailable` for certain; `OutcomeUnknown`.
        """

    async def read_index(self, leader: MemberId, *, timeout_s: float) -> Index:
        """A read point confirmed by *leader*. Fails: `PeerUnreachable`."""

    def abandon_all_but(self, leader: MemberId) -> None:
        """Others lead no more: what they were asked and have not answered is of unknown outcome."""


class Chance(Protocol):
    """Numbers that nobody can foresee."""

    def randint(self, a: int, b: int) -> int:
        """From *a* to *b*, both included."""

    def uniform(self, a: float, b: float) -> float:
        """From *a* to *b*."""


#: Called in the event loop when a write is durable (None) or has failed.
Done = Callable[[BaseException | None], None]


class Writer(Protocol):
    """Runs writes away from the event loop.

    Order: in that in which they were submitted; their callbacks in the event loop, in the same.
    """

    is_closed: bool

    def submit(self, write: Callable[[], None], done: Done, *, yields: bool = False) -> None:
        """Run *write*, then *done* in the event loop. *yields*: what the loop is about to send goes first."""

    async def close(self, *, grace_s: float) -> bool:
        """Finish what was submitted; False if the disk held it longer than *grace_s*."""


class DriverObserver(Protocol):
    """Who wants to know what a driver goes through; called in its event loop, must not block."""

    def role_changed(self, soft: SoftState) -> None:
        """Role, leader or term is another."""

    def entries_committed(self, entries: Sequence[Entry]) -> None:
        """*entries* are known to be committed and are about to be applied here, in order."""

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
