"""Kinds of worlds beside the swarm: small, quick and harsh, each rich in what some of the guards are for.

The swarm has everything in it and long calm stretches, as life has. To find out soon whether one guard does
its work, one lets happen often what that guard is for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from mesh.settings.load import parse_settings
from tests.sim.clients import PATIENCE_S, WEIGHTS, Clients
from tests.sim.clock import NS
from tests.sim.liveness import DEAF
from tests.sim.phases import Run, draw_plan
from tests.sim.postgres.clients import Writers
from tests.sim.provoked import Provoked
from tests.sim.timing import DEFAULT, Timing, timing_of
from tests.sim.trace import Checker
from tests.sim.world import Plan

SWARM: Final = "swarm"

#: A fifth of the default timers: an election takes no longer than a message may be late.
QUICK: Final = timing_of(
    parse_settings(
        {
            "host": {"name": "host1"},
            "mesh": {"address": "10.0.0.1:7400"},
            "timers": {
                "tick_ms": 10,
                "heartbeat_ms": 60,
                "lease_ms": 240,
                "release_bound_ms": 60,
                "election_ms_min": 310,
                "election_ms_max": 510,
            },
        }
    )
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What happens how often. Every seed draws from it."""

    #: Simulated hours of one seed.
    hours: float
    #: Kinds of `faults.KINDS` and `operations.KINDS`, and the share of them that one seed has.
    faults: tuple[str, ...]
    operations: tuple[str, ...]
    share: float
    #: Mean seconds between two of one kind.
    pauses_s: tuple[float, ...]
    #: Faults that every seed has, and the mean seconds between two of them, at the default timers.
    always: tuple[str, ...] = ()
    always_s: float = 4.0
    #: How many clients, and the pause between two requests of one.
    clients: tuple[int, float] = (3, 0.5)
    voters: tuple[int, ...] = (3,)
    learners: tuple[int, ...] = (0,)
    #: Share of seeds with a witness.
    witness: float = 0.0
    #: Snapshots after so many entries, chunks and appends of so many bytes, at most so many under way.
    snapshot_entries: tuple[int, ...] = (20, 4_096)
    chunk_bytes: tuple[int, ...] = (1_500, 1 << 20)
    #: Empty: as drawn.
    append_bytes: tuple[int, ...] = ()
    #: How long a client waits, how likely it asks whoever believes to lead, and how often for what.
    patience_s: float = PATIENCE_S
    at_leaders: float = 0.0
    weights: tuple[int, ...] = WEIGHTS
    #: How likely each moment of `provoked.STRIKES` is struck at.
    provoked: Mapping[str, float] = field(default_factory=dict)
    timing: Timing = DEFAULT
    #: When faults begin; hosts that join need some calm.
    calm_s: float = 3.0
    #: How likely those that are not healed in the end go on, and hear nobody.
    deaf: float = DEAF
    #: How many write to a database, and the pause between two commits of one, ms; None: there is none.
    writers: tuple[int, float] | None = None


