"""One run: first anything may fail, then a majority is healed for good and has to get on.

*Safety*: faults, clients and operations, for as long as asked. *Liveness*: a random majority is healed,
the others are as they are or cut off; within ten election timeouts it must have a leader, commit, own
what is exclusive, and agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from mesh.driver import DriverSettings
from mesh.ids import VIP, HostId, MemberId, OwnedName
from mesh.raft.model import RaftSettings
from mesh.state import checkpoint
from tests.sim.clients import Answer, Clients
from tests.sim.clock import NS
from tests.sim.faults import Faults
from tests.sim.host import Life
from tests.sim.trace import Checker, Phase, Violation
from tests.sim.world import Plan, World

#: Ten election timeouts: 25 s.
LIVENESS_NS: Final = 10 * 2_550_000_000
EXCLUSIVE: Final = (VIP, OwnedName("service/reporter"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    seed: int
    events: int
    simulated_s: float
    trace_hash: str
    faults: dict[str, int]
    done: int
    steps: int


def draw_plan(seed: int) -> Plan:
    """What a cluster is made of."""
    chance = Random(f"{seed}/plan")
    voters = chance.choices((3, 5, 7), (80, 15, 5))[0]
    raft = replace(
        # As `settings_map.raft_settings` makes it of default settings.
        RaftSettings(id=MemberId("")),
        heartbeat_ticks=5,
        election_ticks_min=31,
        election_ticks_max=51,
        trailing_entries=chance.choice((8, 64, 4_096)),
        append_bytes_max=chance.choice((2_000, 1 << 20)),
        chunk_bytes=chance.choice((1_500, 1 << 20)),
        inflight_max=chance.choice((2, 256)),
    )
    driver = DriverSettings(snapshot_entries=chance.choice((20, 100, 4_096)))
    error = 400  # of the declared 1,000 ppm: two clocks differ by less
    rates = tuple(chance.randint(-error, error) for _ in range(voters)) if chance.random() < 0.7 else ()
    return Plan(voters=voters, raft=raft, driver=driver, rates_ppm=rates)


class Run:
    """One seed, from founding to the verdict."""

    def __init__(self, seed: int, checkers: Sequence[type[Checker]]) -> None:
        self.world = world = World(seed, draw_plan(seed), checkers)
        chance = world.chance("clients")
        self.clients = Clients(
            world,
            chance,
            count=chance.choice((1, 3, 6)),
            documents=chance.choice((2, 5)),
            pause_ns=int(chance.choice((0.3, 1.0, 3.0)) * NS),
        )
        self.faults = Faults(world, world.chance("faults"))

    def run(self, seconds: float) -> Outcome:
        """All of it; *seconds* of safety. Fails: `Violation`, or a bug of the production code."""
        world = self.world
        world.found()
        world.emit(Phase(world.now, HostId(""), "safety", tuple(world.machines)))
        self.clients.start()
        world.scheduler.at(3 * NS, self.faults.start)
        world.run_until(int(seconds * NS))
        self._live()
        world.finish()
        return self.outcome()

    def outcome(self) -> Outcome:
        """As things are now."""
        world = self.world
        return Outcome(
            seed=world.seed,
            events=world.events,
            simulated_s=world.now / NS,
            trace_hash=world.trace_hash(),
            faults=dict(sorted(world.faults.items())),
            done=self.clients.done,
            steps=world.scheduler.steps,
        )

    # ---- liveness ---------------------------------------------------------------------

    def _live(self) -> None:
        world, chance = self.world, self.world.chance("liveness")
        names = self._majority(chance)
        self.faults.spared = set(names)
        self.faults.stop()
        self.faults.heal()
        others = [name for name in world.machines if name not in names]
        for name in others:  # gone for good
            world.power_off(world.machines[name])
        world.emit(Phase(world.now, HostId(""), "liveness", tuple(names)))
        for name in names:
            world.start(world.machines[name])
        end = world.now + LIVENESS_NS
        world.run_until(end - 6 * NS)
        self.clients.is_on = False
        world.run_until(end - 4 * NS)
        answers: dict[HostId, Answer] = {}
        for name in names:
            self._ask(name, answers)
        world.run_until(end)
        self._judge(names, answers)

    def _majority(self, chance: Random) -> list[HostId]:
        names = list(self.world.machines)
        size = chance.randint(len(names) // 2 + 1, len(names))
        return sorted(chance.sample(names, size))

    def _ask(self, name: HostId, answers: dict[HostId, Answer]) -> None:
        life = self.world.machines[name].life
        if life is None:
            raise Violation("liveness", f"{name} does not run although it was healed", is_liveness=True)

        def told(answer: Answer) -> None:
            answers[name] = answer

        self.clients.probe(life, "put", told)

    def _judge(self, names: list[HostId], answers: dict[HostId, Answer]) -> None:
        """Fails: `Violation`."""
        world = self.world
        lives = [life for name in names if (life := world.machines[name].life) is not None]
        leaders = [life.member for life in lives if life.driver.role.value == "leader"]
        if len(leaders) != 1:
            raise self._stuck(f"{len(leaders)} leaders", lives)
        for name in names:
            if name not in answers or answers[name].result != "ok":
                raise self._stuck(f"{name} could not write: {answers.get(name)}", lives)
        acting = [name for life in lives for name in life.machine.acting]
        for owned in EXCLUSIVE:
            if acting.count(owned) != 1:
                raise self._stuck(f"{acting.count(owned)} hosts act for {owned}", lives)
        if len({life.driver.applied for life in lives}) != 1:
            raise self._stuck("they have not applied the same", lives)
        if len({checkpoint(life.replica.state) for life in lives}) != 1:
            raise Violation("state-machine", "equal indexes, different states")

    def _stuck(self, what: str, lives: list[Life]) -> Violation:
        views = "; ".join(_view(life) for life in lives)
        return Violation(
            "liveness", f"ten election timeouts after healing: {what} ({views})", is_liveness=True
        )


def _view(life: Life) -> str:
    status = life.driver.status()
    return (
        f"{life.member} {status.role.value} term={status.term} leader={status.leader}"
        f" commit={status.commit} applied={status.applied} last={status.last.term}.{status.last.index}"
    )
