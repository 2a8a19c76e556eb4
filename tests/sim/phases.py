"""One run: first anything may fail, then a majority is healed for good and has to get on.

*Safety*: faults, clients and operations, for as long as asked. *Liveness*: see liveness.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from mesh.ids import HostId
from tests.sim.clients import Clients
from tests.sim.clock import NS
from tests.sim.faults import Faults
from tests.sim.liveness import DEAF, Liveness
from tests.sim.operations import Operations
from tests.sim.postgres.clients import Writers
from tests.sim.postgres.liveness import DatabaseLiveness
from tests.sim.timing import DEFAULT, HOSTS_MIN, Timing, voters_among
from tests.sim.trace import Checker, Phase
from tests.sim.world import Plan, World


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    seed: int
    events: int
    simulated_s: float
    trace_hash: str
    faults: dict[str, int]
    #: Failpoints that were struck, and how often.
    failpoints: dict[str, int]
    done: int
    steps: int


def draw_plan(seed: int, timing: Timing = DEFAULT, hosts: int = 0) -> Plan:
    """What a cluster is made of; *hosts*: so many, 0: drawn."""
    chance = Random(f"{seed}/plan")
    voters = chance.choices((3, 5, 7), (80, 15, 5))[0]
    raft = replace(
        timing.raft,
        trailing_entries=chance.choice((8, 64, 4_096)),
        append_bytes_max=chance.choice((2_000, 1 << 20)),
        chunk_bytes=chance.choice((1_500, 1 << 20)),
        inflight_max=chance.choice((2, 256)),
    )
    driver = replace(timing.driver, snapshot_entries=chance.choice((40, 150, 600)))
    error = timing.clock_error_ppm
    rates = tuple(chance.randint(-error, error) for _ in range(voters)) if chance.random() < 0.7 else ()
    has_witness = voters == 3 and chance.random() < 0.1
    learners = chance.choices((0, 1, 2), (75, 15, 10))[0]
    if hosts:
        voters, has_witness = voters_among(hosts), has_witness and hosts == HOSTS_MIN
        learners = hosts - voters
    if has_witness:  # two voters with data and a witness are founded as one voter that two hosts join
        voters, learners = 1, 1
    return Plan(voters, learners, has_witness, raft=raft, driver=driver, timing=timing, rates_ppm=rates)


class Run:
    """One seed, from founding to the verdict."""

    def __init__(self, seed: int, checkers: Sequence[type[Checker]], plan: Plan | None = None) -> None:
        self.world = world = World(seed, plan or draw_plan(seed), checkers)
        chance = world.chance("clients")
        count, asked_a_second = chance.choice((1, 3, 6)), chance.choice((0.2, 1.0, 5.0))
        self.clients = Clients(
            world,
            chance,
            count=count,
            documents=chance.choice((2, 5)),
            pause_ns=int(count / asked_a_second * NS),
        )
        self.faults = Faults(world, world.chance("faults"))
        self.operations = Operations(world, world.chance("operations"))
        #: When faults begin.
        self.calm_s = 3.0
        #: How likely those that are not healed in the end go on, and hear nobody.
        self.deaf = DEAF
        #: Of a world with a database.
        self.writers: Writers | None = None

    def run(self, seconds: float) -> Outcome:
        """All of it; *seconds* of safety. Fails: `Violation`, or a bug of the production code."""
        world = self.world
        world.found()
        world.emit(Phase(world.now, HostId(""), "safety", tuple(world.machines)))
        self.clients.start()
        if self.writers is not None:
            self.writers.start()
        world.scheduler.at(int(self.calm_s * NS), self.faults.start)
        world.scheduler.at(4 * NS, self.operations.start)
        world.run_until(int(seconds * NS))
        self.operations.is_on = False
        everybody = self.writers is not None  # who holds the last commits may be any of them
        Liveness(world, self.clients, self.faults, self.operations.rebuilding, self.deaf, everybody).run()
        if self.writers is not None:
            DatabaseLiveness(world, self.writers).run()
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
            failpoints=world.failpoints.by_name(),
            done=self.clients.done + (world.databases.acknowledgements if world.databases is not None else 0),
            steps=world.scheduler.steps,
        )
