"""One test per rule of the Raft paper, each with its section."""

import pytest

from mesh.ids import Index, MemberId, Term
from mesh.raft import (
    Append,
    AppendHeartbeat,
    AppendReply,
    Entry,
    EntryKind,
    Membership,
    RequestVote,
    RequestVoteReply,
    Role,
    TimeoutNow,
)
from mesh.raft.model import EntryId
from tests.raft.group import (
    FIVE,
    TICKS_MAX,
    TICKS_MIN,
    A,
    B,
    C,
    D,
    E,
    answer,
    append,
    ask,
    at,
    candidate,
    drain,
    leader,
    member,
    only,
    reply,
    simple,
    tick,
    turn,
)

# ---- §5.1 terms -------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_a_larger_term_makes_anybody_a_follower_of_it(role: Role) -> None:
    """§5.1: "if a candidate or leader discovers that its term is out of date". Method: append of term 9."""
    node = member()
    if role is Role.CANDIDATE:
        candidate(node)
    if role is Role.LEADER:
        leader(node)
    assert node.role is role
    node.step(append(9, at(1, 1)))
    assert (node.role, node.term, node.leader) == (Role.FOLLOWER, 9, B)


def test_a_request_of_a_smaller_term_is_refused_and_changes_nothing() -> None:
    """§5.1. Method: append and vote request of term 2 at term 5."""
    node = member(term=5)
    before = node.status()
    node.step(append(2, at(1, 1), 2, commit=2))
    node.step(ask(2, at(2, 9)))
    assert node.status() == before
    assert [(type(each), each.term) for each in drain(node)] == [(AppendReply, 5), (RequestVoteReply, 5)]


# ---- §5.2 elections ---------------------------------------------------------------


def test_a_member_starts_as_a_follower() -> None:
    """§5.2: servers start up as followers. Method: look."""
    assert member().role is Role.FOLLOWER


def test_a_follower_that_hears_heartbeats_never_stands() -> None:
    """§5.2. Method: a hundred timeouts' worth of ticks with a heartbeat before each would end."""
    node = member()
    for number in range(1, 100):
        heartbeat = AppendHeartbeat(sender=B, to=A, term=Term(2), commit=Index(0), round=number)
        node.step(heartbeat)
        tick(node, TICKS_MIN - 1)
    assert (node.role, node.term, node.leader) == (Role.FOLLOWER, 2, B)


def test_a_candidate_raises_its_term_votes_for_itself_and_asks_everybody() -> None:
    """§5.2. Method: win the pre-vote, look at hard state and messages."""
    node = member(voters=FIVE)
    asked = candidate(node)
    assert (node.role, node.term, node.status().vote) == (Role.CANDIDATE, 2, A)
    assert [each.to for each in only(RequestVote, asked) if each.term == 2 and each.to != A][-4:] == [
        B,
        C,
        D,
        E,
    ]


@pytest.mark.parametrize(
    ("voters", "granted", "refused", "role"),
    [
        (1, 0, 0, Role.LEADER),
        (3, 1, 0, Role.LEADER),
        (3, 0, 2, Role.FOLLOWER),
        (3, 0, 1, Role.CANDIDATE),
        (5, 2, 2, Role.LEADER),
        (5, 1, 2, Role.CANDIDATE),
        (5, 1, 3, Role.FOLLOWER),
    ],
)
def test_a_majority_of_votes_elects(voters: int, granted: int, refused: int, role: Role) -> None:
    """§5.2. Method: table of answers."""
    node = member(voters=FIVE[:voters])
    candidate(node)
    others = list(FIVE[1:voters])
    for voter in others[:refused]:
        answer(node, voter, pre_vote=False, granted=False)
    for voter in others[refused : refused + granted]:
        answer(node, voter, pre_vote=False)
    assert node.role is role


@pytest.mark.parametrize(("vote", "asking", "granted"), [(None, B, True), (B, B, True), (C, B, False)])
def test_a_voter_has_one_vote_per_term(vote: MemberId | None, asking: MemberId, granted: bool) -> None:
    """§5.2: first come, first served; the same candidate may ask again. Method: table."""
    node = member(term=3, vote=vote)
    node.step(ask(3, at(3, 9), asking))
    (answered,) = drain(node)
    assert isinstance(answered, RequestVoteReply)
    assert answered.granted is granted


