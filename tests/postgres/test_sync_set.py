"""Whatever a promotion asks, it finds every acknowledged commit."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ids import HostId
from sidecar.postgres.model import InForce, Lsn, SyncNames, SyncSet
from sidecar.postgres.sync_set import (
    Nothing,
    Publish,
    ReadBarrier,
    SetSyncNames,
    StandbyView,
    Step,
    WaitFlushed,
    asks_more,
    covers,
    first_names,
    fit_standbys,
    have_flushed,
    next_step,
    why_closed,
)
from tests.postgres.sync_twin import MOVES, Lost, Move, Planner, Twin, play

A, B, C, D = (HostId(name) for name in "abcd")
ONE_OF_TWO = SyncNames(1, (B, C))
BOTH = SyncSet(4, (B, C), 2)

moves = st.lists(
    st.tuples(st.sampled_from(MOVES), st.integers(0, 127), st.integers(0, 7)), min_size=20, max_size=90
)


def step(
    in_force: InForce,
    published: SyncSet,
    *wanted: HostId,
    needed: int = 1,
    flushed: Mapping[HostId, Lsn] | None = None,
    is_settled: bool = True,
) -> Step:
    return next_step(in_force, published, wanted, needed, flushed=flushed or {}, is_settled=is_settled)


# ---- against the naive twin -----------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), moves)
def test_every_quorum_holds_every_acknowledged_commit(standbys: int, needed: int, story: list[Move]) -> None:
    """Goal: the invariant of this feature. Method: any wishes, interruptions after and within every step,
    lost answers, late publications, stale views and failovers, judged by a twin that keeps who has what."""
    play(Twin(standbys, min(needed, standbys)), story)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), moves)
def test_after_any_story_a_quiet_time_brings_what_is_wanted(
    standbys: int, needed: int, story: list[Move]
) -> None:
    """Goal: never stuck. Method: any story, then everybody works: as wanted it is in force."""
    twin = play(Twin(standbys, min(needed, standbys)), story)
    twin.needed = min(needed, standbys)
    twin.wanted = tuple(host for host in twin.hosts if host != twin.primary)
    twin.settle()
    assert twin.believed.names == SyncNames(twin.needed, twin.wanted)
    assert twin.published.voters == twin.wanted
    assert twin.published.quorum == len(twin.wanted) - twin.needed + 1


# ---- mutants: what the twin must find -------------------------------------------


def without_barrier(in_force: InForce, *rest: object, **more: object) -> Step:
    return next_step(replace(in_force, barrier=Lsn(0)), *rest, **more)  # type: ignore[arg-type]


def always_settled(*rest: object, **more: object) -> Step:
    return next_step(*rest, **(more | {"is_settled": True}))  # type: ignore[arg-type]


def always_certain(in_force: InForce, *rest: object, **more: object) -> Step:
    return next_step(replace(in_force, is_certain=True), *rest, **more)  # type: ignore[arg-type]


def _wish(in_force: InForce, wanted: Iterable[HostId], needed: int) -> SyncNames | None:
    fit = tuple(sorted(set(wanted) - {in_force.primary}))
    return SyncNames(needed, fit) if len(fit) >= needed else None


def sets_first(
    in_force: InForce, published: SyncSet, wanted: Iterable[HostId], needed: int, **more: object
) -> Step:
    """Grows in the wrong order: lets a new standby acknowledge before it is published."""
    names = _wish(in_force, wanted, needed)
    if names is not None and names != in_force.names:
        return SetSyncNames(names, "mutant")
    return next_step(in_force, published, wanted, needed, **more)  # type: ignore[arg-type]


def publishes_first(
    in_force: InForce, published: SyncSet, wanted: Iterable[HostId], needed: int, **more: object
) -> Step:
    """Shrinks in the wrong order: promises the smaller set while the larger one may acknowledge."""
    names = _wish(in_force, wanted, needed)
    if names is not None and set(names.standbys) < set(in_force.names.standbys):
        quorum = len(names.standbys) - needed + 1
        if (names.standbys, quorum) != (published.voters, published.quorum):
            return Publish(names.standbys, quorum, published.version, "mutant")
    return next_step(in_force, published, wanted, needed, **more)  # type: ignore[arg-type]


def quorum_too_small(*rest: object, **more: object) -> Step:
    found = next_step(*rest, **more)  # type: ignore[arg-type]
    if isinstance(found, Publish) and found.quorum > 1:
        return replace(found, quorum=found.quorum - 1)
    return found


def random_story(chance: Random) -> list[Move]:
    return [(chance.choice(MOVES), chance.randrange(128), chance.randrange(8)) for _ in range(90)]


def first_loss(planner: Planner, stories: int = 3000, *, is_guarded: bool = True) -> int | None:
    for seed in range(stories):
        chance = Random(seed)
        twin = Twin(chance.randint(2, 4), 1, planner, is_guarded=is_guarded)
        try:
            play(twin, random_story(chance))
        except Lost:
            return seed
    return None


@pytest.mark.parametrize(
    "mutant",
    [without_barrier, always_settled, always_certain, sets_first, publishes_first, quorum_too_small],
    ids=lambda mutant: str(mutant.__name__),
)
def test_a_planner_without_one_of_its_rules_loses_a_commit(mutant: Callable[..., Step]) -> None:
    """Goal: each rule is needed and the twin would notice. Method: leave it out, play until a loss."""
    assert first_loss(mutant) is not None


def test_a_promotion_that_was_decided_by_another_set_than_is_published_loses_a_commit() -> None:
    """Goal: the assignment must name what it rests on. Method: without that guard, play until a loss."""
    assert first_loss(next_step, is_guarded=False) is not None


def test_the_planner_itself_loses_nothing_in_the_same_stories() -> None:
    """Goal: the mutants are found for their own sake. Method: the same seeded stories with every rule."""
    assert first_loss(next_step, stories=400) is None


# ---- sums -----------------------------------------------------------------------

five = [HostId(name) for name in "abcde"]
subsets = st.lists(st.sampled_from(five), unique=True, max_size=5).map(lambda found: tuple(sorted(found)))


@settings(max_examples=400, deadline=None)
@given(subsets, st.integers(0, 6), st.integers(1, 5), subsets)
def test_covering_means_that_every_quorum_meets_every_acknowledgement(
    voters: tuple[HostId, ...], quorum: int, needed: int, standbys: tuple[HostId, ...]
) -> None:
    """Goal: the sum in `covers` is the sentence above. Method: against all subsets, one by one."""
    published, names = SyncSet(1, voters, quorum), SyncNames(needed, tuple(h for h in standbys if h != A))
    holders = [{A, *each} for each in combinations(names.standbys, needed)]
    quorums = [set(each) for each in combinations(voters, quorum)] if quorum else []
    meets = all(asked & held for asked in quorums for held in holders)
    assert not covers(published, A, names) or meets
    if len(names.standbys) >= needed:
        assert covers(published, A, names) == meets


@settings(max_examples=400, deadline=None)
@given(subsets, st.integers(0, 5), subsets, st.integers(0, 5))
def test_asking_more_means_that_every_quorum_contains_one_of_before(
    voters: tuple[HostId, ...], quorum: int, later: tuple[HostId, ...], more: int
) -> None:
    """Goal: publications that need no barrier keep all promises. Method: against all subsets."""
    before, after = SyncSet(1, voters, quorum), SyncSet(2, later, more)
    if asks_more(before, after) and 1 <= more <= len(later):
        assert 1 <= quorum <= len(voters)
        for asked in combinations(later, more):
            assert len(set(asked) & set(voters)) >= quorum


# ---- stories --------------------------------------------------------------------


def test_a_new_cluster_publishes_when_a_standby_has_what_was_written_before() -> None:
    """Goal: no promise before it holds. Method: a fresh primary without a standby, step by step."""
    names = first_names(SyncSet(), A, 1, (A, B, C))
    assert names == ONE_OF_TWO
    fresh = InForce(A, names)
    found = step(fresh, SyncSet())
    assert isinstance(found, ReadBarrier)
    read = replace(fresh, barrier=Lsn(100))
    assert step(read, SyncSet()) == WaitFlushed(Lsn(100), "commits acknowledged before must be there too")
    found = step(read, SyncSet(), flushed={B: Lsn(100)})
    assert isinstance(found, Publish)
    assert (found.voters, found.quorum, found.expected_version) == ((B, C), 2, 0)


def test_growing_publishes_first_and_then_sets() -> None:
    """Goal: the order. Method: C comes back; each step is carried out."""
    alone = SyncSet(7, (B,), 1)
    found = step(InForce(A, SyncNames(1, (B,)), barrier=Lsn(9)), alone, B, C)
    assert isinstance(found, Publish)
    assert (found.voters, found.quorum, found.expected_version) == ((B, C), 2, 7)
    found = step(InForce(A, SyncNames(1, (B,))), SyncSet(8, (B, C), 2), B, C)
    assert isinstance(found, SetSyncNames)
    assert found.names == ONE_OF_TWO
    assert isinstance(step(InForce(A, ONE_OF_TWO), SyncSet(8, (B, C), 2), B, C), Nothing)


def test_shrinking_sets_first_waits_for_the_barrier_and_then_publishes() -> None:
    """Goal: the order. Method: C is lost; what only C has flushed must come to B before B alone is asked."""
    found = step(InForce(A, ONE_OF_TWO), BOTH, B)
    assert isinstance(found, SetSyncNames)
    assert found.names == SyncNames(1, (B,))
    shrunk = InForce(A, SyncNames(1, (B,)))
    assert isinstance(step(shrunk, BOTH, B), ReadBarrier)
    read = replace(shrunk, barrier=Lsn(50))
    assert isinstance(step(read, BOTH, B, flushed={B: Lsn(49), C: Lsn(50)}), WaitFlushed)
    found = step(read, BOTH, B, flushed={B: Lsn(50)})
    assert isinstance(found, Publish)
    assert (found.voters, found.quorum) == ((B,), 1)


def test_without_a_fit_standby_the_last_ones_stay() -> None:
    """Goal: strict: writes wait rather than be acknowledged by nobody. Method: both lost, also with k up."""
    found = step(InForce(A, ONE_OF_TWO), BOTH)
    assert isinstance(found, Nothing)
    assert "writes wait" in found.reason
    found = step(InForce(A, ONE_OF_TWO), BOTH, needed=2)
    assert isinstance(found, SetSyncNames)
    assert found.names == SyncNames(2, (B, C))
    assert isinstance(step(InForce(A, SyncNames(1, (B,))), SyncSet(1, (B,), 1), needed=2), Nothing)


def test_a_lost_standby_is_exchanged_without_its_help() -> None:
    """Goal: writes go on when the only synchronous standby is lost. Method: C for B, which never answers."""
    found = step(InForce(A, SyncNames(1, (B,))), SyncSet(1, (B,), 1), C)
    assert isinstance(found, Publish)
    assert (found.voters, found.quorum) == ((B, C), 2)
    found = step(InForce(A, SyncNames(1, (B,))), SyncSet(2, (B, C), 2), C)
    assert isinstance(found, SetSyncNames)
    assert found.names == SyncNames(1, (C,))


def test_a_publication_that_may_be_under_way_is_killed_before_anything_else_is_set() -> None:
    """Goal: a late publication never meets other standbys than it rested on. Method: unsettled, growing."""
    asked = step(InForce(A, SyncNames(1, (B,))), BOTH, B, C, is_settled=False)
    assert isinstance(asked, Publish)
    assert (asked.voters, asked.quorum, asked.expected_version) == ((B, C), 2, 4)


def test_what_is_not_certain_is_set_again() -> None:
    """Goal: nothing rests on a change that half the processes know. Method: an interrupted change."""
    found = step(InForce(A, ONE_OF_TWO, is_certain=False), BOTH, B)
    assert isinstance(found, SetSyncNames)
    assert found.names == ONE_OF_TWO


def test_names_that_nobody_published_are_taken_back() -> None:
    """Goal: heal what a hand has changed. Method: D acknowledges but only B would be asked."""
    found = step(InForce(A, SyncNames(1, (D,))), SyncSet(3, (B,), 1), D)
    assert isinstance(found, SetSyncNames)
    assert covers(SyncSet(3, (B,), 1), A, found.names)


def test_no_standby_needed_takes_back_the_promise_first() -> None:
    """Goal: k=0 never promotes by itself. Method: from k=1 to 0 and back."""
    found = step(InForce(A, ONE_OF_TWO), BOTH, B, C, needed=0)
    assert isinstance(found, Publish)
    assert (found.voters, found.quorum) == ((), 0)
    found = step(InForce(A, ONE_OF_TWO), SyncSet(5), B, C, needed=0)
    assert isinstance(found, SetSyncNames)
    assert found.names == SyncNames(0, ())
    assert isinstance(step(InForce(A, SyncNames(0, ())), SyncSet(5), B, C, needed=0), Nothing)
    assert first_names(SyncSet(5), A, 0, (A, B)) == SyncNames(0, ())
    found = step(InForce(A, SyncNames(0, ())), SyncSet(5), B, C)
    assert isinstance(found, SetSyncNames)
    assert found.names == ONE_OF_TWO


@settings(max_examples=300, deadline=None)
@given(subsets, st.integers(1, 5), st.integers(1, 4), st.sampled_from(five), subsets)
def test_a_new_primary_begins_with_names_that_are_covered(
    voters: tuple[HostId, ...], quorum: int, needed: int, primary: HostId, hosts: tuple[HostId, ...]
) -> None:
    """Goal: safe from the first commit on, and never an empty list. Method: any published set and primary."""
    published = SyncSet(1, voters, min(quorum, len(voters)))
    names = first_names(published, primary, needed, hosts)
    assert covers(published, primary, names)
    assert names.standbys
    assert names.needed >= needed


def test_a_new_primary_alone_waits_for_ever_rather_than_for_nobody() -> None:
    """Goal: no unsynchronous commit by accident. Method: no other data host."""
    assert first_names(SyncSet(), A, 1, (A,)) == SyncNames(1, (A,))


def test_clients_wait_until_the_standbys_have_what_they_would_see() -> None:
    """Goal: nobody reads what the next failover takes back. Method: each reason, then none."""
    names = SyncNames(1, (B, C))
    assert "being set" in why_closed(InForce(A, names, is_certain=False), BOTH, {}, Lsn(100))
    assert "would not ask" in why_closed(InForce(A, SyncNames(1, (D,))), BOTH, {}, Lsn(100))
    assert "up to 0/64" in why_closed(InForce(A, names), BOTH, {B: Lsn(99)}, Lsn(100))
    assert why_closed(InForce(A, names), BOTH, {B: Lsn(100)}, Lsn(100)) == ""


def test_a_new_standby_counts_when_it_has_nearly_caught_up_and_an_old_one_while_it_streams() -> None:
    """Goal: a slow joiner never blocks writes. Method: one of each kind, and a host that holds no data."""
    seen = (
        StandbyView(B, True, Lsn(10)),
        StandbyView(C, True, Lsn(10)),
        StandbyView(D, True, Lsn(990)),
        StandbyView(HostId("w"), True, Lsn(1000)),
        StandbyView(HostId("e"), False, Lsn(1000)),
    )
    hosts = (A, B, C, D, HostId("e"))
    assert fit_standbys(SyncNames(1, (B,)), seen, Lsn(1000), 100, hosts) == (B, D)
    assert have_flushed(SyncNames(2, (B, D)), {B: Lsn(5), D: Lsn(5)}, Lsn(5))
    assert not have_flushed(SyncNames(2, (B, D)), {B: Lsn(5)}, Lsn(5))
