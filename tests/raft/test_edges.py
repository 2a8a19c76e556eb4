"""Corners that stories do not reach: refusals, broken invariants, impossible inputs."""

from dataclasses import replace

import pytest

from mesh.errors import Conflict, InvalidRequest, InvariantBroken, NotLeader
from mesh.ids import Index, MemberId, Term
from mesh.raft import (
    Append,
    AppendHeartbeat,
    Entry,
    EntryId,
    EntryKind,
    HardState,
    Membership,
    RaftSettings,
    RawNode,
    RequestVote,
    RequestVoteReply,
    Restored,
    Role,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    first_log,
)
from mesh.raft.confchange import find_problems, plan_change
from mesh.raft.history import MembershipHistory
from mesh.raft.log import RaftLog
from mesh.raft.membership import Membership as SameMembership
from mesh.raft.model import Standing
from mesh.raft.snapshot import Assembly, take_snapshot
from tests.raft.group import A, B, C, D, at, command, drain, leader, log_of, member, simple, tick, turn

JITTER = lambda low, high: low  # noqa: E731 # a value, like random.randint


def append(term: int, previous: EntryId, *terms: int, commit: int = 0, sender: MemberId = B) -> Append:
    entries = tuple(command(each, previous.index + 1 + n) for n, each in enumerate(terms))
    return Append(
        sender=sender, to=A, term=Term(term), previous=previous, entries=entries, commit=Index(commit)
    )


def chunk(
    last: EntryId, data: bytes = b"data", *, term: int = 2, piece: slice = slice(None)
) -> SnapshotChunk:
    meta = take_snapshot(last, simple([A, B]), data).meta
    return SnapshotChunk(
        sender=B, to=A, term=Term(term), meta=meta, offset=piece.start or 0, data=data[piece]
    )


# ---- what is restored ---------------------------------------------------------------


def test_a_stored_log_with_a_gap_is_refused() -> None:
    """Goal: never run on half a log. Method: indexes 1, 3."""
    entries = (*log_of([]), command(1, 3))
    with pytest.raises(InvariantBroken, match="3 after 1"):
        RawNode(RaftSettings(id=A), Restored(HardState(), None, entries), JITTER)


def test_a_commit_index_beyond_the_stored_log_is_refused() -> None:
    """Goal: a lost tail is noticed at the start. Method: commit 5 of a log of one."""
    with pytest.raises(InvariantBroken, match="commit 5"):
        RawNode(RaftSettings(id=A), Restored(HardState(commit=Index(5)), None, log_of([])), JITTER)


def test_the_first_log_is_one_committed_membership() -> None:
    """Goal: founders agree on index 1. Method: look; the learner is in it."""
    restored = first_log([B, A], [C])
    assert restored == RawNode.bootstrap([A, B], [C])
    assert Membership.decode(restored.entries[0].data) == simple([A, B], [C])
    assert (restored.hard_state.commit, restored.entries[0].id) == (1, at(1, 1))


def test_a_compacted_member_restarts_from_its_snapshot() -> None:
    """Goal: first index and membership come back. Method: snapshot at 3, one entry, older commit."""
    snapshot = take_snapshot(at(2, 3), simple([A, B]), b"")
    node = RawNode(RaftSettings(id=A), Restored(HardState(Term(2)), snapshot, (command(2, 4),)), JITTER)
    status = node.status()
    assert (status.first_index, status.last, status.commit, status.applied) == (4, at(2, 4), 3, 3)
    assert status.membership == simple([A, B])


# ---- encoding -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"voters":"a"}',
        b'{"voters":[1]}',
        b'{"unknown":["a"]}',
        b'{"voters":["a"]} ',
        b'{"voters":[]}',
    ],
)
def test_only_canonical_memberships_are_understood(data: bytes) -> None:
    """Goal: a change that an old host can not understand is never half applied. Method: table."""
    with pytest.raises(ValueError, match=r".*"):
        Membership.decode(data)


