"""Hosts with literal WAL, several primaries at once, and the decisions of this feature between them.

Nothing ever stops an old primary here: it goes on trying for ever, as if no lease and
no fence existed. Whatever is acknowledged must be in the WAL of every primary that is
opened later, and an overtaken primary must get no acknowledgement for what the new one lacks.
"""

from dataclasses import dataclass, field, replace

from mesh.ids import FencingTerm, HostId
from sidecar.postgres.failover import FailoverStep, FailoverView, Standing, decide_failover
from sidecar.postgres.history import Return, timeline_above, way_back
from sidecar.postgres.model import (
    NO_TERM,
    Ancestor,
    DataKind,
    InForce,
    LocalData,
    Lsn,
    SealReport,
    SyncNames,
    SyncSet,
    Timeline,
    TimelineHistory,
)
from sidecar.postgres.sync_set import Publish, ReadBarrier, SetSyncNames, covers, first_names, next_step

FIRST = TimelineHistory(Timeline(1))
NOTHING = SyncSet()
Move = tuple[str, int, int]
#: An ordinary day, and all that can happen.
WORK = ("flush",) * 5 + ("write",) * 3 + ("plan",) * 3 + ("follow", "follow", "want")
MOVES = (
    WORK + ("seal",) * 4 + ("decide", "decide", "assign", "assign", "promote", "promote", "record", "stop")
)


class Lost(AssertionError):
    """An acknowledged record that a primary lacks."""


class Mixed(AssertionError):
    """A host with records of two histories."""


@dataclass
class Server:
    """One host: its records in order, and how it came by them."""

    host: HostId
    wal: list[int] = field(default_factory=list)
    history: TimelineHistory = FIRST
    was_primary: bool = False
    is_clean: bool = False
    primary_term: FencingTerm = NO_TERM
    sealed_under: FencingTerm = NO_TERM
    #: Not consistent before it has so many records again.
    whole_at: int = 0
    upstream: HostId | None = None
    #: As running primary; None: it is none.
    in_force: InForce | None = None
    is_open: bool = False
    view: SyncSet = NOTHING

    @property
    def data(self) -> LocalData:
        return LocalData(
            DataKind.PRESENT,
            "1",
            self.history,
            self.was_primary,
            self.primary_term if self.was_primary else NO_TERM,
            self.is_clean,
            Lsn(len(self.wal)) if self.is_clean or not self.was_primary else Lsn(0),
        )


