"""A whole cluster in virtual time: machines, network, clients, and the record of what happens.

Everything random comes from one seed, split by name, so that a change in one part leaves the draws of
the others as they were. A run is a sequence of records (trace.py); its hash is a function of seed and
settings only.
"""

import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from mesh.driver import DriverSettings
from mesh.errors import TrellisError
from mesh.ids import HostId, Incarnation, MemberId, host_of, member_id
from mesh.raft import first_log
from mesh.raft.model import Entry, EntryId, HardState, Message, RaftSettings, Role, SnapshotMeta
from tests.sim.clock import MS, NS, Clock
from tests.sim.cluster import CLUSTER, address_of, founding
from tests.sim.disk import Disk
from tests.sim.failpoints import Failpoints
from tests.sim.host import Life
from tests.sim.loop import Scheduler
from tests.sim.machine import Machine
from tests.sim.network import Network
from tests.sim.postgres.cluster import Databases
from tests.sim.timing import DEFAULT, Timing
from tests.sim.trace import Checker, Crash, End, Event, Facts, Violation
from tests.sim.versions import through_released

#: The last events that are shown with a violation.
TAIL = 60


class BugFound(Exception):
    """Production code raised what it must never raise."""


class Halt(Exception):
    """Ends the run at once: what ended it is in `World.failure`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a world is made of, drawn from its seed."""

    voters: int = 3
    learners: int = 0
    has_witness: bool = False
    raft: RaftSettings = field(default_factory=lambda: RaftSettings(id=MemberId("")))
    driver: DriverSettings = field(default_factory=DriverSettings)
    timing: Timing = DEFAULT
    rates_ppm: tuple[int, ...] = ()
    #: Every machine with data carries PostgreSQL.
    has_database: bool = False