def test_a_membership_knows_its_members() -> None:
    """Goal: the questions the core asks. Method: one joint membership."""
    joint = Membership(voters=(A, B), outgoing=(B, C), learners=(D,), witnesses=(B,), demoting=(C,))
    assert (joint.all_voters, joint.members) == ((A, B, C), (A, B, C, D))
    assert (joint.is_voter(C), joint.is_voter(D), joint.is_member(D), joint.is_member(MemberId("z"))) == (
        True,
        False,
        True,
        False,
    )
    assert (joint.may_lead(A), joint.may_lead(B), joint.may_lead(D)) == (True, False, False)
    assert SameMembership is Membership


# ---- planning a change --------------------------------------------------------------


def test_a_change_is_not_planned_during_a_change() -> None:
    """Goal: one change at a time, whoever asks. Method: from a joint membership."""
    with pytest.raises(Conflict, match="under way"):
        plan_change(Membership(voters=(A,), outgoing=(B,)), simple([A]))


def test_every_problem_of_a_target_is_told_at_once() -> None:
    """Goal: no guessing in rounds. Method: everything wrong in one target."""
    current = Membership(voters=(A, B, C), witnesses=(C,))
    target = Membership(voters=(B, A, C), outgoing=(D,), learners=(A,), witnesses=(B, D))
    found = [str(each) for each in find_problems(current, target)]
    assert len(found) == 6
    assert {each.partition(":")[0] for each in found} == {"outgoing", "voters", "learners", "witnesses"}


def test_a_history_does_not_invent_what_it_forgot() -> None:
    """Goal: a snapshot never carries a wrong membership. Method: ask before the oldest; ask in between."""
    history = MembershipHistory(Index(5), simple([A]))
    history.push(Index(8), simple([B]))
    assert history.at(Index(7)) == simple([A])
    with pytest.raises(InvariantBroken, match="forgotten"):
        history.at(Index(4))
    assert history.is_still_voter(A, Index(7))
    assert not history.is_still_voter(A, Index(8))
    assert not history.is_still_voter(C, Index(0))


# ---- the log ------------------------------------------------------------------------


def test_a_completion_from_before_an_installation_counts_for_nothing() -> None:
    """Goal: entries that the installation wipes are not taken for stored. Method: late completion."""
    node = member([2, 2], term=2)
    node.step(append(3, at(2, 3), 3))
    ready = node.ready()
    node.step(append(4, at(2, 2), 4))
    node.step(chunk(at(2, 3), term=5))
    node.step(append(5, at(2, 3), 3))
    node.advance(ready)
    second = node.ready()
    assert second.snapshot is not None
    assert [each.id for each in second.entries] == [ready.entries[0].id] == [at(3, 4)]
    node.advance(second)
    assert node.applied == 3


def test_a_second_snapshot_overtakes_the_first() -> None:
    """Goal: only the newest is waited for. Method: two installations while one Ready is out."""
    node = member()
    node.step(chunk(at(2, 5)))
    first = node.ready()
    node.step(chunk(at(2, 9)))
    node.advance(first)
    assert node.applied == 5
    second = turn(node)
    assert second.snapshot is not None
    assert (second.snapshot.meta.last, node.applied) == (at(2, 9), 9)


def test_a_snapshot_behind_the_commit_index_is_never_installed() -> None:
    """Goal: the guard below the guards. Method: call the log directly."""
    log = RaftLog(Restored(HardState(commit=Index(3)), None, log_of([1, 1])))
    with pytest.raises(InvariantBroken, match="behind commit"):
        log.install(take_snapshot(at(9, 2), simple([A]), b""))


def test_compaction_keeps_the_trailing_entries() -> None:
    """Goal: a slightly late follower needs no snapshot. Method: compact with and without room."""
    node = member([2, 2, 2], commit=4, trailing_entries=2)
    node.compact(Index(3), b"three")
    assert node.status().first_index == 2
    node.compact(Index(4), b"four")
    assert node.status().first_index == 3
    with pytest.raises(Conflict, match="snapshot at 4 already"):
        node.compact(Index(4), b"again")