class Cluster:
    """All hosts, the replicated record, and what was acknowledged."""

    def __init__(
        self, hosts: int, needed: int, *, seals: bool = True, counts: bool = True, numbers: bool = True
    ) -> None:
        self.seals, self.counts, self.numbers = seals, counts, numbers
        self.servers = {HostId(f"h{number}"): Server(HostId(f"h{number}")) for number in range(hosts)}
        self.names = tuple(self.servers)
        self.needed = needed
        self.published = SyncSet()
        self.holder, self.term = self.names[0], FencingTerm(1)
        self.timeline, self.recorded = Timeline(1), FencingTerm(1)
        self.reports: dict[HostId, SealReport] = {}
        self.decided: FailoverStep | None = None
        self.acknowledged: set[int] = set()
        self.records = 0
        self.wanted = self.names
        first = self.servers[self.holder]
        self._start(first)
        first.is_open = True
        for host in self.names[1:]:
            self.servers[host].upstream = self.holder

    def move(self, move: Move) -> None:
        kind, who, much = move
        server = self.servers[self.names[who % len(self.names)]]
        match kind:
            case "write" if server.in_force is not None:
                self.records += 1
                server.wal.append(self.records)
            case "flush":
                self._flush(server, much)
            case "plan" if server.in_force is not None:
                self._plan(server, server.in_force)
            case "want":
                self.wanted = tuple(host for at, host in enumerate(self.names) if who >> at & 1)
            case "stop" if server.in_force is not None:
                self._end(server, clean=much % 2 == 0)
            case "seal":
                self._seal(server, clean=much % 2 == 0)
            case "decide":
                self._decide(who, much)
            case "assign":
                self._assign()
            case "promote":
                self._promote(self.servers[self.holder])
            case "record":
                self._record(self.servers[self.holder])
            case "follow":
                self._follow(server)
            case "mend":
                self._mend(who)
            case _:
                pass
        self._acknowledge()

    def _mend(self, leader: int) -> None:
        """A quiet time: if the primary is gone all are sealed and one is chosen; then all follow."""
        everybody = range(len(self.names))
        if self.servers[self.holder].in_force is None:
            for number in everybody:
                self.move(("seal", number, leader))
            for kind in ("decide", "assign", "promote", "record"):
                self.move((kind, (1 << len(self.names)) - 1, leader))
        self.move(("want", (1 << len(self.names)) - 1, 0))
        for _ in range(6):
            for number in everybody:
                self.move(("follow", number, 0))
                self.move(("flush", number, 3))
            self.move(("plan", self.names.index(self.holder), 0))

    # ---- streaming --------------------------------------------------------------

    def _flush(self, server: Server, much: int) -> None:
        upstream = self.servers[server.upstream] if server.upstream is not None else None
        if upstream is None or upstream.in_force is None:
            return
        have = len(server.wal)
        if server.wal != upstream.wal[:have]:
            raise Mixed(f"{server.host} receives from {upstream.host}")
        server.wal += upstream.wal[have : have + much % 4]
        server.history = upstream.history

    def _acknowledge(self) -> None:
        for primary in self.servers.values():
            if primary.in_force is None or not primary.is_open:
                continue
            reached = self._reached(primary, primary.in_force.names)
            new = set(primary.wal[:reached]) - self.acknowledged
            self.acknowledged |= new
            for later in self.servers.values():
                if later.is_open and later.primary_term > primary.primary_term and new - set(later.wal):
                    raise Lost(f"{primary.host} acknowledged {new} after {later.host} took over")

    def _reached(self, primary: Server, names: SyncNames) -> int:
        flushed = self._flushed(primary)
        holding = sorted((flushed.get(host, Lsn(0)) for host in names.standbys), reverse=True)
        return holding[names.needed - 1] if names.needed <= len(holding) else 0

    def _flushed(self, primary: Server) -> dict[HostId, Lsn]:
        return {
            host: Lsn(len(each.wal)) for host, each in self.servers.items() if each.upstream == primary.host
        }

    def _plan(self, primary: Server, in_force: InForce) -> None:
        flushed = self._flushed(primary)
        wanted = [host for host in self.wanted if host in flushed]
        step = next_step(in_force, primary.view, wanted, self.needed, flushed=flushed, is_settled=True)
        match step:
            case SetSyncNames(names=names):
                primary.in_force = InForce(primary.host, names)
            case ReadBarrier():
                primary.in_force = replace(in_force, barrier=Lsn(len(primary.wal)))
            case Publish():
                is_holder = (self.holder, self.term) == (primary.host, primary.primary_term)
                if is_holder and step.expected_version == self.published.version:
                    self.published = SyncSet(step.expected_version + 1, step.voters, step.quorum)
                    primary.view = self.published
            case _:
                pass

    # ---- failover ---------------------------------------------------------------

    def _end(self, server: Server, *, clean: bool) -> None:
        server.in_force, server.is_open, server.is_clean = None, False, clean

    def _seal(self, server: Server, *, clean: bool) -> None:
        if server.in_force is not None:
            self._end(server, clean=clean)
        if self.seals:
            server.upstream = None
        server.sealed_under = self.term
        self.reports[server.host] = SealReport(
            server.host,
            self.term,
            "1",
            server.history,
            Lsn(len(server.wal) if server.is_clean or not server.was_primary else 0),
            catching_up=len(server.wal) < server.whole_at,
            primary_term=server.data.primary_term,
            ended_cleanly=server.is_clean and server.was_primary,
        )

    def _decide(self, alive: int, much: int) -> None:
        """The leader takes the holder for lost, rightly or not, and sees some of the hosts."""
        published = self.published
        if not self.counts:
            published = replace(published, quorum=1)
        step = decide_failover(
            FailoverView(
                self.names[much % len(self.names)],
                self.names,
                tuple(host for at, host in enumerate(self.names) if alive >> at & 1),
                self.holder,
                self.term,
                Standing.LOST,
                "1",
                self.timeline,
                self.recorded,
                published,
                dict(self.reports),
            )
        )
        self.decided = step if step.chosen is not None else self.decided

    def _assign(self) -> None:
        step, self.decided = self.decided, None
        if step is None or step.chosen is None:
            return
        if (step.published_version, step.recorded_term) != (self.published.version, self.recorded):
            return
        self.holder, self.term = step.chosen, FencingTerm(self.term + 1)

    def _promote(self, server: Server) -> None:
        if server.in_force is not None or server.sealed_under >= self.term:
            return
        if self.seals and server.upstream is not None:
            return
        server.upstream = None
        if not server.was_primary:
            above = timeline_above(self.term) if self.numbers else self.timeline
            newer = Timeline(max(above, server.history.timeline) + 1)
            left = Ancestor(server.history.timeline, Lsn(len(server.wal)))
            server.history = TimelineHistory(newer, (*server.history.ancestors, left))
        self._start(server)

    def _start(self, server: Server) -> None:
        server.was_primary, server.primary_term, server.whole_at = True, self.term, 0
        names = first_names(self.published, server.host, self.needed, self.names)
        assert covers(self.published, server.host, names)
        server.in_force, server.view = InForce(server.host, names), self.published

    def _record(self, server: Server) -> None:
        if server.in_force is None or server.primary_term != self.term or server.is_open:
            return
        self.timeline, self.recorded = server.history.timeline, self.term
        server.is_open = True
        if self.acknowledged - set(server.wal):
            raise Lost(f"{server.host} opens without {self.acknowledged - set(server.wal)}")

    def _follow(self, server: Server) -> None:
        primary = self.servers[self.holder]
        if server is primary or server.sealed_under >= self.term:
            return
        if server.in_force is not None or primary.in_force is None or primary.primary_term != self.term:
            return
        is_standby = not server.was_primary
        way = way_back(server.data, primary.history, Lsn(len(server.wal)) if is_standby else None)
        if way is not Return.AS_IT_IS:
            shared = 0
            while way is Return.REWIND and shared < min(len(server.wal), len(primary.wal)):
                if server.wal[shared] != primary.wal[shared]:
                    break
                shared += 1
            server.wal, server.whole_at = primary.wal[:shared], len(primary.wal)
            server.history = primary.history
        if server.wal != primary.wal[: len(server.wal)]:
            raise Mixed(f"{server.host} follows {primary.host} {way.value}")
        server.was_primary, server.is_clean, server.upstream = False, False, primary.host
