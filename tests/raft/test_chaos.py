"""Seeded random clusters: safety while it storms, liveness when it is over."""

import pytest

from mesh.raft import Role
from tests.raft.chaos import Chaos

SEEDS_PER_BATCH = 30
STEPS = 1200


@pytest.mark.parametrize("batch", range(10))
def test_a_storm_breaks_nothing_and_ends_in_one_agreed_log(batch: int) -> None:
    """Goal: figure 3 of the paper under every fault at once; then progress.

    Method: per seed, a safety phase with random faults, checked at every step; then
    heal, wait a bounded number of ticks, and compare the state machines.
    """
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        run_seed(seed)


def run_seed(seed: int) -> Chaos:
    chaos = Chaos(seed)
    chaos.run(STEPS)
    leader = chaos.machines[chaos.settle(ticks=60)]
    leader.node.propose(b"after the storm")
    for _ in range(3):
        chaos.tick_all()
        chaos.drain()
    assert leader.node.role is Role.LEADER, f"seed {seed}"
    assert leader.node.applied == leader.node.status().last.index, f"seed {seed}"
    for member in leader.membership.members:
        machine = chaos.machines[member]
        assert machine.state.index == leader.state.index, f"seed {seed}: {member} lags"
        if not machine.is_witness:
            assert machine.state.digest == leader.state.digest, f"seed {seed}: {member} differs"
    return chaos
