"""Planning, failover and the way back together: nothing acknowledged is lost, never two that acknowledge."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ids import HostId
from tests.postgres.cluster_twin import MOVES, WORK, Cluster, Lost, Mixed, Move

moves = st.lists(
    st.tuples(st.sampled_from((*MOVES, "mend", "mend")), st.integers(0, 31), st.integers(0, 7)),
    min_size=30,
    max_size=150,
)


def play(cluster: Cluster, story: list[Move]) -> Cluster:
    for move in story:
        cluster.move(move)
    return cluster


def random_story(chance: Random, length: int = 400) -> list[Move]:
    """A quiet time, an ordinary day of thirty moves, trouble of thirty, and so on."""
    story: list[Move] = []
    while len(story) < length:
        story.append(("mend", 0, chance.randrange(8)))
        for moves_of in (WORK, MOVES):
            story += [(chance.choice(moves_of), chance.randrange(32), chance.randrange(8)) for _ in range(30)]
    return story


@settings(max_examples=200, deadline=None)
@given(st.integers(3, 5), st.integers(1, 2), moves)
def test_nothing_acknowledged_is_lost_and_no_overtaken_primary_acknowledges(
    hosts: int, needed: int, story: list[Move]
) -> None:
    """Goal: what the database is for. Method: literal WAL, old primaries that nothing stops, any story."""
    play(Cluster(hosts, needed), story)


def test_long_seeded_stories_fail_over_often_and_lose_nothing() -> None:
    """Goal: the stories get far. Method: seeds; counts of primaryships and acknowledged records."""
    reached = [play(Cluster(3 + seed % 3, 1), random_story(Random(seed), 600)) for seed in range(60)]
    assert max(cluster.recorded for cluster in reached) >= 5
    assert sum(cluster.recorded > 2 for cluster in reached) >= 20
    assert sum(len(cluster.acknowledged) for cluster in reached) >= 300


def ends_in(wrong: type[AssertionError], **without: bool) -> bool:
    for seed in range(2000):
        try:
            play(Cluster(3 + seed % 3, 1, **without), random_story(Random(seed)))
        except wrong:
            return True
        except AssertionError:
            continue
    return False


def test_without_the_seal_a_commit_is_lost() -> None:
    """Goal: the twin would notice. Method: hosts report, but go on receiving from the old primary."""
    assert ends_in(Lost, seals=False)


def test_without_the_quorum_a_commit_is_lost() -> None:
    """Goal: the twin would notice. Method: one report is taken for enough."""
    assert ends_in(Lost, counts=False)


def two_promotions_that_nobody_recorded(*, numbers: bool) -> Cluster:
    """h1 was promoted and sent a record to h3; h2 was promoted from the same position, without their word."""
    cluster = Cluster(5, 3, numbers=numbers)
    play(cluster, [("write", 0, 0), ("mend", 0, 0)])
    assert cluster.published.quorum == 2
    play(cluster, [("seal", host, 1) for host in range(1, 5)])
    play(cluster, [("decide", 0b11110, 1), ("assign", 0, 0), ("promote", 0, 0)])
    play(cluster, [("follow", 3, 0), ("write", 1, 0), ("flush", 3, 3)])
    play(
        cluster, [("seal", 2, 1), ("seal", 4, 1), ("decide", 0b10100, 2), ("assign", 0, 0), ("promote", 0, 0)]
    )
    assert (cluster.holder, cluster.term, cluster.recorded) == ("h2", 3, 1)
    return play(cluster, [("write", 2, 0), ("follow", 3, 0)])


def test_without_numbers_of_their_own_two_promotions_are_taken_for_one() -> None:
    """Goal: why a timeline is numbered by its primaryship. Method: a story with and without."""
    assert two_promotions_that_nobody_recorded(numbers=True).servers[HostId("h3")].history.timeline == 3
    with pytest.raises(Mixed):
        two_promotions_that_nobody_recorded(numbers=False)
