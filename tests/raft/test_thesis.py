"""One test per rule that only the thesis has, each with its section."""

import pytest

from mesh.errors import NotLeader
from mesh.ids import Term
from mesh.raft import (
    RequestVote,
    RequestVoteReply,
    Role,
    TimeoutNow,
)
from tests.raft.group import (
    FIVE,
    TICKS_MIN,
    A,
    B,
    C,
    append,
    ask,
    at,
    drain,
    leader,
    member,
    reply,
    tick,
)

# ---- thesis -----------------------------------------------------------------------


def test_a_voter_that_hears_its_leader_ignores_candidates() -> None:
    """Thesis §4.2.3: not within the minimum election timeout. Method: both sides of it."""
    node = member()
    node.step(append(2, at(1, 1)))
    tick(node, TICKS_MIN - 1)
    node.step(ask(9, at(9, 9), C))
    assert node.term == 2
    tick(node, 1)
    node.step(ask(9, at(9, 9), C))
    assert node.term == 9


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    """Thesis §6.2. Method: one of four answers, then nobody."""
    node = leader(member(voters=FIVE))
    tick(node, TICKS_MIN - 1)
    node.step(reply(2, 2, B))
    assert node.role is Role.LEADER
    tick(node, 1)
    assert (node.role, node.leader) == (Role.FOLLOWER, None)
    with pytest.raises(NotLeader):
        node.propose(b"x")


def test_a_pre_vote_changes_nobody() -> None:
    """Thesis §9.6. Method: ask a voter for term 9; its hard state stays."""
    node = member(term=3)
    request = RequestVote(sender=B, to=A, term=Term(9), last=at(9, 9), pre_vote=True)
    node.step(request)
    ready = node.ready()
    assert ready.hard_state is None
    assert ready.messages == [RequestVoteReply(sender=A, to=B, term=Term(9), granted=True, pre_vote=True)]


def test_one_who_is_told_to_stand_does_so_without_a_pre_vote() -> None:
    """Thesis §3.10. Method: TimeoutNow from the leader, and from somebody else."""
    node = member()
    node.step(append(2, at(1, 1)))
    node.step(TimeoutNow(sender=C, to=A, term=Term(2)))
    assert node.role is Role.FOLLOWER
    node.step(TimeoutNow(sender=B, to=A, term=Term(2)))
    assert (node.role, node.term) == (Role.CANDIDATE, 3)
    assert all(each.transfer for each in drain(node) if isinstance(each, RequestVote))


def test_the_leader_counts_itself_only_when_its_disk_is_done() -> None:
    """Thesis §10.2.1. Method: two of five answer while the leader's own Ready is outstanding."""
    node = leader(member(voters=FIVE))
    node.propose(b"x")
    ready = node.ready()
    for voter in (B, C):
        node.step(reply(2, 3, voter))
    assert node.commit == 2
    node.advance(ready)
    assert node.commit == 3
