"""Corners of leading: late answers, lost chunks, compacted windows, stepping down."""

import pytest

from mesh.errors import InvariantBroken, QueueFull, Unavailable
from mesh.ids import Index, MemberId, Term
from mesh.raft import (
    Append,
    AppendHeartbeat,
    AppendHeartbeatReply,
    AppendReply,
    HardState,
    Membership,
    RaftSettings,
    RawNode,
    Restored,
    Role,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
)
from mesh.raft.log import RaftLog
from mesh.raft.model import ProgressMode
from mesh.raft.outbox import Outbox
from mesh.raft.replication import Feeder
from mesh.raft.snapshot import take_snapshot
from mesh.raft.tracker import Inflights, Progress
from tests.raft.group import (
    TICKS_MAX,
    A,
    B,
    C,
    answer,
    at,
    command,
    drain,
    leader,
    log_of,
    member,
    simple,
    tick,
    turn,
)

# ---- answers that come to somebody who no longer leads ----------------------------------


def test_answers_to_a_leader_mean_nothing_to_a_follower() -> None:
    """Goal: late answers are harmless. Method: each kind."""
    node = member(term=2)
    before = node.status()
    node.step(AppendReply(sender=B, to=A, term=Term(2), matched=Index(1)))
    node.step(SnapshotReply(sender=B, to=A, term=Term(2), last=at(1, 1), next_offset=0, installed=True))
    assert node.status() == before


def test_a_leader_ignores_answers_about_a_snapshot_it_does_not_send() -> None:
    """Goal: an installation is believed only for what was sent. Method: unasked, then of another snapshot."""
    node = leader(member([2, 2, 2], commit=4, trailing_entries=0))
    node.compact(Index(4), b"state")
    node.step(SnapshotReply(sender=B, to=A, term=node.term, last=at(2, 4), next_offset=0, installed=True))
    node.step(
        AppendReply(
            sender=B, to=A, term=node.term, matched=Index(0), rejected=True, refused=Index(4), hint=at(1, 1)
        )
    )
    assert any(isinstance(each, SnapshotChunk) for each in drain(node))
    node.step(SnapshotReply(sender=B, to=A, term=node.term, last=at(2, 3), next_offset=0, installed=True))
    assert node.status().peers[0].mode is ProgressMode.SNAPSHOT
    node.step(AppendReply(sender=B, to=A, term=node.term, matched=Index(4)))
    assert node.status().peers[0].mode is ProgressMode.REPLICATE


def test_a_lost_chunk_is_sent_again_while_the_receiver_lives() -> None:
    """Goal: a transfer neither hangs nor floods. Method: wait with and without signs of life."""
    node = leader(member([2, 2, 2], commit=4, trailing_entries=0))
    node.compact(Index(4), b"state")
    rejected = AppendReply(
        sender=B, to=A, term=node.term, matched=Index(0), rejected=True, refused=Index(4), hint=at(1, 1)
    )
    node.step(rejected)
    assert chunks(node) == 1
    node.step(rejected)
    tick(node, 4)
    assert chunks(node) == 0
    tick(node, 1)
    assert chunks(node) == 1
    node.step(AppendReply(sender=C, to=A, term=node.term, matched=Index(4)))
    tick(node, 9)
    node.step(AppendReply(sender=C, to=A, term=node.term, matched=Index(4)))
    tick(node, 5)
    assert node.role is Role.LEADER
    assert chunks(node) == 0


def chunks(node: RawNode) -> int:
    return sum(isinstance(each, SnapshotChunk) for each in drain(node))


def test_a_silent_follower_gets_no_snapshot_before_it_is_heard() -> None:
    """Goal: no big transfer to a dead host. Method: needed entries are compacted while it is silent."""
    node = leader(member([2, 2, 2], commit=4, trailing_entries=0))
    for _ in range(3):
        tick(node, 5)
        node.step(AppendReply(sender=C, to=A, term=node.term, matched=Index(5)))
        drain(node)
    node.compact(Index(5), b"state")
    rejected = AppendReply(
        sender=B, to=A, term=node.term, matched=Index(0), rejected=True, refused=Index(4), hint=at(1, 1)
    )
    silent = node._core.leadership.peers[B]  # type: ignore[union-attr] # it leads
    silent.reject(rejected.refused, Index(1))
    tick(node, 1)
    assert chunks(node) == 0
    assert silent.mode is ProgressMode.PROBE


def test_a_window_that_was_compacted_away_ends_in_a_snapshot() -> None:
    """Goal: no follower is left behind for ever. Method: full window, compaction, sign of life."""
    node = leader(member(inflight_max=1, trailing_entries=0))
    for peer in (B, C):
        node.step(AppendReply(sender=peer, to=A, term=Term(2), matched=Index(2)))
    drain(node)
    for data in (b"1", b"2"):
        node.propose(data)
        drain(node)
        node.step(AppendReply(sender=C, to=A, term=Term(2), matched=node.status().last.index))
        drain(node)
    node.compact(Index(4), b"state")
    node.propose(b"3")
    tick(node, 1)
    node.step(AppendHeartbeatReply(sender=B, to=A, term=Term(2), round=2))
    assert chunks(node) == 1