def test_compaction_refuses_what_it_can_not_do() -> None:
    """Goal: each refusal says why. Method: table of bad requests."""
    node = member([2, 2], commit=2, snapshot_bytes_max=3, trailing_entries=0)
    with pytest.raises(Conflict, match="not applied"):
        node.compact(Index(3), b"")
    with pytest.raises(InvalidRequest, match="too large"):
        node.compact(Index(2), b"1234")
    with pytest.raises(Conflict, match="not in the log"):
        node.compact(Index(-1), b"")


# ---- RawNode ------------------------------------------------------------------------


def test_one_ready_at_a_time() -> None:
    """Goal: the host's loop is checked. Method: ready twice, advance twice."""
    node = member()
    node.campaign()
    ready = node.ready()
    with pytest.raises(InvariantBroken, match="before advance"):
        node.ready()
    node.advance(ready)
    with pytest.raises(InvariantBroken, match="without its ready"):
        node.advance(ready)


def test_only_the_leader_takes_requests() -> None:
    """Goal: the caller learns whom to ask. Method: every request at a follower with and without a leader."""
    node = member()
    with pytest.raises(NotLeader, match="no leader is known") as unknown:
        node.read_index(1)
    assert unknown.value.metadata["leader"] == ""
    node.step(append(2, at(1, 1)))
    with pytest.raises(NotLeader, match="ask b") as known:
        node.propose_membership(simple([A]))
    assert known.value.metadata["leader"] == B
    node.report_unreachable(B)
    assert (node.is_alone, member(voters=[A]).is_alone) == (False, True)
    assert (node.leader, node.confirmed_round, node.id, node.dropped) == (B, None, A, 0)


def test_a_leader_says_how_it_was_elected() -> None:
    """Goal: what a new leader may conclude about its predecessor. Method: timeout, crash proof, transfer."""
    assert leader(member()).stood_for is Standing.TIMEOUT
    proven = member()
    proven.campaign(after_crash=True)
    assert proven.stood_for is Standing.CRASH_PROOF
    told = member()
    told.step(append(2, at(1, 1)))
    told.step(TimeoutNow(sender=B, to=A, term=Term(2)))
    assert told.stood_for is Standing.TRANSFER
    assert leader(member()).confirmed_round == 0
    assert leader(member(voters=[A])).confirmed_round == 1


def test_a_promise_binds_its_maker_too() -> None:
    """Goal: a leader may count on those who heard it. Method: campaign before and after it has run out."""
    node = member()
    node.step(append(2, at(1, 1)))
    node.campaign()
    roles = [node.role]
    node.campaign(after_crash=True)
    assert [*roles, node.role] == [Role.FOLLOWER, Role.PRE_CANDIDATE]


def test_a_vote_in_a_transfer_is_a_promise() -> None:
    """Goal: nobody else is elected while the successor settles. Method: another candidate at once."""
    node = member()
    node.step(RequestVote(sender=B, to=A, term=Term(2), last=at(1, 1), transfer=True))
    node.step(RequestVote(sender=C, to=A, term=Term(3), last=at(1, 1)))
    assert (node.term, node.status().vote) == (2, B)


def test_a_crash_proof_revives_only_a_request_that_still_matters() -> None:
    """Goal: a late second answer grants nothing old. Method: the term has moved on since the refusal."""
    node = member()
    node.step(append(2, at(1, 1)))
    node.step(RequestVote(sender=C, to=A, term=Term(3), last=at(1, 1), pre_vote=True))
    node.step(RequestVoteReply(sender=C, to=A, term=Term(5), granted=False))
    drain(node)
    node.report_crash(C)
    node.report_crash(B)
    assert drain(node) == []


def test_who_asked_a_tick_too_early_is_answered_when_the_promise_ends() -> None:
    """Goal: clocks out of phase cost a tick, not a timeout. Method: ask in the last tick of the promise."""
    node = member()
    node.step(append(2, at(1, 1)))
    tick(node, 9)
    node.step(RequestVote(sender=C, to=A, term=Term(3), last=at(1, 1), pre_vote=True))
    drain(node)
    tick(node, 1)
    (reply,) = drain(node)
    assert isinstance(reply, RequestVoteReply)
    assert (reply.to, reply.granted, reply.term) == (C, True, 3)
    tick(node, 1)
    assert drain(node) == []


