"""How much Raft time a pause counts for."""

import pytest

from mesh.pacing import ticks_due

TICK_NS = 50_000_000


@pytest.mark.parametrize(
    ("elapsed_ticks", "is_leader", "expected"),
    [
        (0.0, False, (0, False)),
        (0.9, True, (0, False)),
        (1.0, False, (1, False)),
        (2.7, False, (2, False)),
        (3.0, True, (3, False)),
        (4.0, False, (1, True)),
        (4.0, True, (4, True)),
        (100.0, False, (1, True)),
        (100.0, True, (53, True)),
    ],
)
def test_a_pause_counts_in_full_for_a_leader_only(
    elapsed_ticks: float, is_leader: bool, expected: tuple[int, bool]
) -> None:
    """Goal: after a pause a leader loses its quorum rightly, a follower does not stand wrongly.

    Method: table of pauses.
    """
    elapsed_ns = int(elapsed_ticks * TICK_NS)
    assert ticks_due(elapsed_ns, TICK_NS, late_max=3, is_leader=is_leader, leader_max=53) == expected
