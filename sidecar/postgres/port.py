"""What the driver of a host's database acts with, as a protocol.

`engine.hands` implements it with a real PostgreSQL; a simulated host brings its own.
"""

from dataclasses import dataclass, field
from typing import Protocol

from mesh.ids import FencingTerm, HostId, Index, MemberId
from mesh.state import ClusterState
from mesh.state.commands import Applied, SingleCommand
from mesh.state.database_model import Wants
from sidecar.postgres.model import NO_LSN, LocalState, Lsn, SyncNames, Timeline


@dataclass(frozen=True, slots=True)
class ReceiverSight:
    """One host that receives WAL from a primary, known by its certificate."""

    host: HostId
    #: As PostgreSQL calls it: "streaming", "catchup", "backup".
    state: str
    flushed: Lsn
    #: It bears its host's name and streams: where that name is in force, it counts for commits.
    is_standby: bool
    #: How long ago what it has replayed last was written.
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a host's database."""

    local: LocalState = field(default_factory=LocalState)
    #: Of a primary.
    receivers: tuple[ReceiverSight, ...] = ()
    #: Another one with every start of the server; empty while it lets nobody in.
    started: str = ""
    #: A standby: it still reads WAL that it has.
    is_catching_up: bool = False
    #: A standby: how far it is behind what it has been sent; a primary: 0.
    behind: int = 0
    #: Of PostgreSQL: "15.18".
    version: str = ""
    #: What is not well although it runs, as a sentence.
    problem: str = ""
    #: What it has loaded, and what it has refused last; None: nothing, or not known.
    loaded: tuple[tuple[str, str], ...] | None = None
    refused: tuple[tuple[str, str], ...] | None = None
    #: What it should go down for, in its turn; `problem` says why.
    wants: Wants = Wants.NOTHING


NO_SIGHT = Sight()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server is told besides what its part in the cluster asks."""

    port: int
    #: Hosts whose certificates may receive WAL.
    members: tuple[MemberId, ...]
    #: None: those in force stay.
    parameters: tuple[tuple[str, str], ...] | None = ()


@dataclass(frozen=True, slots=True)
class Source:
    """The primary to receive, copy or rewind from."""

    host: HostId
    address: str


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """The server's main process, for the fence."""

    pid: int
    start_ticks: int
    cgroup: str


class Engine(Protocol):
    """One host's PostgreSQL. Used by one task at a time, but for `kill_now`, `kill_all` and `copy`.

    Every method fails with a `TrellisError`: `NotInTime`, `DatabaseFailed`, `DataDamaged`, `DiskFull`,
    `Conflict`; it may then be asked again.
    """

    @property
    def process(self) -> ServerProcess | None:
        """The server's main process, while it lives."""

    async def recover(self) -> None:
        """After a start of the sidecar: adopt a standby that runs, end everything else."""

    async def look(self, system_identifier: str) -> Sight:
        """What is there. DOWN means that the whole process tree was seen to be gone."""

    async def configure(self, wanted: ServerSettings) -> None:
        """Have it read so from now on. What it refuses is told by looking; what was in force stays then."""

    # ---- its life -------------------------------------------------------------------

    async def make(self) -> None:
        """A new database, not started."""

    def start(self, *, names: SyncNames | None, source: Source | None) -> None:
        """Start it, closed to clients: as primary with *names*, or with None as a standby of *source*."""

    async def stop(self, deadline_s: float) -> None:
        """End it cleanly, and see that nothing is left; killed after the deadline."""

    def kill_now(self) -> None:
        """Kill everything of it, without waiting."""

    async def kill_all(self) -> None:
        """Kill everything of it; returns when it was seen to be gone."""

    # ---- whose it is ----------------------------------------------------------------

    async def seal(self, fencing_term: FencingTerm, names: SyncNames | None) -> None:
        """Receive nothing any more, and promise durably: from primaryships up to this one never again.

        *names*: by which it would acknowledge if it were promoted now; a promotion with them is shorter then.
        Order: the receiver is gone, and nothing tells a server to have one, before the promise.
        """

    def note_acting(self, fencing_term: FencingTerm) -> None:
        """Note durably that it acts as primary under this number, before it does."""

    async def follow(self, source: Source) -> None:
        """Receive from there; unchanged when it is told so already."""

    async def promote(self, names: SyncNames, timeline_above: Timeline) -> Lsn:
        """Make the standby a primary that acknowledges by *names*; where its own timeline begins."""

    async def copy(self, source: Source) -> None:
        """Replace the data by a verified copy; what was there is kept until `drop_former`."""

    async def rewind(self, source: Source, system_identifier: str) -> None:
        """Take back what *source* does not have. Fails: `CannotRewind` too."""

    def distrust(self) -> None:
        """Take the data for damaged from now on, because of what `look` told: they are to be copied anew."""

    async def drop_former(self) -> None:
        """Delete what a copy has replaced, if there is something. The copy was seen to run."""

    # ---- as primary -----------------------------------------------------------------

    async def make_roles(self, password: str) -> None:
        """Roles, and the database for applications; repeatable."""

    async def set_sync(self, names: SyncNames) -> Lsn:
        """Have *names* in force in every process; a position that was written after that."""

    async def set_slots(self, hosts: tuple[HostId, ...]) -> None:
        """One slot for each of *hosts* and no others."""

    async def checkpoint(self) -> None:
        """Write a checkpoint now."""

    async def open(self) -> None:
        """Let clients in."""

    async def tidy(self) -> None:
        """What is due every few seconds: bounded logs, new sessions are let in."""


class Replicated(Protocol):
    """The replicated state, and how to change it from this host."""

    @property
    def state(self) -> ClusterState: ...
    async def propose(self, command: SingleCommand) -> Applied: ...
    async def wait_applied(self, index: Index) -> None: ...
    def password(self, state: ClusterState) -> str: ...
    async def make_password(self) -> None: ...


class Fence(Protocol):
    """The process that ends a primary whose sidecar cannot."""

    async def register_tree(self, name: str, pid: int, start_time: int, cgroup: str | None) -> None:
        """Kill this process tree when the lease has run out. Fails: `TrellisError`; then it is not held."""

    async def unregister(self, name: str) -> None:
        """Hold it no longer."""


def flushed_by(sight: Sight) -> dict[HostId, Lsn]:
    """How far the standbys are that count for commits."""
    return {each.host: each.flushed for each in sight.receivers if each.is_standby and each.flushed > NO_LSN}
