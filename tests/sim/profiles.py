"""Kinds of worlds beside the swarm: small, quick and harsh, each rich in what some of the guards are for.

The swarm has everything in it and long calm stretches, as life has. To find out soon whether one guard does
its work, one lets happen often what that guard is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from tests.sim.clients import Clients
from tests.sim.clock import NS
from tests.sim.phases import Run, draw_plan
from tests.sim.trace import Checker
from tests.sim.world import Plan

SWARM: Final = "swarm"


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
    #: Faults that every seed has.
    always: tuple[str, ...] = ()
    #: How many clients, and the pause between two requests of one.
    clients: tuple[int, float] = (3, 0.5)
    voters: tuple[int, ...] = (3,)
    learners: tuple[int, ...] = (0,)
    #: Share of seeds with a witness.
    witness: float = 0.0
    #: Snapshots after so many entries, chunks and appends of so many bytes, at most so many under way.
    snapshot_entries: tuple[int, ...] = (20, 4_096)
    chunk_bytes: tuple[int, ...] = (1_500, 1 << 20)


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
    run = Run(seed, checkers, _plan(profile, seed, chance))
    count, pause_s = profile.clients
    run.clients = Clients(run.world, chance, count, 3, int(pause_s * NS))
    run.faults.kinds = _kinds(profile.faults, profile, chance)
    run.faults.kinds |= dict.fromkeys(profile.always, 4.0)
    run.operations.kinds = _kinds(profile.operations, profile, chance)
    return run


def hours_of(name: str, otherwise: float) -> float:
    """How long one seed of a profile is."""
    return otherwise if name == SWARM else PROFILES[name].hours


def _kinds(names: Sequence[str], profile: Profile, chance: Random) -> dict[str, float]:
    return {name: chance.choice(profile.pauses_s) for name in names if chance.random() < profile.share}


def _plan(profile: Profile, seed: int, chance: Random) -> Plan:
    plan = draw_plan(seed)
    voters, learners = chance.choice(profile.voters), chance.choice(profile.learners)
    has_witness = chance.random() < profile.witness
    if has_witness:  # as `draw_plan` has it
        voters, learners = 1, 1
    return replace(
        plan,
        voters=voters,
        learners=learners,
        has_witness=has_witness,
        raft=replace(
            plan.raft,
            trailing_entries=chance.choice((8, 64)),
            chunk_bytes=chance.choice(profile.chunk_bytes),
        ),
        driver=replace(plan.driver, snapshot_entries=chance.choice(profile.snapshot_entries)),
    )
