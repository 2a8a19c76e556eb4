"""Every clever function against a naive twin (Hypothesis)."""

import hashlib
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import InvariantBroken
from mesh.ids import Index, MemberId, Term
from mesh.raft import Entry, EntryId, EntryKind, HardState, Membership, Restored, SnapshotChunk
from mesh.raft.confchange import leave_joint, plan_change
from mesh.raft.log import RaftLog
from mesh.raft.quorum import VoteResult, agreed, vote_result
from mesh.raft.snapshot import Assembly, take_snapshot
from mesh.raft.tracker import Inflights

#: A busy machine is no defect.
untimed = settings(deadline=None)
IDS = [MemberId(each) for each in "abcdefg"]
voter_sets = st.lists(st.sampled_from(IDS), min_size=1, max_size=7, unique=True).map(
    lambda ids: tuple(sorted(ids))
)
joints = st.builds(
    lambda voters, outgoing: Membership(voters=voters, outgoing=outgoing),
    voter_sets,
    st.one_of(st.just(()), voter_sets),
)
rising_terms = st.lists(st.integers(1, 5), max_size=12).map(sorted)


def quorums(voters: tuple[MemberId, ...]) -> list[set[MemberId]]:
    """Every majority, the naive way."""
    sizes = range(len(voters) // 2 + 1, len(voters) + 1)
    return [set(each) for size in sizes for each in combinations(voters, size)]


def has_quorum(membership: Membership, members: set[MemberId]) -> bool:
    sets = [each for each in (membership.voters, membership.outgoing) if each]
    return all(any(quorum <= members for quorum in quorums(voters)) for voters in sets)


@untimed
@given(joints, st.lists(st.integers(0, 6), min_size=7, max_size=7))
def test_agreed_is_the_largest_value_some_quorum_has_reached(
    membership: Membership, values: list[int]
) -> None:
    """Goal: the sorted-array trick is right. Method: try every value and every majority."""
    value_of = dict(zip(IDS, values, strict=True))
    reached = [n for n in range(7) if has_quorum(membership, {each for each in IDS if value_of[each] >= n})]
    assert agreed(membership, value_of.__getitem__) == max(reached)


@untimed
@given(joints, st.dictionaries(st.sampled_from(IDS), st.booleans()))
def test_a_vote_is_decided_exactly_when_the_open_votes_can_not_change_it(
    membership: Membership, votes: dict[MemberId, bool]
) -> None:
    """Goal: no early and no late decision. Method: give all open votes one way, then the other."""
    granted = {voter for voter, is_yes in votes.items() if is_yes}
    open_votes = set(membership.all_voters) - set(votes)
    expected = VoteResult.PENDING
    if has_quorum(membership, granted):
        expected = VoteResult.WON
    elif not has_quorum(membership, granted | open_votes):
        expected = VoteResult.LOST
    assert vote_result(membership, votes) is expected


@untimed
@given(st.data(), voter_sets, voter_sets)
def test_quorums_of_successive_memberships_meet(
    data: st.DataObject, voters: tuple[MemberId, ...], target: tuple[MemberId, ...]
) -> None:
    """Goal: no two decisions side by side during a change. Method: every pair of quorums of each step."""
    learners = data.draw(st.lists(st.sampled_from([each for each in IDS if each not in target] or [IDS[0]])))
    wanted = Membership.of(target, [each for each in learners if each not in target])
    steps = [Membership.of(voters)]
    if wanted != steps[0]:
        steps.append(plan_change(steps[0], wanted))
        if steps[-1].is_joint:
            steps.append(leave_joint(steps[-1]))
        assert steps[-1] == wanted
    for before, after in pairwise(steps):
        for size in range(len(IDS) + 1):
            for members in combinations(IDS, size):
                rest = set(IDS) - set(members)
                assert not (has_quorum(before, set(members)) and has_quorum(after, rest))


@untimed
@given(voter_sets, voter_sets, st.lists(st.sampled_from(IDS)))
def test_a_membership_survives_its_encoding(
    voters: tuple[MemberId, ...], outgoing: tuple[MemberId, ...], learners: list[MemberId]
) -> None:
    """Goal: what is stored is what was meant. Method: there and back."""
    membership = Membership(voters, outgoing, tuple(sorted(set(learners))), voters[:1], outgoing[:1])
    assert Membership.decode(membership.encode()) == membership


# ---- the log ----------------------------------------------------------------------


def log_of(terms: list[int], origin: int = 0, commit: int = 0) -> RaftLog:
    """A log with *terms* whose first *origin* entries are compacted."""
    entries = tuple(
        Entry(Index(index), Term(term), EntryKind.COMMAND, b"") for index, term in enumerate(terms, start=1)
    )
    snapshot = None
    if origin:
        snapshot = take_snapshot(EntryId(Term(terms[origin - 1]), Index(origin)), Membership(), b"")
    return RaftLog(Restored(HardState(commit=Index(commit)), snapshot, entries[origin:]))


@untimed
@given(rising_terms, st.data())
def test_nearest_is_the_last_entry_that_may_agree(terms: list[int], data: st.DataObject) -> None:
    """Goal: the binary search is right. Method: scan backwards; only below the origin it may give up."""
    origin = data.draw(st.integers(0, len(terms)))
    index, term = data.draw(st.integers(0, 14)), data.draw(st.integers(0, 6))
    log = log_of(terms, origin)
    known = [0, *terms]
    naive = max(n for n in range(min(index, len(terms)) + 1) if known[n] <= term)
    found = log.nearest(Index(index), Term(term))
    assert found == naive if naive >= origin else naive <= found < origin


@untimed
@given(rising_terms, rising_terms, st.data())
def test_merging_is_what_the_paper_says(mine: list[int], theirs: list[int], data: st.DataObject) -> None:
    """Goal: §5.3's receiver rules. Method: the same rules over plain lists, entry by entry."""
    previous = data.draw(st.integers(0, len(theirs)))
    commit = data.draw(st.integers(0, len(mine)))
    origin = data.draw(st.integers(0, commit))
    log = log_of(mine, origin, commit)
    sent = [
        Entry(Index(index), Term(term), EntryKind.COMMAND, b"new")
        for index, term in enumerate(theirs[previous:], start=previous + 1)
    ]
    previous_term = ([0, *theirs])[previous]
    is_safe = mine[:commit] == theirs[:commit][: len(mine[:commit])] and len(theirs) >= commit
    if not is_safe:
        return
    matched = log.merge(EntryId(Term(previous_term), Index(previous)), sent, [])
    expected = list(mine)
    fits = previous <= len(mine) and ([0, *mine])[previous] == previous_term
    if fits:
        for entry in sent:
            if entry.index > len(expected) or expected[entry.index - 1] != entry.term:
                expected[entry.index - 1 :] = [entry.term]
    assert matched == (max(previous + len(sent), commit) if fits else None)
    assert log.last_index == len(expected)
    assert [log.term_at(Index(n)) for n in range(origin + 1, len(expected) + 1)] == expected[origin:]


@untimed
@given(rising_terms, st.data())
def test_what_is_committed_is_never_replaced(terms: list[int], data: st.DataObject) -> None:
    """Goal: no leader, however wrong, changes a committed entry. Method: send a conflict at each index."""
    commit = data.draw(st.integers(0, len(terms)))
    index = data.draw(st.integers(1, len(terms) + 1))
    log = log_of(terms, commit=commit)
    known = [0, *terms]
    entry = Entry(Index(index), Term(9), EntryKind.COMMAND, b"")
    previous = EntryId(Term(known[index - 1]), Index(index - 1))
    if index <= commit:
        with pytest.raises(InvariantBroken):
            log.merge(previous, [entry], [])
    else:
        assert log.merge(previous, [entry], []) == index
    assert [log.term_at(Index(n)) for n in range(1, commit + 1)] == terms[:commit]


@untimed
@given(st.lists(st.integers(0, 40), max_size=10), st.integers(1, 200), st.data())
def test_a_slice_is_as_long_as_fits_and_never_empty(
    sizes: list[int], bytes_max: int, data: st.DataObject
) -> None:
    """Goal: bounded messages that always make progress. Method: add up naively."""
    log = RaftLog(Restored())
    for index, size in enumerate(sizes, start=1):
        log.append(Entry(Index(index), Term(1), EntryKind.COMMAND, bytes(size)))
    start = data.draw(st.integers(1, len(sizes) + 1))
    end = data.draw(st.integers(start - 1, len(sizes)))
    wanted = sizes[start - 1 : end]
    naive = max((n for n in range(len(wanted) + 1) if sum(wanted[:n]) + 32 * n <= bytes_max), default=0)
    expected = min(len(wanted), max(naive, 1))
    assert len(log.slice(Index(start), Index(end), bytes_max)) == expected


# ---- flow control and snapshots ------------------------------------------------------


@untimed
@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_inflights_are_a_bounded_window(capacity: int, steps: list[tuple[bool, int]]) -> None:
    """Goal: never more than the bound, nothing freed too early. Method: a plain list."""
    inflights, naive, last = Inflights(capacity), list[int](), 0
    for is_add, amount in steps:
        if is_add and not inflights.is_full:
            last += amount + 1
            inflights.add(Index(last))
            naive.append(last)
        elif not is_add:
            inflights.free_to(Index(last - amount))
            naive = [each for each in naive if each > last - amount]
        assert len(inflights) == len(naive) <= capacity
        assert inflights.is_full is (len(naive) == capacity)
    inflights.clear()
    assert len(inflights) == 0


@untimed
@given(st.binary(max_size=20), st.integers(1, 7), st.data())
def test_chunks_in_any_order_give_the_snapshot_or_nothing(
    data: bytes, size: int, draw: st.DataObject
) -> None:
    """Goal: only whole and verified snapshots. Method: arbitrary chunks, some damaged, then all in order."""
    snapshot = take_snapshot(EntryId(Term(1), Index(9)), Membership(), data)
    assembly = Assembly()

    def chunk(offset: int, *, is_damaged: bool = False, term: int = 1) -> SnapshotChunk:
        piece = data[offset : offset + size]
        if is_damaged and piece:
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        return SnapshotChunk(
            sender=IDS[0], to=IDS[1], term=Term(term), meta=snapshot.meta, offset=offset, data=piece
        )

    for offset, is_damaged, term in draw.draw(
        st.lists(st.tuples(st.integers(0, len(data)), st.booleans(), st.integers(1, 2)), max_size=12)
    ):
        assembled = assembly.add(chunk(offset, is_damaged=is_damaged, term=term))
        assert assembled.snapshot in (None, snapshot)
        assert 0 <= assembled.next_offset <= len(data)
    offset = 0
    for _ in range(3 * len(data) + 3):
        assembled = assembly.add(chunk(offset, term=3))
        if assembled.snapshot is not None:
            break
        offset = assembled.next_offset
    assert assembled.snapshot == snapshot
    assert hashlib.sha256(assembled.snapshot.data).digest() == snapshot.meta.sha256
