"""The simulator and the failpoints: it comes by all that its hosts have, and each does what it says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

import pytest

from mesh import failpoints
from mesh.failpoints import FAILPOINTS
from mesh.failpoints.arming import Action, Arming, parse
from mesh.ids import HostId
from tests.sim.checkers import ALL_CHECKERS
from tests.sim.clients import Clients
from tests.sim.clock import MS, NS
from tests.sim.failpoints import ABSENT, PAIRS, REACHABLE, Pair
from tests.sim.faults import Faults
from tests.sim.host import Life
from tests.sim.phases import Run
from tests.sim.profiles import PROFILES, make_run
from tests.sim.running import Quiet
from tests.sim.trace import (
    Applied,
    Crash,
    End,
    Event,
    Facts,
    Fault,
    Invoke,
    LeaseExtended,
    Pause,
    Resume,
    Start,
    Stopped,
    Violation,
)
from tests.sim.world import Plan, World

#: A promise to whoever simulates: so many places, at least.
PLACES_MIN: Final = 45
#: Some five seeds are enough; whatever the code draws, so many are.
SEEDS_MAX: Final = 20


class Silence:
    """A checker: between its end and its next start nothing is heard of a host's process."""

    name: ClassVar[str] = "silence"
    wants: ClassVar[tuple[type[Event], ...]] = Event.__args__

    def __init__(self, facts: Facts) -> None:
        self._dead: set[HostId] = set()
        self.seen_all: list[Event] = []

    def seen(self, event: Event) -> None:
        self.seen_all.append(event)
        match event:
            case Crash() | End():
                self._dead.add(event.host)
            case Start():
                self._dead.discard(event.host)
            case Stopped() | Fault() | Pause() | Resume():
                pass  # the kernel, the fence and whoever breaks things outlive the process
            case _ if event.host in self._dead:
                raise Violation("silence", f"{event} comes from a process that is dead")

    def finished(self, at_ns: int) -> None:
        pass


# ---- the table --------------------------------------------------------------------------


def test_every_place_is_reached_or_has_a_reason_why_not() -> None:
    """Goal: nothing is left out by oversight. Method: each name of the catalogue against the table of
    what the simulator replaces; each row of the table is used."""
    for name in FAILPOINTS:
        reasons = [prefix for prefix in ABSENT if name.startswith(prefix)]
        assert len(reasons) == (name not in REACHABLE), name
    assert all(any(name.startswith(prefix) for name in FAILPOINTS) for prefix in ABSENT)
    assert len(REACHABLE) >= PLACES_MIN
    assert {name for name, _ in PAIRS} == set(REACHABLE)


def sweep(seed: int, left: list[Pair]) -> set[Pair]:
    """One run of the profile in which *left* is armed, one after the other; what was struck."""
    run = make_run("failpoints", seed, (*ALL_CHECKERS, Silence))
    run.world.chance("sweep").shuffle(left)
    run.world.failpoints.wanted = list(left)
    try:
        run.run(PROFILES["failpoints"].hours * 3_600)
        return set(run.world.failpoints.struck)
    finally:
        run.world.close()


def test_every_place_is_struck_with_every_action_and_no_promise_is_broken() -> None:
    """Goal: a host may die, fail or stand still at any instruction that has a name. Method: seeds of the
    profile, each with what the ones before it did not come by; all checkers look on."""
    left = list(PAIRS)
    with Quiet():
        for seed in range(1, SEEDS_MAX + 1):
            struck = sweep(seed, left)
            left = [each for each in PAIRS if each in left and each not in struck]
            if not left:
                break
    assert [f"{name}={action.value}" for name, action in left] == []


def test_the_trace_is_a_function_of_the_seed() -> None:
    """Goal: what a failpoint brings to light can be repeated. Method: a seed of the profile, twice."""
    outcomes = []
    with Quiet():
        for _ in range(2):
            run = make_run("failpoints", 7, ())
            outcomes.append(run.run(8.0))
            run.world.close()
    assert outcomes[0] == outcomes[1]
    assert sum(outcomes[0].failpoints.values()) > 10