class World:
    """The machines and everything between them. Order: made, `found`, then `run_until`."""

    def __init__(self, seed: int, plan: Plan, checkers: Sequence[type[Checker]]) -> None:
        self.seed = seed
        self.plan = plan
        self.cluster = CLUSTER
        self.scheduler = Scheduler()
        timing = plan.timing
        self.timers = timing.leases
        self.margin_ns = timing.margin_ns
        self.faults: Counter[str] = Counter()
        self.failpoints = Failpoints(self)
        self.failure: BaseException | None = None
        self.events = 0
        self.is_over = False
        #: Some machine runs, or ran, the released version.
        self.has_previous = False
        self.tail: deque[Event] = deque(maxlen=TAIL)
        self._hash = hashlib.sha256()
        count = plan.voters + plan.learners + plan.has_witness
        names = [HostId(f"host{number}") for number in range(1, count + 1)]
        chance = self.chance("machines")
        self.machines = {name: self._machine(name, chance) for name in names}
        self.machines[names[-1]].is_witness = plan.has_witness
        self.databases = Databases(self) if plan.has_database else None
        self.network = Network(self.scheduler, names, self.chance("network"), self.count)
        self._lives: dict[MemberId, Life] = {}
        #: Everything that ever ran, so that nothing of a dropped life is collected while this runs.
        self._graveyard: list[Life] = []
        self.leaders: set[MemberId] = set()
        #: Those that some applied state has no longer: others do not listen to them.
        self.removed: set[MemberId] = set()
        self.founders = tuple(member_id(name, Incarnation(1)) for name in names[: plan.voters])
        self.facts = Facts(
            seed=seed,
            hosts=tuple(names),
            founders=self.founders,
            timers=self.timers,
            tick_ns=timing.tick_ns,
            election_ns=(
                plan.raft.election_ticks_min * timing.tick_ns,
                plan.raft.election_ticks_max * timing.tick_ns,
            ),
            margin_ns=self.margin_ns,
            boottime_ns=lambda host: self.machines[host].clock.boottime_ns(),
        )
        self.checkers = [each(self.facts) for each in checkers if each.name not in self.facts.suspended]
        self._seen: dict[type, list[Callable[[Event], None]]] = {}
        for checker in self.checkers:
            for kind in checker.wants:
                self._seen.setdefault(kind, []).append(checker.seen)

    def chance(self, name: str) -> Random:
        """The generator of one part, by name."""
        return Random(f"{self.seed}/{name}")

    def _machine(self, name: HostId, chance: Random) -> Machine:
        number = int(name.removeprefix("host")) - 1
        rates = self.plan.rates_ppm
        clock = Clock(
            lambda: self.scheduler.now,
            rate_ppm=rates[number % len(rates)] if rates else 0,
            offset_ns=chance.randrange(NS, 10_000 * NS),
            wall_ns=1_700_000_000 * NS,
        )
        return Machine(name, self, clock)

    # ---- the record -------------------------------------------------------------------

    @property
    def now(self) -> int:
        """True time."""
        return self.scheduler.now

    def emit(self, event: Event) -> None:
        """Something is true from now on."""
        if self.is_over:
            return
        self.events += 1
        self._hash.update(_line(event))
        self.tail.append(event)
        for seen in self._seen.get(type(event), ()):
            try:
                seen(event)
            except Violation as violation:
                self._halt(violation)

    def count(self, fault: str) -> None:
        """One more fault of this kind took effect."""
        self.faults[fault] += 1

    def violated(self, checker: str, text: str) -> None:
        """The cluster itself says that a promise is broken."""
        self._halt(Violation(checker, text))

    def bug(self, error: BaseException) -> None:
        """Production code raised what it must never raise."""
        self._halt(error)

    def _halt(self, failure: BaseException) -> None:
        if self.failure is None:
            self.failure = failure
            self.scheduler.halt(Halt())

    def trace_hash(self) -> str:
        """SHA-256 over every record so far."""
        return self._hash.hexdigest()

    def check(self) -> None:
        """Fails: whatever has gone wrong by now."""
        if self.failure is not None:
            raise self.failure

    def run_until(self, when: int) -> None:
        """Let everything happen. Fails: `Violation`, or a bug of the production code."""
        with self.failpoints, contextlib.suppress(Halt):
            self.scheduler.run_until(when)
        self.check()

    def close(self) -> None:
        """End what dead processes left suspended, and forget everything."""
        self.is_over = True
        self.failpoints.clear()
        for life in self._graveyard:
            life.loop.close()
        self._graveyard.clear()
        self._lives.clear()
        for machine in self.machines.values():
            machine.life = None
        self.scheduler.clear()

    def finish(self) -> None:
        """The run is over. Fails: `Violation`."""
        for checker in self.checkers:
            checker.finished(self.now)

    # ---- settings ---------------------------------------------------------------------

    def raft_settings(self, member: MemberId) -> RaftSettings:
        """Of one member."""
        return replace(self.plan.raft, id=member)

    def driver_settings(self) -> DriverSettings:
        """Of every driver."""
        return self.plan.driver

    def recode(self, life: Life, message: Message) -> Message:
        """What is left of *message* on its way to *life*: all of it, unless versions differ."""
        if not self.has_previous:
            return message
        sender = self.machines.get(host_of(message.sender))
        if life.machine.is_previous or (sender is not None and sender.is_previous):
            self.count("previous-version")
            return through_released(message, self.cluster)
        return message

    # ---- machines ---------------------------------------------------------------------

    def found(self) -> None:
        """Give the founders their first disks and start them."""
        first = first_log(list(self.founders))
        seeds = {each: address_of(host_of(each)) for each in self.founders}
        command = founding(self.founders)
        for member in self.founders:
            machine = self.machines[host_of(member)]
            machine.disk = Disk(member, hard_state=first.hard_state, entries=list(first.entries))
            machine.seeds, machine.founding = seeds, command
            self.start(machine)

    def start(self, machine: Machine) -> None:
        """Start a sidecar, if the machine is up, of the cluster, and has none."""
        disk = machine.disk
        if machine.life is not None or disk is None or not machine.is_up or machine.is_frozen:
            return
        if self.now < machine.clears_at:  # no process starts sooner than the fence clears: it takes 0.3 s
            self.scheduler.at(machine.clears_at, self.start, machine)
            return
        machine.lives += 1
        try:
            life = Life(machine, disk, self.chance(f"{machine.name}/{machine.lives}"))
        except TrellisError as error:
            self.emit(End(self.now, machine.name, disk.member, type(error).__name__))
            self.on_ended(machine, type(error).__name__)
            return
        machine.life = self._lives[life.member] = life
        self._graveyard.append(life)
        life.start()

    def life_of(self, member: MemberId) -> Life | None:
        """The process that is this member now."""
        return self._lives.get(member)

    def lives(self) -> list[Life]:
        """All that run, in the order of their machines."""
        return [each.life for each in self.machines.values() if each.life is not None]

    def refuses(self, host: HostId) -> bool:
        """The kernel of *host* runs and nobody listens there."""
        machine = self.machines[host]
        return machine.is_up and not machine.is_frozen and machine.life is None

    def kill(self, machine: Machine, kind: str) -> None:
        """The process ends between two instructions; the kernel closes what it had open."""
        life = self._bury(machine)
        if life is None:
            return
        self.emit(Crash(self.now, machine.name, life.member, kind))
        machine.clears_at = self.now + 1 + int(life.chance.random() * 40 * MS)
        machine.at(machine.clears_at, self._cleared, life)
        self._tell_broken(life)

    def _cleared(self, life: Life) -> None:
        """Kernel and fence have taken away what the dead process held."""
        life.fence.strike("fence")
        if life.machine.life is None:
            life.machine.end_all("kernel")

    def power_off(self, machine: Machine) -> None:
        """The machine goes dark: nobody is told anything."""
        life = self._bury(machine)
        machine.is_up = False
        machine.end_all("power")
        if machine.postgres is not None:
            machine.postgres.lose_power()
        if life is not None:
            self.emit(Crash(self.now, machine.name, life.member, "power"))
            for other in self.lives():
                after = NS + int(life.chance.random() * NS)
                other.loop.call_true(self.now + after, self._fall_silent, other, life)

    def _fall_silent(self, other: Life, life: Life) -> None:
        for connection in [each for each in life.incoming if each.client is other]:
            connection.broken()
        other.transport.broken(life.member)

    def _bury(self, machine: Machine) -> Life | None:
        life = machine.life
        if life is None:
            return None
        machine.life = None
        self._lives.pop(life.member, None)
        self.leaders.discard(life.member)
        for writer in life.writers:
            writer.crash()
        life.loop.drop()
        return life

    def ended(self, life: Life, error: str) -> None:
        """A sidecar has ended by itself."""
        machine = life.machine
        self._bury(machine)
        self.emit(End(self.now, machine.name, life.member, error))
        machine.end_all("kernel")
        self._tell_broken(life)
        self.on_ended(machine, error)

    def on_ended(self, machine: Machine, error: str) -> None:
        """What the init system does: start it again."""
        if error:
            after = int(self.chance(f"again/{machine.name}/{machine.lives}").uniform(0.5, 5) * NS)
            self.scheduler.at(self.now + after, self.start, machine)

    def _tell_broken(self, life: Life) -> None:
        """The kernel of the dead process says so on its connections, where it can."""
        for other in self.lives():
            if self.network.is_cut(life.host, other.host):
                after = NS + int(life.chance.random() * NS)
            else:
                after = self.network.delay(life.host, other.host)
            other.loop.call_true(self.now + after, self._fall_silent, other, life)

    def role_changed(self, life: Life, leads: bool) -> None:
        """Keeps `leaders`: who believes to lead."""
        if leads:
            self.leaders.add(life.member)
        else:
            self.leaders.discard(life.member)

    def leader(self) -> Life | None:
        """The leader of the newest term, if somebody believes to be one."""
        lives = [life for life in self.lives() if life.member in self.leaders]
        return max(lives, key=lambda life: life.driver.term, default=None)