def test_ranks_skip_the_dead_and_those_who_can_not_lead() -> None:
    """Goal: two followers do not stand at the same moment. Method: ranks for one and for several dead."""
    node = member(id=C)
    assert (node.stagger(A), node.stagger([A, B]), node.stagger([])) == (1, 0, 2)
    assert RawNode(RaftSettings(id=D), first_log([A, B]), JITTER).stagger(A) is None


def test_what_nobody_could_have_sent_is_dropped() -> None:
    """Goal: `step` is total. Method: odd messages; the status stays but for the counter."""
    node = member(snapshot_bytes_max=3)
    node.step(chunk(at(2, 9)))
    assert node.dropped == 1
    node.step("nonsense")  # type: ignore[arg-type] # on purpose
    assert node.dropped == 2


def test_an_unknown_kind_of_entry_is_not_skipped() -> None:
    """Goal: an old host refuses what it does not know. Method: a membership of a later version."""
    node = member()
    entry = Entry(Index(2), Term(2), EntryKind.MEMBERSHIP, b'{"voters":["a"],"weights":["1"]}')
    node.step(Append(sender=B, to=A, term=Term(2), previous=at(1, 1), entries=(entry,), commit=Index(2)))
    assert (node.dropped, node.status().last, node.commit) == (1, at(1, 1), 1)


def test_a_heartbeat_moves_the_commit_index_no_further_than_told() -> None:
    """Goal: min(matched, commit) is taken as it is. Method: commit 2 of a log of 3."""
    node = member([2, 2])
    node.step(AppendHeartbeat(sender=B, to=A, term=Term(2), commit=Index(2), round=1))
    assert node.commit == 2
    node.step(AppendHeartbeat(sender=B, to=A, term=Term(2), commit=Index(1), round=2))
    assert node.commit == 2


def test_bytes_beyond_the_size_start_the_transfer_again() -> None:
    """Goal: a snapshot is exactly what its meta says. Method: one byte too many."""
    assembly = Assembly()
    meta = take_snapshot(at(1, 5), simple([A]), b"data").meta
    long = SnapshotChunk(sender=B, to=A, term=Term(1), meta=meta, offset=0, data=b"data!")
    assert assembly.add(long).next_offset == 0


def test_an_assembly_belongs_to_one_sender_and_term() -> None:
    """Goal: the guard below the guards. Method: the same meta, another sender."""
    assembly = Assembly()
    whole = chunk(at(2, 5))
    assert assembly.add(replace(whole, data=b"da")).next_offset == 2
    assert assembly.add(replace(whole, data=b"ta", offset=2, sender=C)).next_offset == 0


def test_a_damaged_snapshot_is_asked_for_again() -> None:
    """Goal: nothing is installed unverified. Method: one bit."""
    node = member()
    whole = chunk(at(2, 5))
    node.step(replace(whole, data=b"dat`"))
    (reply,) = drain(node)
    assert isinstance(reply, SnapshotReply)
    assert (reply.next_offset, reply.installed, node.commit) == (0, False, 1)
    node.step(whole)
    assert node.commit == 5


@pytest.mark.parametrize(("sender", "term"), [(C, 3), (B, 3)])
def test_halves_of_two_leaders_or_terms_do_not_make_a_snapshot(sender: MemberId, term: int) -> None:
    """Goal: a transfer belongs to one leader in one term. Method: second half from another."""
    node = member()
    whole = chunk(at(2, 5))
    node.step(replace(whole, data=whole.data[:2]))
    drain(node)
    node.step(replace(whole, data=whole.data[2:], offset=2, sender=sender, term=Term(term)))
    (reply,) = drain(node)
    assert isinstance(reply, SnapshotReply)
    assert (reply.next_offset, reply.installed) == (0, False)


def test_a_membership_that_is_known_is_not_taken_twice() -> None:
    """Goal: an append that overlaps the log changes only what is new. Method: the founding entry, and one."""
    node = member()
    founding = log_of([])[0]
    message = replace(append(2, at(0, 0)), entries=(founding, command(2, 2)))
    node.step(message)
    drain(node)
    assert node._core.log.last == at(2, 2)
    assert [index for index, _ in node._core.log.history._stack] == [0, 1]
