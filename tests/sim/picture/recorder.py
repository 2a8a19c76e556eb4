"""Takes a run down for its picture, without changing it: the trace has the same hash with and without.

Events give what has an instant. What is told only when it begins, or not at all (links, progress), is looked
at each `LOOK_NS`: such spans may be off by as much.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mesh.ids import HostId, OwnedName
from mesh.raft.model import Role
from tests.sim.clock import MS
from tests.sim.picture.links import Links
from tests.sim.trace import (
    Acted,
    Applied,
    Committed,
    Crash,
    End,
    Event,
    Facts,
    Fault,
    Invoke,
    LeaseExtended,
    Owned,
    Pause,
    Phase,
    Restored,
    Resume,
    Return,
    RoleChanged,
    Start,
    Stopped,
)

if TYPE_CHECKING:
    from tests.sim.world import World

LOOK_NS: Final = 50 * MS
#: Progress is noted at every so manieth look.
PROGRESS_LOOKS: Final = 5
ROLES: Final = {Role.FOLLOWER: 0, Role.PRE_CANDIDATE: 1, Role.CANDIDATE: 2, Role.LEADER: 3}
#: What an answer was, in the order of the picture's bins.
RESULTS: Final = {"ok": 0, "refused": 1, "unknown": 2, "": 3}

Span = list[Any]


@dataclass(slots=True)
class Lane:
    """What is drawn of one host. Spans begin with [from, to] in microseconds."""

    name: HostId
    #: [from, to, role, term]
    roles: list[Span] = field(default_factory=list)
    #: [from, to, kind, detail]: paused, gone
    states: list[Span] = field(default_factory=list)
    #: [from, to] of a lease that runs
    leases: list[Span] = field(default_factory=list)
    #: [at, kind, detail]
    marks: list[Span] = field(default_factory=list)
    #: [at, committed as known here, applied]
    progress: list[Span] = field(default_factory=list)
    committed: int = 0
    applied: int = 0
    role: Span | None = None
    state: Span | None = None


class Recorder:
    """A checker that finds nothing. Order: `watch` before the run, `finished` or `end` after it."""

    name: ClassVar[str] = "recorder"
    wants: ClassVar[tuple[type[Event], ...]] = (
        Start,
        Crash,
        End,
        Pause,
        Resume,
        Fault,
        Phase,
        RoleChanged,
        Committed,
        Applied,
        Restored,
        LeaseExtended,
        Owned,
        Acted,
        Stopped,
        Invoke,
        Return,
    )

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.lanes = {name: Lane(name) for name in facts.hosts}
        self.phases: list[Span] = []
        #: What is done to all hosts or to links: [at, kind, detail].
        self.marks: list[Span] = []
        #: By exclusive thing: [from, to, host, fencing term, ended by].
        self.acts: dict[OwnedName, list[Span]] = {}
        #: By exclusive thing, what the newest applied state says: [at, host or -1, fencing term].
        self.owners: dict[OwnedName, list[Span]] = {}
        #: [asked at, answered at or -1, result, host, kind]
        self.requests: dict[int, Span] = {}
        self.links: Links | None = None
        self._number = {name: number for number, name in enumerate(facts.hosts)}
        self._acting: dict[tuple[HostId, OwnedName], Span] = {}
        self._looks = 0
        self._tell: dict[type[Event], Any] = {
            Start: self._start,
            Crash: self._crash,
            End: self._end,
            Pause: self._pause,
            Resume: self._resume,
            Fault: self._fault,
            Phase: self._phase,
            RoleChanged: self._role,
            Committed: self._committed,
            Applied: self._applied,
            Restored: self._applied,
            LeaseExtended: self._lease,
            Owned: self._owned,
            Acted: self._acted,
            Stopped: self._stopped,
            Invoke: self._invoke,
            Return: self._return,
        }
        for lane in self.lanes.values():
            lane.state = [0, -1, "absent", "not of the cluster yet"]

    def seen(self, event: Event) -> None:
        """Take it down."""
        self._tell[type(event)](event, event.at_ns // 1_000)

    def finished(self, at_ns: int) -> None:
        """Nothing is judged here."""

    # ---- what is looked at ------------------------------------------------------------

    def watch(self, world: "World") -> None:
        """Look at links and progress from now on."""
        self.links = Links(list(self.facts.hosts))
        world.scheduler.at(world.now, self._look, world)

    def _look(self, world: "World") -> None:
        at = world.now // 1_000
        if self.links is not None:
            self.links.look(at, world.network.links)
        if self._looks % PROGRESS_LOOKS == 0:
            for lane in self.lanes.values():
                _note_progress(lane, at)
        self._looks += 1
        if not world.is_over:
            world.scheduler.at(world.now + LOOK_NS, self._look, world)

    def end(self, at_ns: int) -> None:
        """The run is over: whatever still goes on ends here."""
        at = at_ns // 1_000
        for lane in self.lanes.values():
            _note_progress(lane, at)
            self._role_ends(lane, at)
            self._state_ends(lane, at)
            for lease in lane.leases:
                lease[1] = min(lease[1], at)
        for span in self._acting.values():
            span[1] = at
        if self.links is not None:
            self.links.end(at)

    # ---- hosts ------------------------------------------------------------------------

    def _start(self, event: Start, at: int) -> None:
        lane = self.lanes[event.host]
        self._state_ends(lane, at)
        lane.committed, lane.applied = event.hard_state.commit, 0
        self._role_begins(lane, at, Role.FOLLOWER, event.hard_state.term)

    def _crash(self, event: Crash, at: int) -> None:
        lane = self.lanes[event.host]
        text = "machine without power" if event.kind == "power" else "sidecar killed"
        self._gone(lane, at, "off" if event.kind == "power" else "killed", text)

    def _end(self, event: End, at: int) -> None:
        lane = self.lanes[event.host]
        kind = "failed" if event.error else "ended"
        self._gone(
            lane, at, kind, f"sidecar ended by itself: {event.error}" if event.error else "sidecar ended"
        )

    def _gone(self, lane: Lane, at: int, kind: str, detail: str) -> None:
        self._role_ends(lane, at)
        if lane.state is None or lane.state[2] == "paused":
            self._state_ends(lane, at)
            lane.state = [at, -1, kind, detail]
        else:  # it tried to start, and could not
            lane.state[3] = detail
        if lane.leases:
            lane.leases[-1][1] = min(lane.leases[-1][1], at)

    def _pause(self, event: Pause, at: int) -> None:
        lane = self.lanes[event.host]
        if lane.state is None:
            lane.state = [at, -1, "paused", "nothing of it runs"]

    def _resume(self, event: Resume, at: int) -> None:
        lane = self.lanes[event.host]
        if lane.state is not None and lane.state[2] == "paused":
            self._state_ends(lane, at)

    def _state_ends(self, lane: Lane, at: int) -> None:
        if lane.state is not None:
            lane.state[1] = at
            if at > lane.state[0]:
                lane.states.append(lane.state)
            lane.state = None

    def _role(self, event: RoleChanged, at: int) -> None:
        lane = self.lanes[event.host]
        if lane.role is None or lane.role[2:] != [ROLES[event.role], event.term]:
            self._role_begins(lane, at, event.role, event.term)

    def _role_begins(self, lane: Lane, at: int, role: Role, term: int) -> None:
        self._role_ends(lane, at)
        lane.role = [at, -1, ROLES[role], int(term)]

    def _role_ends(self, lane: Lane, at: int) -> None:
        if lane.role is not None:
            lane.role[1] = at
            if at > lane.role[0]:
                lane.roles.append(lane.role)
            lane.role = None

    def _lease(self, event: LeaseExtended, at: int) -> None:
        leases, until = self.lanes[event.host].leases, at + event.left_ns // 1_000
        if event.left_ns <= 0:
            return
        if leases and leases[-1][1] >= at:
            leases[-1][1] = max(leases[-1][1], until)
        else:
            leases.append([at, until])

    # ---- the log ----------------------------------------------------------------------

    def _committed(self, event: Committed, at: int) -> None:
        lane = self.lanes[event.host]
        lane.committed = max(lane.committed, event.entries[-1].index if event.entries else 0)

    def _applied(self, event: Applied | Restored, at: int) -> None:
        self.lanes[event.host].applied = event.at_index

    # ---- faults and phases ------------------------------------------------------------

    def _fault(self, event: Fault, at: int) -> None:
        marks = self.lanes[event.host].marks if event.host in self.lanes else self.marks
        marks.append([at, event.kind, event.detail])

    def _phase(self, event: Phase, at: int) -> None:
        self.phases.append([at, event.name, [self._number[host] for host in event.hosts]])

    # ---- what is exclusive ------------------------------------------------------------

    def _acted(self, event: Acted, at: int) -> None:
        span = [at, -1, self._number[event.host], int(event.fencing_term), ""]
        self._acting[event.host, event.name] = span
        self.acts.setdefault(event.name, []).append(span)

    def _stopped(self, event: Stopped, at: int) -> None:
        span = self._acting.pop((event.host, event.name), None)
        if span is not None:
            span[1], span[4] = at, event.by

    def _owned(self, event: Owned, at: int) -> None:
        told = self.owners.setdefault(event.name, [])
        holder = self._number.get(event.holder, -1) if event.holder is not None else -1
        newest = told[-1][2] if told else -1
        if event.fencing_term > newest or (event.fencing_term == newest and told[-1][1] != holder):
            told.append([at, holder, int(event.fencing_term)])

    # ---- clients ----------------------------------------------------------------------

    def _invoke(self, event: Invoke, at: int) -> None:
        self.requests[event.operation] = [at, -1, 3, self._number.get(event.host, -1), event.kind]

    def _return(self, event: Return, at: int) -> None:
        asked = self.requests.get(event.operation)
        if asked is not None:
            asked[1], asked[2] = at, RESULTS[event.result]


def _note_progress(lane: Lane, at: int) -> None:
    # While no sidecar runs there is nothing to tell.
    point = [-1, -1] if lane.role is None else [lane.committed, lane.applied]
    if not lane.progress or lane.progress[-1][1:] != point:
        lane.progress.append([at, *point])
