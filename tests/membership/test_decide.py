"""The next membership change follows the members of the state and never costs a quorum."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.ids import HostId, Index, MemberId, Term, host_of, incarnation_of
from mesh.raft.confchange import find_problems, leave_joint, plan_change
from mesh.raft.model import EntryId, Membership, PeerStatus, ProgressMode, Role, Status
from mesh.state import ClusterState
from mesh.state.commands import SetMemberRole
from mesh.state.model import Member, MemberRole
from sidecar.membership.decide import (
    MembershipView,
    next_membership_change,
    role_commands,
    view_of,
)


def ids(*names: str) -> tuple[MemberId, ...]:
    return tuple(MemberId(name) for name in names)


def view(
    voters: str,
    learners: str = "",
    *,
    wanted: str,
    caught_up: str = "",
    witnesses: str = "",
    wanted_witnesses: str = "",
    beating: str = "",
) -> MembershipView:
    """Names separated by blanks; the first voter leads."""
    members = {MemberId(name): False for name in wanted.split()}
    members |= {MemberId(name): True for name in wanted_witnesses.split()}
    return MembershipView(
        leader=ids(*voters.split())[0],
        membership=Membership.of(
            ids(*voters.split(), *witnesses.split()), ids(*learners.split()), ids(*witnesses.split())
        ),
        wanted=members,
        commit=Index(1000),
        matched={MemberId(name): Index(1000) for name in caught_up.split()},
        beating=tuple(host_of(MemberId(name)) for name in beating.split()),
    )


def target(of: MembershipView) -> Membership | None:
    change = next_membership_change(of)
    return change.target if change else None


def test_a_new_member_first_learns() -> None:
    """Goal: a new host never raises the quorum before it has the log. Method: two that are only wanted."""
    assert target(view("a.1", wanted="a.1 b.1 c.1")) == Membership.of(ids("a.1"), ids("b.1", "c.1"))


def test_one_learner_alone_stays_a_learner() -> None:
    """Goal: no even number of voters on the way to three. Method: one of one and one of two has caught up."""
    assert target(view("a.1", "b.1", wanted="a.1 b.1", caught_up="b.1")) is None
    assert target(view("a.1", "b.1 c.1", wanted="a.1 b.1 c.1", caught_up="b.1")) is None


def test_two_learners_that_have_caught_up_vote_together() -> None:
    """Goal: from one voter to three in one step. Method: both have caught up."""
    now = view("a.1", "b.1 c.1", wanted="a.1 b.1 c.1", caught_up="b.1 c.1")
    assert target(now) == Membership.of(ids("a.1", "b.1", "c.1"))


def test_a_fourth_host_learns_and_a_fifth_makes_five_voters() -> None:
    """Goal: an even cluster gains no voter that only costs quorum. Method: four, then five hosts."""
    four = view("a.1 b.1 c.1", "d.1", wanted="a.1 b.1 c.1 d.1", caught_up="b.1 c.1 d.1")
    assert target(four) is None
    five = view("a.1 b.1 c.1", "d.1 e.1", wanted="a.1 b.1 c.1 d.1 e.1", caught_up="d.1 e.1")
    assert target(five) == Membership.of(ids("a.1", "b.1", "c.1", "d.1", "e.1"))


def test_a_learner_that_lags_or_is_silent_does_not_vote() -> None:
    """Goal: a promotion never stalls commits. Method: no index, one entry too few, just enough."""
    silent = view("a.1 b.1", "c.1", wanted="a.1 b.1 c.1")
    assert target(silent) is None
    assert target(replace(silent, matched={MemberId("c.1"): Index(935)})) is None
    enough = replace(silent, matched={MemberId("c.1"): Index(936)})
    assert target(enough) == Membership.of(ids("a.1", "b.1", "c.1"))


def test_a_learner_that_never_answered_has_not_caught_up_with_a_short_log() -> None:
    """Goal: no vote, and no change of places, for a host that was admitted and does not run yet."""
    for now in (
        view("a.1", "b.1 c.1", wanted="a.1 b.1 c.1", caught_up="b.1 c.1"),
        view("a.1 b.1 c.1", "c.2", wanted="a.1 b.1 c.2", caught_up="c.2"),
    ):
        silent = {member: Index(0) for member in now.matched}
        assert target(replace(now, commit=Index(5), matched=silent)) is None
        assert target(replace(now, commit=Index(5), matched={each: Index(1) for each in silent})) is not None


def test_a_host_that_comes_back_empty_changes_places_in_one_step_when_it_has_caught_up() -> None:
    """Goal: the old incarnation votes until the new one can. Method: three moments of a rejoin."""
    joined = view("a.1 b.1 c.1", wanted="a.1 b.1 c.2")
    assert target(joined) == Membership.of(ids("a.1", "b.1", "c.1"), ids("c.2"))
    learning = view("a.1 b.1 c.1", "c.2", wanted="a.1 b.1 c.2")
    assert target(learning) is None
    done = view("a.1 b.1 c.1", "c.2", wanted="a.1 b.1 c.2", caught_up="c.2")
    assert target(done) == Membership.of(ids("a.1", "b.1", "c.2"))


def test_a_host_that_came_back_twice_leaves_nothing_behind() -> None:
    """Goal: no learner that nobody wants. Method: incarnations 2 and 3 both learn, 3 is wanted."""
    now = view("a.1 b.1 c.1", "c.2 c.3", wanted="a.1 b.1 c.3", caught_up="c.2")
    assert target(now) == Membership.of(ids("a.1", "b.1", "c.1"), ids("c.3"))


def test_a_removed_host_goes_at_once_and_its_replacement_votes_when_ready() -> None:
    """Goal: a dead host does not count against the quorum.

    Method: removal, then a learner that has caught up.
    """
    assert target(view("a.1 b.1 c.1", wanted="a.1 b.1")) == Membership.of(ids("a.1", "b.1"))
    assert target(view("a.1 b.1", "d.1", wanted="a.1 b.1 d.1", caught_up="d.1")) == Membership.of(
        ids("a.1", "b.1", "d.1")
    )


def test_the_leader_is_never_taken_out() -> None:
    """Goal: no change that its proposer does not survive; it hands over first.

    Method: the leader is not wanted.
    """
    assert target(view("a.1 b.1 c.1", wanted="b.1 c.1")) is None


def test_a_witness_votes_when_it_is_there_and_makes_the_number_odd() -> None:
    """Goal: two hosts and a witness survive one loss. Method: before and after it beats."""
    absent = view("a.1", "b.1", wanted="a.1 b.1", wanted_witnesses="w.1", caught_up="b.1")
    assert target(absent) is None
    there = view("a.1", "b.1", wanted="a.1 b.1", wanted_witnesses="w.1", caught_up="b.1", beating="w.1")
    assert target(there) == Membership.of(ids("a.1", "b.1", "w.1"), (), ids("w.1"))


def test_a_removed_witness_goes() -> None:
    """Goal: it keeps no vote. Method: a witness that is not wanted."""
    now = view("a.1 b.1", wanted="a.1 b.1", witnesses="w.1")
    assert target(now) == Membership.of(ids("a.1", "b.1"))


def test_nothing_is_proposed_while_a_change_is_under_way() -> None:
    """Goal: joint phases never overlap. Method: a joint membership with more wanted."""
    now = view("a.1", wanted="a.1 b.1")
    joint = Membership(voters=ids("a.1", "b.1"), outgoing=ids("a.1"))
    assert next_membership_change(MembershipView(MemberId("a.1"), joint, now.wanted, Index(1), {})) is None


def _row(member: str, role: MemberRole) -> Member:
    made = MemberId(member)
    return Member(made, host_of(made), incarnation_of(made), role, "10.0.0.1:7400")


def _state() -> ClusterState:
    state = ClusterState()
    rows = (
        ("a.1", MemberRole.VOTER),
        ("b.1", MemberRole.LEARNER),
        ("c.1", MemberRole.WITNESS),
        ("d.1", MemberRole.LEARNER),
    )
    for member, role in rows:
        state.members.put(MemberId(member), _row(member, role))
    return state


def test_the_state_records_what_rafts_membership_made_of_each_member() -> None:
    """Goal: what operators see is what Raft counts.

    Method: a promoted learner, and nothing in a joint phase.
    """
    state = _state()
    membership = Membership.of(ids("a.1", "b.1", "c.1"), (), ids("c.1"))
    assert role_commands(state, membership) == (SetMemberRole(MemberId("b.1"), MemberRole.VOTER),)
    joint = Membership(voters=ids("a.1", "b.1"), outgoing=ids("a.1"))
    assert role_commands(state, joint) == ()


def test_the_view_holds_what_was_heard_lately_only() -> None:
    """Goal: an old acknowledgement promotes nobody.

    Method: one active and one silent peer at the same index.
    """
    peers = (
        PeerStatus(MemberId("b.1"), ProgressMode.REPLICATE, Index(7), Index(8), recently_active=True),
        PeerStatus(MemberId("d.1"), ProgressMode.REPLICATE, Index(7), Index(8), recently_active=False),
    )
    status = Status(
        id=MemberId("a.1"),
        role=Role.LEADER,
        term=Term(1),
        vote=None,
        leader=MemberId("a.1"),
        commit=Index(9),
        applied=Index(9),
        first_index=Index(1),
        last=EntryId(Term(1), Index(9)),
        membership=Membership.of(ids("a.1")),
        transferring_to=None,
        quorum_confirmed_ticks_ago=0,
        peers=peers,
    )
    made = view_of(status, _state(), (HostId("c"),))
    assert made.matched == {"b.1": 7}
    assert made.wanted == {"a.1": False, "b.1": False, "c.1": True, "d.1": False}
    assert (made.leader, made.commit, made.beating) == ("a.1", 9, ("c",))


HOSTS = st.sampled_from("abcdef")
MEMBERS = st.builds(lambda host, incarnation: MemberId(f"{host}.{incarnation}"), HOSTS, st.integers(1, 3))


@given(
    voters=st.sets(MEMBERS, min_size=1, max_size=7),
    learners=st.sets(MEMBERS, max_size=4),
    wanted=st.dictionaries(HOSTS, st.integers(1, 3), max_size=6),
    witnesses=st.sets(HOSTS, max_size=2),
    caught_up=st.sets(MEMBERS),
)
def test_every_change_can_be_carried_out_and_they_come_to_an_end(
    voters: set[MemberId],
    learners: set[MemberId],
    wanted: dict[str, int],
    witnesses: set[str],
    caught_up: set[MemberId],
) -> None:
    """Goal: any start reaches a fixed point of legal steps. Method: carry each change out at once."""
    leader = min(voters)
    membership = Membership.of(voters, learners - voters)
    aims = {MemberId(f"{host}.{each}"): host in witnesses for host, each in wanted.items()}
    aims = {member: is_witness and member not in voters | learners for member, is_witness in aims.items()}
    for _ in range(20):
        matched = {member: Index(10) for member in caught_up}
        change = next_membership_change(
            MembershipView(
                leader, membership, aims, Index(10), matched, tuple(host_of(each) for each in aims)
            )
        )
        if change is None:
            break
        assert find_problems(membership, change.target) == []
        assert leader in change.target.voters
        step = plan_change(membership, change.target)
        membership = leave_joint(step) if step.is_joint else step
    else:
        raise AssertionError(f"no end: {membership}")
    assert {each for each in aims if not aims[each]} <= set(membership.members)
