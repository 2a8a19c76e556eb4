"""The database's decisions run in the simulator, with a PostgreSQL that is simulated."""

import pytest

from tests.sim.main import CLEAN, Job, Quiet, exit_code, simulate
from tests.sim.running import examine
from tests.sim.summary import Summary

PROFILE = "database"
HOURS = 0.01
SEEDS = 40


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


def test_the_trace_is_a_function_of_the_seed() -> None:
    """Goal: what is found can be repeated. Method: one seed twice, another once; hashes compared."""
    with Quiet():
        first, again, other = (simulate(Job(seed, HOURS / 2, True, PROFILE))[0] for seed in (7, 7, 8))
    assert first == again
    assert first.trace_hash != other.trace_hash