PROFILES: Final = {
    "elections": Profile(
        hours=0.02,
        always=("half",),
        faults=("pair", "kill", "stop", "freeze"),
        operations=("transfer", "drain"),
        share=0.4,
        pauses_s=(4.0, 10.0),
        clients=(1, 8.0),
        voters=(3, 3, 5),
    ),
    "leases": Profile(
        hours=0.02,
        faults=("half", "isolate", "one-way", "pair", "kill", "freeze", "stop", "flap", "slow", "clog"),
        operations=("transfer", "drain", "restart", "services"),
        share=0.5,
        pauses_s=(3.0, 8.0),
        clients=(1, 2.0),
    ),
    "histories": Profile(
        hours=0.02,
        always=("isolate",),
        faults=("half", "pair", "kill", "stop", "freeze", "stall", "flap", "weather"),
        operations=("transfer",),
        share=0.4,
        pauses_s=(2.0, 6.0),
        clients=(6, 0.15),
    ),
    "members": Profile(
        hours=0.03,
        faults=("isolate", "pair", "kill", "weather", "clog", "power", "garble", "stall"),
        operations=("transfer", "restart", "reformat", "remove", "services"),
        share=0.6,
        pauses_s=(4.0, 12.0),
        learners=(1, 2, 2),
        witness=0.2,
        snapshot_entries=(10, 40),
        chunk_bytes=(700, 1_500),
    ),
    "storm": Profile(
        hours=0.006,
        faults=("weather", "clog", "kill", "stop", "stall", "isolate"),
        operations=("transfer",),
        share=0.35,
        pauses_s=(0.7, 1.5),
        always=("isolate",),
        clients=(5, 0.1),
        patience_s=0.15,
        at_leaders=0.6,
        voters=(3, 3, 5),
        append_bytes=(1, 1, 2_000),
        provoked={"led": 0.8, "asked": 0.5},
        timing=QUICK,
    ),
    "usurpers": Profile(
        hours=0.006,
        always=("usurp",),
        always_s=10.0,
        faults=("kill", "stop", "weather"),
        operations=(),
        share=0.2,
        pauses_s=(2.0,),
        clients=(2, 0.3),
        patience_s=0.3,
        at_leaders=0.5,
        append_bytes=(1,),
        provoked={"led": 0.5},
        timing=QUICK,
    ),
    "orphans": Profile(
        hours=0.006,
        always=("orphan",),
        always_s=12.0,
        faults=("reset", "half"),
        operations=("transfer",),
        share=0.3,
        pauses_s=(3.0, 6.0),
        clients=(1, 6.0),
        patience_s=0.6,
        voters=(3, 3, 5),
        learners=(0, 1),
        timing=QUICK,
    ),
    "grants": Profile(
        hours=0.006,
        always=("lag",),
        faults=("isolate", "half", "clog", "stop", "kill", "stall", "weather", "reset"),
        operations=("transfer", "drain"),
        share=0.4,
        pauses_s=(0.7, 2.0),
        clients=(2, 0.2),
        patience_s=0.6,
        voters=(3, 5, 5),
        learners=(1,),
        provoked={"led": 0.3, "asked": 0.5},
        timing=QUICK,
    ),
    "owners": Profile(
        hours=0.01,
        always=("lonely",),
        faults=("lag", "stall", "slow", "flap", "stop", "freeze", "half", "kill", "sticky"),
        operations=("transfer", "drain", "toggle", "late"),
        share=0.5,
        pauses_s=(0.7, 2.0),
        clients=(1, 1.0),
        patience_s=0.6,
        voters=(3, 3, 5),
        provoked={"asked": 0.2},
        timing=QUICK,
    ),
    "deposed": Profile(
        hours=0.01,
        always=("numb",),
        always_s=10.0,
        faults=("lag", "half"),
        operations=("transfer", "transfer", "drain"),
        share=0.7,
        pauses_s=(1.5, 3.0),
        clients=(1, 1.0),
        patience_s=0.6,
        voters=(3, 3, 5),
        timing=QUICK,
    ),
    "claims": Profile(
        hours=0.008,
        always=("sticky", "stall"),
        always_s=5.0,
        faults=("stop", "lag", "lonely", "flap"),
        operations=("transfer", "transfer", "toggle", "toggle"),
        share=0.6,
        pauses_s=(0.4, 1.0),
        clients=(1, 1.0),
        patience_s=0.6,
        provoked={"released": 0.8},
        timing=QUICK,
    ),
    "lapses": Profile(
        hours=0.008,
        always=("lapse",),
        always_s=10.0,
        faults=("stop", "lonely"),
        operations=("transfer", "transfer"),
        share=0.8,
        pauses_s=(1.0, 2.0),
        clients=(1, 1.0),
        patience_s=0.6,
        timing=QUICK,
    ),
    "reads": Profile(
        hours=0.004,
        always=("lag",),
        faults=("isolate", "stop", "stall"),
        operations=("transfer",),
        share=0.4,
        pauses_s=(0.5, 1.5),
        clients=(6, 0.03),
        patience_s=0.6,
        at_leaders=0.5,
        weights=(30, 0, 0, 60, 0, 0, 0),
        provoked={"led": 0.2, "asked": 0.6},
        timing=QUICK,
    ),
    "deaf": Profile(
        hours=0.0015,
        faults=("half", "one-way"),
        operations=(),
        share=0.5,
        pauses_s=(2.0,),
        clients=(1, 1.0),
        timing=QUICK,
        deaf=1.0,
    ),
    "witness": Profile(
        hours=0.008,
        calm_s=10.0,
        faults=("kill", "isolate", "stop", "half", "lag", "power"),
        operations=("transfer",),
        share=0.6,
        pauses_s=(1.0, 3.0),
        clients=(1, 0.5),
        patience_s=0.6,
        learners=(1,),
        witness=0.6,
        provoked={"led": 0.2},
        timing=QUICK,
    ),
    "late": Profile(
        hours=0.006,
        always=("lag", "isolate"),
        always_s=5.0,
        faults=("half",),
        operations=(),
        share=0.3,
        pauses_s=(2.0,),
        clients=(1, 1.0),
        patience_s=0.6,
        voters=(3, 5),
        learners=(1,),
        calm_s=5.0,
        timing=QUICK,
    ),
    "joint": Profile(
        hours=0.006,
        snapshot_entries=(10, 10, 4_096),
        faults=("weather", "clog", "kill", "isolate"),
        operations=("transfer", "reshape", "reshape"),
        share=0.6,
        pauses_s=(0.4, 1.0),
        clients=(4, 0.1),
        patience_s=0.6,
        at_leaders=0.6,
        voters=(3, 5),
        append_bytes=(1, 2_000),
        provoked={"led": 0.2, "joint": 0.6},
        timing=QUICK,
    ),
    "failpoints": Profile(
        hours=0.006,
        calm_s=0.0,
        always=("places",),
        always_s=1.5,
        faults=("kill", "isolate", "half", "stop", "power", "freeze"),
        operations=("transfer", "drain", "restart", "reformat", "services"),
        share=0.6,
        pauses_s=(3.0, 8.0),
        clients=(3, 0.15),
        patience_s=0.6,
        learners=(1,),
        snapshot_entries=(10,),
        timing=QUICK,
    ),
    "database": Profile(
        hours=0.02,
        calm_s=8.0,
        faults=(
            *("kill", "isolate", "pair", "half", "power", "stop", "freeze", "slow", "weather", "clog"),
            *("postgres-kill", "postgres-kill", "postgres-errors", "postgres-apart", "postgres-place"),
        ),
        operations=("transfer", "drain", "restart", "switchover"),
        share=0.4,
        pauses_s=(3.0, 6.0, 15.0),
        clients=(1, 8.0),
        writers=(6, 40.0),
    ),
    "disks": Profile(
        hours=0.02,
        faults=("stall", "fsync", "full", "kill", "power", "isolate", "weather"),
        operations=("transfer", "restart"),
        share=0.7,
        pauses_s=(2.0, 6.0),
        snapshot_entries=(10, 40, 4_096),
    ),
}