def test_a_candidate_that_hears_the_leader_of_its_term_follows() -> None:
    """§5.2. Method: append of the candidate's own term."""
    node = member()
    candidate(node)
    node.step(append(2, at(1, 1)))
    assert (node.role, node.leader, node.status().vote) == (Role.FOLLOWER, B, A)


def test_a_split_vote_ends_in_another_election() -> None:
    """§5.2. Method: nobody answers; after the next timeout the term rises again."""
    node = member()
    candidate(node)
    tick(node, TICKS_MAX)
    assert node.role is Role.PRE_CANDIDATE
    answer(node, B, pre_vote=True)
    assert (node.role, node.term) == (Role.CANDIDATE, 3)


# ---- §5.3 replication -------------------------------------------------------------


def test_a_leader_sends_and_stores_at_the_same_time() -> None:
    """§5.3 and thesis §10.2.1: appends leave before the leader's own disk is done. Method: one Ready."""
    node = leader(member())
    node.step(reply(2, 2))
    drain(node)
    node.propose(b"x")
    ready = node.ready()
    assert [each.data for each in ready.entries] == [b"x"]
    assert [each.to for each in only(Append, list(ready.messages))] == [B]
    assert not ready.messages_after_durable


@pytest.mark.parametrize(
    ("voters", "answers", "is_committed"), [(3, 0, False), (3, 1, True), (5, 1, False), (5, 2, True)]
)
def test_an_entry_is_committed_when_a_majority_holds_it(
    voters: int, answers: int, is_committed: bool
) -> None:
    """§5.3. Method: table of answers to the first entry of the term."""
    node = leader(member(voters=FIVE[:voters]))
    for voter in FIVE[1 : 1 + answers]:
        node.step(reply(2, 2, voter))
    assert (node.commit == 2) is is_committed


def test_committing_an_entry_commits_everything_before_it() -> None:
    """§5.3. Method: a leader with three entries of earlier terms commits its first own one."""
    node = leader(member([2, 2, 3]))
    node.step(reply(4, 5))
    assert node.commit == 5
    assert [each.index for each in turn(node).committed] == [2, 3, 4, 5]


def test_a_follower_applies_what_the_leader_has_committed_in_order() -> None:
    """§5.3. Method: three entries, commit 3."""
    node = member()
    node.step(append(2, at(1, 1), 2, 2, 2, commit=3))
    assert [each.index for each in turn(node).committed] == []
    assert [each.index for each in turn(node).committed] == [2, 3]


@pytest.mark.parametrize(
    ("previous", "rejected"),
    [(at(1, 1), False), (at(2, 2), False), (at(2, 3), False), (at(3, 3), True), (at(2, 4), True)],
)
def test_the_consistency_check(previous: EntryId, rejected: bool) -> None:
    """§5.3: an append is refused unless the previous entry matches. Method: table; log 1,2,2."""
    node = member([2, 2])
    node.step(append(4, previous, commit=0))
    (answered,) = drain(node)
    assert isinstance(answered, AppendReply)
    assert answered.rejected is rejected


@pytest.mark.parametrize(
    ("here", "previous", "sent", "after"),
    [
        ([2, 3], at(3, 3), [4], [2, 3, 4]),
        ([2, 3], at(2, 2), [4, 4], [2, 4, 4]),
        ([], at(1, 1), [2], [2]),
        ([2, 3, 3], at(1, 1), [2], [2, 3, 3]),
        ([2, 2, 2], at(2, 2), [3], [2, 3]),
    ],
)
def test_conflicting_entries_are_replaced(
    here: list[int], previous: EntryId, sent: list[int], after: list[int]
) -> None:
    """§5.3: "delete the existing entry and all that follow it". Method: table of terms."""
    node = member(here)
    node.step(append(5, previous, *sent))
    drain(node)
    log = node._core.log
    assert [log.term_at(Index(index)) for index in range(2, log.last_index + 1)] == after