@pytest.mark.parametrize("mode", [ProgressMode.PROBE, ProgressMode.SNAPSHOT])
def test_a_log_that_begins_nowhere_is_a_bug(mode: ProgressMode) -> None:
    """Goal: impossible states end the process. Method: feed a follower that was put into them by hand."""
    log = RaftLog(Restored(HardState(), None, log_of([])))
    feeder = Feeder(RaftSettings(id=A), Term(1), log, Outbox(Term(1)))
    peer = Progress(id=B, next=Index(9), inflights=Inflights(1), heard_tick=0, mode=mode)
    with pytest.raises(InvariantBroken, match="without a snapshot"):
        feeder.feed(peer, 0)


def test_a_replicating_follower_that_is_behind_the_log_gets_a_snapshot() -> None:
    """Goal: the same for the pipelined mode. Method: next entries are compacted."""
    snapshot = take_snapshot(at(1, 5), simple([A, B]), b"state")
    log = RaftLog(Restored(HardState(), snapshot, (command(1, 6),)))
    peer = Progress(id=B, next=Index(3), inflights=Inflights(1), heard_tick=0, mode=ProgressMode.REPLICATE)
    Feeder(RaftSettings(id=A), Term(1), log, Outbox(Term(1))).feed(peer, 0)
    assert peer.transmission is not None


def test_a_leader_that_removed_everybody_it_could_hand_over_to_just_stops() -> None:
    """Goal: stepping down needs no successor. Method: only a witness and a learner are left over."""
    node = leader(member(voters=[A, B]))
    node.step(AppendReply(sender=B, to=A, term=Term(2), matched=Index(2)))
    drain(node)
    joint = Membership(voters=(B,), outgoing=(A, B), witnesses=(B,))
    leadership = node._core.leadership
    assert leadership is not None
    leadership.append_membership(joint)
    for index in (3, 4):
        drain(node)
        node.step(AppendReply(sender=B, to=A, term=Term(2), matched=Index(index)))
    assert node.role is Role.FOLLOWER
    assert not [each for each in drain(node) if isinstance(each, TimeoutNow)]


def test_a_transfer_ends_when_its_target_may_not_lead_any_more() -> None:
    """Goal: no waiting for somebody who left. Method: the joint state is left during a transfer."""
    node = leader(member())
    for peer in (B, C):
        node.step(AppendReply(sender=peer, to=A, term=Term(2), matched=Index(2)))
    drain(node)
    node.propose_membership(simple([A, B]))
    drain(node)
    node.transfer_leadership(C)
    with pytest.raises(Unavailable):
        node.propose(b"x")
    node.step(AppendReply(sender=B, to=A, term=Term(2), matched=Index(3)))
    assert node.membership == simple([A, B])
    assert node.status().transferring_to is None


def test_a_vote_for_oneself_counts_only_for_the_term_it_was_stored_for() -> None:
    """Goal: no leader on the strength of an earlier campaign. Method: its completion comes a term late."""
    node = member()
    node.campaign()
    answer(node, B, pre_vote=True)
    late = node.ready()
    tick(node, TICKS_MAX)
    answer(node, B, pre_vote=True)
    node.advance(late)
    answer(node, B, pre_vote=False)
    roles = [node.role]
    turn(node)
    assert (node.term, [*roles, node.role]) == (3, [Role.CANDIDATE, Role.LEADER])


def test_a_leader_whose_own_vote_is_not_stored_yet_waits_with_its_messages() -> None:
    """Goal: nothing is said in a term that could be forgotten. Method: both others vote meanwhile."""
    node = member()
    node.campaign()
    answer(node, B, pre_vote=True)
    outstanding = node.ready()
    for voter in (B, C):
        answer(node, voter, pre_vote=False)
    node.advance(outstanding)
    ready = node.ready()
    assert {type(each) for each in ready.messages_after_durable} == {AppendHeartbeat}
    assert {type(each) for each in ready.messages} == {Append}


def test_a_late_refusal_does_not_slow_a_follower_down() -> None:
    """Goal: reordered answers cost nothing. Method: stale rejects in replicate and in probe."""
    node = leader(member([2, 2]))
    node.step(AppendReply(sender=B, to=A, term=Term(3), matched=Index(4)))

    def refuse(sender: MemberId, refused: int) -> None:
        node.step(
            AppendReply(
                sender=sender,
                to=A,
                term=Term(3),
                matched=Index(0),
                rejected=True,
                refused=Index(refused),
                hint=at(1, 1),
            )
        )

    refuse(B, 3)
    refuse(C, 2)
    replicating, probed = node.status().peers
    assert (replicating.mode, replicating.next) == (ProgressMode.REPLICATE, 5)
    assert (probed.mode, probed.next) == (ProgressMode.PROBE, 4)
    refuse(B, 5)
    refuse(C, 3)
    replicating, probed = node.status().peers
    assert (replicating.mode, replicating.next) == (ProgressMode.PROBE, 5)
    assert (probed.mode, probed.next) == (ProgressMode.PROBE, 2)


def test_one_proposal_always_fits() -> None:
    """Goal: the bound stops a queue, not a single command. Method: a large one, then a small one."""
    node = leader(member(uncommitted_bytes_max=50))
    node.step(AppendReply(sender=B, to=A, term=Term(2), matched=Index(2)))
    assert node.propose(bytes(100)) == at(2, 3)
    with pytest.raises(QueueFull):
        node.propose(b"")