def make_run(name: str, seed: int, checkers: Sequence[type[Checker]]) -> Run:
    """The run of a seed in a profile, or in the swarm."""
    if name == SWARM:
        return Run(seed, checkers)
    profile = PROFILES[name]
    chance = Random(f"{seed}/profile/{name}")
    observers = (Provoked,) if profile.provoked else ()
    run = Run(seed, (*checkers, *observers), _plan(profile, seed, chance))
    count, pause_s = profile.clients
    run.clients = clients = Clients(run.world, chance, count, 3, int(pause_s * NS))
    clients.patience_s, clients.at_leaders = profile.patience_s, profile.at_leaders
    clients.weights = profile.weights
    run.deaf, run.calm_s = profile.deaf, profile.calm_s
    run.faults.haste = run.operations.haste = profile.timing.election_ns_max / DEFAULT.election_ns_max
    run.faults.kinds = _kinds(profile.faults, profile, chance)
    run.faults.kinds |= dict.fromkeys(profile.always, profile.always_s * run.faults.haste)
    run.operations.kinds = _kinds(profile.operations, profile, chance)
    if profile.writers is not None:
        run.writers = Writers(run.world, run.world.chance("writers"), *profile.writers)
    for observer in run.world.checkers:
        if isinstance(observer, Provoked):
            observer.watch(run, profile.provoked, chance)
    return run


def hours_of(name: str, otherwise: float) -> float:
    """How long one seed of a profile is."""
    return otherwise if name == SWARM else PROFILES[name].hours


def _kinds(names: Sequence[str], profile: Profile, chance: Random) -> dict[str, float]:
    return {name: chance.choice(profile.pauses_s) for name in names if chance.random() < profile.share}


def _plan(profile: Profile, seed: int, chance: Random) -> Plan:
    plan = draw_plan(seed, profile.timing)
    voters, learners = chance.choice(profile.voters), chance.choice(profile.learners)
    has_witness = chance.random() < profile.witness
    if has_witness:  # as `draw_plan` has it
        voters, learners = 1, 1
    return replace(
        plan,
        voters=voters,
        learners=learners,
        has_witness=has_witness,
        has_database=profile.writers is not None,
        raft=replace(
            plan.raft,
            trailing_entries=chance.choice((8, 64)),
            chunk_bytes=chance.choice(profile.chunk_bytes),
            append_bytes_max=_append_bytes(profile, plan.raft.append_bytes_max, chance),
        ),
        driver=replace(plan.driver, snapshot_entries=chance.choice(profile.snapshot_entries)),
    )


def _append_bytes(profile: Profile, drawn: int, chance: Random) -> int:
    return chance.choice(profile.append_bytes) if profile.append_bytes else drawn
