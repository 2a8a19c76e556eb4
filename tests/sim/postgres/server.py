"""PostgreSQL's process on one machine, with what it keeps on disk.

It belongs to the machine: a sidecar that dies leaves a standby running, and a primary until the fence has
ended it. It stands still only with the whole machine. What it does takes drawn times; between two steps it
may be killed, or lose its power.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from mesh.ids import PRIMARY, FencingTerm, HostId
from sidecar.postgres.model import NO_LSN, NO_TERM, Lsn, ProcessKind, SyncNames, Timeline
from sidecar.postgres.port import Source
from tests.sim.clock import MS
from tests.sim.postgres.replication import Receiving, Sending
from tests.sim.postgres.wal import NO_NUMBER, Data

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.postgres.cluster import Databases

#: Bytes of a record.
LENGTH: Final = 104
RUNNING: Final = (ProcessKind.STANDBY, ProcessKind.PRIMARY)

#: Told of a commit's end: acknowledged, or of unknown outcome.
Told = Callable[[bool], None]


@dataclass(slots=True)
class Disk:
    """What is there while no process runs. Notes are durable before anything rests on them."""

    data: Data | None = None
    #: A copy without its end and no data, or a rewind without its end.
    is_partial: bool = False
    sealed_under: FencingTerm = NO_TERM
    primary_term: FencingTerm = NO_TERM
    names: SyncNames = field(default_factory=lambda: SyncNames(1, (HostId("nobody"),)))
    source: Source | None = None
    slots: tuple[HostId, ...] = ()
    #: The database that was made here last.
    made: str = ""


class Server:
    """One machine's PostgreSQL, running or not."""

    def __init__(self, machine: "Machine", databases: "Databases", chance: Random) -> None:
        self.machine, self.host, self.databases = machine, machine.name, databases
        self.chance = chance
        self.disk = Disk()
        self.kind = ProcessKind.DOWN
        self.as_standby = False
        #: Raised with each start and end: what was under way for an earlier one is void.
        self.generation = 0
        self.pid = 0
        #: Tells the sidecar that runs now.
        self.on_end: Callable[[], None] = lambda: None
        self.is_open = False
        self.is_catching_up = False
        #: Number of the primaryship that it acts under.
        self.acting_term = NO_TERM
        #: By each of these some process of it may acknowledge.
        self.in_force: tuple[SyncNames, ...] = ()
        self.receiving = Receiving(self)
        self.sending: list[Sending] = []
        self._waiting: list[tuple[Lsn, int, Told]] = []
        self._is_flushing = False
        self._held: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []
        #: Share of what a sidecar asks that fails.
        self.fails = 0.0
        self.is_stopping = False
        #: Its disk takes nothing: nothing can be noted, whatever was done.
        self.is_read_only = False
        #: How long it takes to delete what a copy has replaced.
        self.drops_s = 0.0
        #: Somebody's ALTER SYSTEM says whom to wait for, and nothing but a start takes that back.
        self.is_overridden = False

    # ---- time -----------------------------------------------------------------------

    def draw(self, low_ms: float, high_ms: float) -> int:
        """Some time, ns; short ones more often."""
        return int((low_ms + (high_ms - low_ms) * self.chance.random() ** 2) * MS)

    def after(self, delay_ns: int, act: Callable[..., None], *given: Any) -> None:
        """Do it if this very process still lives; later when the machine stands still."""
        when = self.machine.scheduler.now + delay_ns
        self.machine.scheduler.at(when, self._run, self.generation, act, given)

    def call_true(self, when: int, callback: Callable[..., None], *args: Any) -> None:
        """See Receiver."""
        self.machine.scheduler.at(when, self._run, self.generation, callback, args)

    def _run(self, generation: int, act: Callable[..., None], given: tuple[Any, ...]) -> None:
        if self.machine.is_frozen:
            self._held.append((generation, act, given))
        elif generation == self.generation:
            act(*given)

    def thaw(self) -> None:
        """The machine runs again; the fence has looked at its clock before."""
        held, self._held = self._held, []
        for generation, act, given in held:
            self._run(generation, act, given)

    # ---- its life -------------------------------------------------------------------

    @property
    def data(self) -> Data:
        assert self.disk.data is not None
        return self.disk.data

    def start(self, *, as_standby: bool) -> None:
        """Start it on its data, closed to clients."""
        assert self.kind is ProcessKind.DOWN
        self.generation += 1
        self.pid = self.databases.next_pid()
        self.kind, self.as_standby, self.is_open = ProcessKind.STARTING, as_standby, False
        self.is_stopping, self._is_flushing, self.is_overridden = False, False, False
        self.is_catching_up = False
        self.after(self.draw(10, 60), self._recover)

    def _recover(self) -> None:
        if self.disk.data is None or self.disk.is_partial:
            self.end("no data")
            return
        data = self.data
        if data.has_standby_mark and data.newest_known() in data.taken:
            # "requested timeline is not a child of this server's history": the file has no content.
            self.databases.world.count("database-no-child")
            self.end("no child")
            return
        self.kind = ProcessKind.RECOVERING
        slow = self.draw(500, 3_000) if self.chance.random() < 0.1 else 0
        self.after(slow + (self.draw(1, 10) if data.is_clean else self.draw(5, 150)), self._is_up)

    def _is_up(self) -> None:
        data = self.data
        was_clean, data.is_clean = data.is_clean, False
        data.flush(len(data.wal))
        self.in_force = (self.disk.names,)
        if self.as_standby:
            self.is_catching_up = True
            if not self._come_up():
                self.machine.world.count("database-inconsistent")
            self.receiving.begin()
            return
        if not was_clean:
            data.write(NO_NUMBER, LENGTH)
        data.control_timeline = data.history.timeline
        data.flush(len(data.wal))
        self.kind = ProcessKind.PRIMARY

    def _come_up(self) -> bool:
        """A standby lets sessions in once it has all WAL that its pages need."""
        if self.kind is ProcessKind.RECOVERING and self.data.flushed >= self.data.consistent_at:
            self.kind = ProcessKind.STANDBY
            self.after(self.draw(1, 80), self._has_caught_up)
        return self.kind is ProcessKind.STANDBY

    @property
    def can_receive(self) -> bool:
        """As a standby, or on the way to be one and through with the WAL that it has."""
        is_coming = self.kind is ProcessKind.RECOVERING and self.is_catching_up and not self.is_stopping
        return self.kind is ProcessKind.STANDBY or (is_coming and self.as_standby)

    def _has_caught_up(self) -> None:
        self.is_catching_up = False

    def kill(self, by: str = "sidecar") -> None:
        """Every process of it gets SIGKILL, and is gone a moment later."""
        if self.kind is not ProcessKind.DOWN:
            self.after(self.draw(0.05, 4), self.end, by)

    def end(self, by: str) -> None:
        """It is gone."""
        if self.kind is ProcessKind.DOWN:
            return
        self.generation += 1
        self.kind, self.is_open, self._is_flushing = ProcessKind.DOWN, False, False
        self._forget_sessions()
        self.machine.end(PRIMARY, by)
        for sending in list(self.sending):
            sending.broken_here()
        self.receiving.broken_here()
        self.on_end()

    def lose_power(self) -> None:
        """Everything that is not durable is gone."""
        self.end("power")
        if self.disk.data is not None:
            self.disk.data.lose()

    def stop(self) -> None:
        """Fast shutdown: standbys get everything that is there."""
        if self.kind is ProcessKind.DOWN or self.is_stopping:
            return
        self.is_stopping = True
        self.shut()
        if self.kind not in RUNNING:
            self.after(self.draw(1, 20), self.end, "sidecar")
            return
        self.receiving.end()
        self.after(self.draw(2, 30), self._write_shutdown)

    def _write_shutdown(self) -> None:
        data = self.data
        if self.kind is ProcessKind.PRIMARY:
            data.write(NO_NUMBER, LENGTH)
            data.control_timeline = data.history.timeline
        data.flush(len(data.wal))
        data.is_clean = True
        self.send()
        self._end_when_sent()

    def _end_when_sent(self) -> None:
        if all(each.flushed >= self.data.flushed for each in self.sending if each.is_streaming):
            self.end("sidecar")
        else:
            self.after(1 * MS, self._end_when_sent)

    # ---- as standby -----------------------------------------------------------------

    def promote(self) -> None:
        """Become a primary, on a timeline of its own; does nothing to one that is."""
        if self.kind is ProcessKind.STANDBY and not self.receiving.is_wanted:
            self.after(self.draw(2, 25), self._promoted)

    def _promoted(self) -> None:
        if self.kind is not ProcessKind.STANDBY:
            return
        data = self.data
        data.flush(len(data.wal))
        data.branch(data.next_timeline())
        data.has_standby_mark = False
        data.write(NO_NUMBER, LENGTH)
        data.flush(len(data.wal))
        self.kind, self.is_open, self.as_standby = ProcessKind.PRIMARY, False, False
        self.databases.branched(self.host, data)
        self.after(self.draw(500, 30_000), self.checkpoint)  # its own, in no hurry

    def checkpoint(self) -> None:
        """The control file learns of the present timeline."""
        self.data.control_timeline = self.data.history.timeline

    # ---- as primary -----------------------------------------------------------------

    def open(self) -> None:
        """Let clients in."""
        self.is_open = True
        self.machine.begin(PRIMARY, self.acting_term)
        self.databases.opened(self)

    def shut(self) -> None:
        """Let none in, and end those there are."""
        self.is_open = False
        self._forget_sessions()
        self.machine.end(PRIMARY, "sidecar")

    def act(self, term: FencingTerm) -> None:
        """It acts under this number from now on."""
        self.acting_term = term
        if self.is_open:
            self.machine.begin(PRIMARY, term)

    def _forget_sessions(self) -> None:
        waiting, self._waiting = self._waiting, []
        for _, _, told in waiting:
            told(False)

    def commit(self, number: int, told: Told) -> bool:
        """A client's commit; False when it is not taken."""
        if self.kind is not ProcessKind.PRIMARY or not self.is_open:
            return False
        record = self.data.write(number, LENGTH + 8 * (number % 5))
        self._waiting.append((record.end, number, told))
        self.flush_soon()
        return True

    def write_barrier(self) -> Lsn:
        """Something small, flushed."""
        self.data.write(NO_NUMBER, LENGTH)
        self._flushed(len(self.data.wal))
        return self.data.flushed

    def flush_soon(self) -> None:
        """The log reaches the disk a moment later, with what is added meanwhile."""
        if not self._is_flushing:
            self._is_flushing = True
            self.after(self.draw(0.1, 2), self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        self._flushed(len(self.data.wal))

    def _flushed(self, count: int) -> None:
        self.data.flush(count)
        if self.can_receive:
            self._come_up()
            self.receiving.confirm()
            return
        self.send()
        self.release()

    def send(self) -> None:
        """Walsenders look what there is."""
        for sending in self.sending:
            sending.send()

    def override(self, names: SyncNames) -> None:
        """Somebody has changed whom it waits for, by hand."""
        self.is_overridden, self.in_force = True, (names,)
        self.release()

    def set_names(self, names: SyncNames) -> None:
        """They are in the file, and every process is told to read that; each does so in its own time."""
        self.disk.names = names
        self.after(self.draw(0.2, 3), self._read_names, names)

    def _read_names(self, names: SyncNames) -> None:
        """Some act by the new ones already."""
        if self.is_overridden:
            return
        self.in_force = (*self.in_force, names)
        self.after(self.draw(0.5, 15), self._have_read_names, names)

    def _have_read_names(self, names: SyncNames) -> None:
        if self.disk.names == names and not self.is_overridden:
            self.in_force = (names,)
            self.release()

    def release(self) -> None:
        """Acknowledge what enough standbys have flushed."""
        if not self._waiting or self.kind is not ProcessKind.PRIMARY:
            return
        up_to = min(self.data.flushed, max(self._safe_by(names) for names in self.in_force))
        while self._waiting and self._waiting[0][0] <= up_to:
            _, number, told = self._waiting.pop(0)
            self.databases.acknowledged(self, number)
            told(True)

    def _safe_by(self, names: SyncNames) -> Lsn:
        if names.needed == 0:
            return self.data.flushed
        ends = [each.flushed for each in self.sending if each.is_streaming and each.to.host in names.standbys]
        return sorted(ends)[-names.needed] if len(ends) >= names.needed else NO_LSN

    @property
    def timeline(self) -> Timeline:
        return self.data.history.timeline
