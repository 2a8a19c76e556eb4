"""The database's decisions run in the simulator, with a PostgreSQL that is simulated."""

import pytest

from mesh.failpoints.arming import Action, Arming
from tests.sim.checkers import ALL_CHECKERS
from tests.sim.clock import NS
from tests.sim.main import CLEAN, Job, Quiet, exit_code, simulate
from tests.sim.postgres.strikes import PLACES
from tests.sim.profiles import make_run
from tests.sim.running import examine
from tests.sim.strikes import arm
from tests.sim.summary import Summary

PROFILE = "database"
HOURS = 0.01
SEEDS = 40
SEEDS_MAX = 40
ARMED_NS = 30 * NS


@pytest.mark.integration
def test_a_short_campaign_is_clean() -> None:
    """Goal: nothing acknowledged is lost, never do two acknowledge, and a healed database takes writes.
    Method: some seeds with all faults of the profile; promotions and rewinds took place."""
    total = Summary()
    with Quiet():
        for seed in range(1, SEEDS + 1):
            total.add(examine(Job(seed, HOURS, True, PROFILE)))
    line = total.line(0)
    assert [each["again"] for each in line["violations"]] == []
    assert exit_code(line["violations"]) == CLEAN
    assert line["faults"]["database-promotion"] > SEEDS // 2
    assert line["faults"]["database-rewound"] > 0
    assert line["requests_done"] > 100 * SEEDS


@pytest.mark.integration
def test_a_sidecar_may_die_between_every_two_steps() -> None:
    """Goal: where promotion, seal, copy, rewind and publication are interrupted costs nothing. Method: seeds
    of the profile, in which each place at which nobody has died yet is armed on every host."""
    left = list(PLACES)
    with Quiet():
        for seed in range(1, SEEDS_MAX + 1):
            run = make_run(PROFILE, seed, ALL_CHECKERS)
            try:
                for name in left:
                    arm(run.faults, Arming(name, Action.CRASH, 0, 1, 0), set(run.world.machines), ARMED_NS)
                run.run(HOURS * 3_600)
                left = [name for name in left if (name, Action.CRASH) not in run.world.failpoints.struck]
            finally:
                run.world.close()
            if not left:
                break
    assert left == []
    print(f"{len(PLACES)} places in {seed} seeds")


def test_the_trace_is_a_function_of_the_seed() -> None:
    """Goal: what is found can be repeated. Method: one seed twice, another once; hashes compared."""
    with Quiet():
        first, again, other = (simulate(Job(seed, HOURS / 2, True, PROFILE))[0] for seed in (7, 7, 8))
    assert first == again
    assert first.trace_hash != other.trace_hash
