"""What a beat says and what answers it, and the port that carries both."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from trellis.heartbeat.v1 import heartbeat_pb2

from mesh.ids import FencingTerm, Index, OwnedName
from mesh.lease.model import BeatAnswer
from mesh.state.database_model import DatabaseStatus
from mesh.state.service import InstanceStatus


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat of a host."""

    sequence: int
    applied: Index
    #: The host's newest checkpoint of the replicated state.
    state_hash_index: Index
    state_hash: bytes
    #: `instances` are all there are; else only what changed since the last beat of the stream.
    complete: bool
    #: This sidecar is about to stop.
    draining: bool
    instances: tuple[InstanceStatus, ...] = ()
    releases: tuple[tuple[OwnedName, FencingTerm], ...] = ()
    capacity: heartbeat_pb2.Capacity | None = None
    #: What changed since the last beat of the stream; in a complete one, None: the host has none.
    database: DatabaseStatus | None = None


@dataclass(frozen=True, slots=True)
class BeatReply:
    """What the leader, or who was taken for it, says to one beat."""

    answer: BeatAnswer
    #: The host's state is not what it should be at its index.
    state_diverged: bool = False


class BeatStream(Protocol):
    """One host's beats to one leader.

    Fails: `PeerUnreachable` from `send` and `replies` when it is broken; it stays so.
    """

    async def send(self, beat: Beat) -> None:
        """Write *beat*; waits while the stream takes no more."""

    def replies(self) -> AsyncIterator[BeatReply]:
        """The answers, in order, until the stream ends."""

    def close(self) -> None:
        """End it now."""