@pytest.mark.parametrize(
    "theirs",
    [
        [1, 1, 4, 4, 5, 5, 6, 6],
        [1, 1, 4],
        [1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        [1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        [1, 1, 4, 4, 4, 4],
        [1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ],
    ids="abcdef",
)
def test_a_leader_makes_any_follower_equal(theirs: list[int]) -> None:
    """§5.3, figure 7 (a–f). Method: deliver until quiet, compare logs."""
    one = member([1, 1, 4, 4, 5, 5, 6, 6, 6], term=7)
    other = member(theirs, term=7, id=B)
    leader(one)
    for number in range(1, 30):
        tick(one, 1)
        for message in drain(one):
            if message.to == B:
                other.step(message)
        for message in drain(other):
            if message.to == A:
                one.step(message)
        assert number < 29 or other.status().last == one.status().last
    logs = [[each._core.log.term_at(Index(n)) for n in range(1, 13)] for each in (one, other)]
    assert logs[0] == logs[1]
    assert one.commit == other.commit == 11


# ---- §5.4 safety ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "granted"),
    [(at(2, 9), False), (at(3, 2), False), (at(3, 3), True), (at(3, 4), True), (at(4, 1), True)],
)
def test_a_vote_needs_a_log_that_is_as_up_to_date(last: EntryId, granted: bool) -> None:
    """§5.4.1. Method: table against a log that ends with term 3, index 3."""
    node = member([2, 3])
    node.step(ask(8, last))
    (answered,) = drain(node)
    assert isinstance(answered, RequestVoteReply)
    assert answered.granted is granted


def test_entries_of_earlier_terms_are_not_committed_by_counting() -> None:
    """§5.4.2, figure 8. Method: a majority holds index 3 of term 2; nothing is committed before index 4."""
    node = leader(member([2, 2]))
    node.step(reply(3, 3))
    assert node.commit == 1
    node.step(reply(3, 4))
    assert node.commit == 4


# ---- §6 membership ----------------------------------------------------------------


def test_a_membership_counts_from_its_append_and_both_majorities_decide() -> None:
    """§6. Method: {a,b,c} → {a,d,e}: neither majority alone commits the joint entry."""
    node = leader(member())
    node.step(reply(2, 2))
    drain(node)
    node.propose_membership(simple([A, D, E]))
    drain(node)
    assert node.membership.is_joint
    node.step(reply(2, 3, D))
    node.step(reply(2, 3, E))
    assert node.commit == 2
    node.step(reply(2, 3, B))
    assert node.commit == 3
    assert node.membership == simple([A, D, E])


def test_an_election_in_the_joint_state_needs_both_majorities() -> None:
    """§6. Method: the joint entry is in the log; votes of one side, then one of the other."""
    node = member()
    joint = Membership(voters=(A, D, E), outgoing=(A, B, C))
    entry = Entry(Index(2), Term(2), EntryKind.MEMBERSHIP, joint.encode())
    node.step(Append(sender=B, to=A, term=Term(2), previous=at(1, 1), entries=(entry,), commit=Index(1)))
    node.step(TimeoutNow(sender=B, to=A, term=Term(2)))
    drain(node)
    answer(node, D, pre_vote=False)
    answer(node, E, pre_vote=False)
    roles = [node.role]
    answer(node, C, pre_vote=False)
    assert [*roles, node.role] == [Role.CANDIDATE, Role.LEADER]


def test_a_leader_outside_the_new_membership_steps_down_after_its_commit() -> None:
    """§6. Method: remove the leader; it leads, without counting itself, until both entries are committed."""
    node = leader(member())
    node.step(reply(2, 2))
    drain(node)
    node.propose_membership(simple([B, C]))
    drain(node)
    node.step(reply(2, 3, B))
    node.step(reply(2, 3, C))
    assert (node.role, node.membership) == (Role.LEADER, simple([B, C]))
    drain(node)
    node.step(reply(2, 4, B))
    assert (node.role, node.commit) == (Role.LEADER, 3)
    node.step(reply(2, 4, C))
    assert (node.role, node.commit) == (Role.FOLLOWER, 4)
    assert only(TimeoutNow, drain(node))
    tick(node, 100)
    assert node.role is Role.FOLLOWER