def _line(event: Event) -> bytes:
    """What of *event* counts for the hash."""
    kind = type(event)
    text = _TEXTS.get(kind) or _text_of(kind)
    if PLAIN.issuperset(map(type, event)):
        return (text % event).encode()
    return (text % tuple([_SAID.get(type(value), str)(value) for value in event])).encode()


def _text_of(kind: type[Event]) -> str:
    """How events of one kind are written: the name, and the list of their values."""
    text = _TEXTS[kind] = f"{kind.__name__}[{', '.join(['%r'] * len(kind._fields))}]"
    return text


def _said_entries(values: tuple[object, ...]) -> str:
    """Of entries, where they stand: what they say follows from the requests."""
    if values and type(values[0]) is Entry:
        last = values[-1]
        assert isinstance(last, Entry)
        return f"{len(values)} to {last.term}.{last.index}"
    return str(values)


_TEXTS: Final[dict[type, str]] = {}
#: Values of these types are said as they are.
PLAIN: Final = frozenset({int, str, bytes})
#: How values of these types are said; all others as their text.
_SAID: dict[type, Callable[[Any], object]] = {
    int: lambda value: value,
    str: lambda value: value,
    bytes: lambda value: value,
    tuple: _said_entries,
    EntryId: lambda value: (value.term, value.index),
    HardState: lambda value: (value.term, value.vote, value.commit),
    SnapshotMeta: lambda value: (value.last.term, value.last.index, value.sha256),
    Role: lambda value: value.value,
}