# ---- what each action does ----------------------------------------------------------------


class Stage:
    """A founded cluster of three, with nothing broken but what a test arms."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults = Faults(world, world.chance("faults"))
        self.silence = next(each for each in world.checkers if isinstance(each, Silence))

    def follower(self) -> Life:
        """One that does not lead."""
        leader = self.world.leader()
        return next(each for each in self.world.lives() if each is not leader)

    def arm(self, word: str, life: Life) -> Arming:
        """As in TRELLIS_FAILPOINTS, on one host."""
        arming = parse(word)
        self.world.failpoints.arm(arming, {life.host}, self.faults)
        return arming

    def write(self) -> None:
        """Something is written at the leader."""
        leader = self.world.leader()
        assert leader is not None
        clients = Clients(self.world, self.world.chance("clients"), count=0, documents=1, pause_ns=NS)
        clients.probe(leader, "put", lambda answer: None)

    def run(self, seconds: float) -> list[Event]:
        """So long; what happened."""
        before = len(self.silence.seen_all)
        self.world.run_until(self.world.now + int(seconds * NS))
        return self.silence.seen_all[before:]


@contextmanager
def staged() -> Iterator[Stage]:
    with Quiet():
        world = World(1, Plan(voters=3), (*ALL_CHECKERS, Silence))
        world.found()
        try:
            world.run_until(5 * NS)
            yield Stage(world)
            world.finish()
        finally:
            world.close()


@pytest.mark.parametrize("name", ["driver.turn.before-send", "beats.before-send", "heartbeat.before-answer"])
def test_a_crash_ends_the_process_at_this_instruction_and_it_is_started_again(name: str) -> None:
    """Goal: as SIGKILL there. Method: a place in a plain handle, one that awaits, one in another's call;
    the process is gone, nothing of it is heard, the host is back later."""
    with staged() as stage:
        life = stage.follower()
        if name.startswith("heartbeat"):
            leader = stage.world.leader()
            assert leader is not None
            life = leader
        stage.arm(f"{name}=crash:1", life)
        events = stage.run(15)
        crash = next(each for each in events if isinstance(each, Crash))
        before = events[events.index(crash) - 1]
        assert (crash.host, crash.kind) == (life.host, "failpoint")
        assert isinstance(before, Stopped) or before == Fault(crash.at_ns, life.host, "failpoint-crash", name)
        assert life.loop.is_dropped
        again = stage.world.machines[life.host].life
        assert again is not None
        assert again.driver.leader is not None


def test_an_error_goes_the_way_of_a_real_one() -> None:
    """Goal: what the place can raise ends the sidecar. Method: a write that fails before it begins."""
    with staged() as stage:
        life = stage.follower()
        stage.arm("driver.turn.before-save=error:1", life)
        stage.write()
        ends = [each for each in stage.run(10) if isinstance(each, End)]
        assert [(each.host, each.error) for each in ends] == [(life.host, "StorageFailed")]


def test_a_stall_that_awaits_holds_up_its_coroutine_only() -> None:
    """Goal: the rest of the process goes on. Method: a beat that is held up; its host applies
    meanwhile, and its lease is extended again only afterwards."""
    with staged() as stage:
        life = stage.follower()
        stage.arm("beats.before-send=stall:700:1", life)
        stage.run(0.25)
        stage.write()
        kinds = [type(each) for each in stage.run(0.4) if each.host == life.host]
        assert Applied in kinds
        assert Pause not in kinds
        assert LeaseExtended not in kinds
        assert LeaseExtended in [type(each) for each in stage.run(1) if each.host == life.host]


def stall(stage: Stage, word: str) -> tuple[Life, list[Event]]:
    """A follower stands still at a place; what happened in the 2 s after that was armed."""
    life = stage.follower()
    stage.arm(word, life)
    events = stage.run(2)
    start = next(number for number, each in enumerate(events) if isinstance(each, Pause))
    return life, events[start:]


def test_a_stall_that_does_not_await_stops_the_process_in_the_midst_of_its_work() -> None:
    """Goal: what is behind the place is done later, in the same breath. Method: a turn held up for 700 ms;
    nothing of the host is heard meanwhile, others go on, and then it goes on where it was."""
    with staged() as stage:
        life, events = stall(stage, "driver.turn.before-send=stall:700:1")
        pause = events[0]
        resume = next(each for each in events if isinstance(each, Resume))
        between = events[1 : events.index(resume)]
        assert resume.at_ns - pause.at_ns == 700 * MS
        assert life.host not in {each.host for each in between if not isinstance(each, Invoke)}
        assert between
        assert not life.loop.is_paused


def test_a_process_that_stands_still_may_be_killed_and_is_then_gone_at_that_place() -> None:
    """Goal: no code of a dead process runs when its stall is over. Method: a kill amid a stall."""
    with staged() as stage:
        life = stage.follower()
        stage.world.scheduler.at(stage.world.now + NS, stage.world.kill, life.machine, "kill")
        stage.arm("driver.turn.before-send=stall:2000:1", life)
        events = stage.run(4)
        assert [each.kind for each in events if isinstance(each, Crash)] == ["kill"]
        assert not [each for each in events if isinstance(each, Resume)]


def test_a_process_that_stands_still_on_a_frozen_machine_goes_on_after_both() -> None:
    """Goal: two reasons to stand still add up. Method: a machine frozen amid a stall and for longer."""
    with staged() as stage:
        life, world = stage.follower(), stage.world
        world.scheduler.at(world.now + NS // 2, life.machine.freeze)
        world.scheduler.at(world.now + 3 * NS, life.machine.thaw)
        stage.arm("driver.turn.before-send=stall:1000:1", life)
        events = stage.run(6)
        resumed = [each.at_ns for each in events if isinstance(each, Resume)]
        assert len(resumed) == 1
        assert 0 <= resumed[0] - (world.now - 3 * NS) <= 10 * MS
        assert world.machines[life.host].life is life


def test_a_run_may_end_while_a_process_stands_still() -> None:
    """Goal: no handle outlives the time that was asked for. Method: a stall longer than the run, and on."""
    with staged() as stage:
        stall(stage, "driver.turn.before-send=stall:60000:1")
        assert stage.world.now == 7 * NS
        stage.run(3)


# ---- installing ---------------------------------------------------------------------------


def test_the_handler_is_installed_only_while_its_world_runs_and_something_is_armed() -> None:
    """Goal: production code elsewhere in this process is left alone. Method: look inside a run and between
    runs, armed and not, and after a run that raised."""
    found: list[bool] = []

    def look() -> None:
        before = failpoints.install(None)
        found.append(before is not None)
        failpoints.install(before)

    def fail() -> None:
        raise ValueError("on purpose")

    with staged() as stage:
        world = stage.world
        world.scheduler.at(world.now + 1, look)
        stage.run(1)
        look()
        stage.arm("driver.turn.before-send=stall:10:1@999999", stage.follower())
        look()
        world.scheduler.at(world.now + 1, look)
        stage.run(1)
        look()
        world.scheduler.at(world.now + 1, fail)
        with pytest.raises(ValueError, match="on purpose"):
            stage.run(1)
        look()
    assert found == [False, False, False, True, False, False]


def test_when_all_is_healed_nothing_is_armed() -> None:
    """Goal: the healed majority is left alone. Method: a run of the profile up to its end."""
    with Quiet():
        run: Run = make_run("failpoints", 3, ())
        run.run(6.0)
        world = run.world
        assert not run.faults.is_on
        assert all(Action(action) and times for (_, action), times in world.failpoints.struck.items())
        armed = world.failpoints.armed()
        world.close()
    assert armed == []
