"""The next membership change follows the members of the state and never costs a quorum."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.ids import Index, MemberId, host_of
from mesh.raft.confchange import find_problems, leave_joint, plan_change
from mesh.raft.model import Membership
from sidecar.membership.decide import MembershipView, next_membership_change


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
    assert target(view("a.1", wanted="a.1 b.1 c.1")) == Membership.of(ids("a.1"), ids("b.1", "c.1"))


def test_one_learner_alone_stays_a_learner() -> None:
    assert target(view("a.1", "b.1", wanted="a.1 b.1", caught_up="b.1")) is None
    assert target(view("a.1", "b.1 c.1", wanted="a.1 b.1 c.1", caught_up="b.1")) is None


def test_two_learners_that_have_caught_up_vote_together() -> None:
    now = view("a.1", "b.1 c.1", wanted="a.1 b.1 c.1", caught_up="b.1 c.1")
    assert target(now) == Membership.of(ids("a.1", "b.1", "c.1"))


def test_a_fourth_host_learns_and_a_fifth_makes_five_voters() -> None:
    four = view("a.1 b.1 c.1", "d.1", wanted="a.1 b.1 c.1 d.1", caught_up="b.1 c.1 d.1")
    assert target(four) is None
    five = view("a.1 b.1 c.1", "d.1 e.1", wanted="a.1 b.1 c.1 d.1 e.1", caught_up="d.1 e.1")
    assert target(five) == Membership.of(ids("a.1", "b.1", "c.1", "d.1", "e.1"))


def test_a_learner_that_lags_or_is_silent_does_not_vote() -> None:
    lagging = view("a.1 b.1", "c.1", wanted="a.1 b.1 c.1")
    assert target(lagging) is None
    object.__setattr__(lagging, "matched", {MemberId("c.1"): Index(935)})
    assert target(lagging) is None
    object.__setattr__(lagging, "matched", {MemberId("c.1"): Index(936)})
    assert target(lagging) == Membership.of(ids("a.1", "b.1", "c.1"))


def test_a_host_that_comes_back_empty_changes_places_in_one_step_when_it_has_caught_up() -> None:
    joined = view("a.1 b.1 c.1", wanted="a.1 b.1 c.2")
    assert target(joined) == Membership.of(ids("a.1", "b.1", "c.1"), ids("c.2"))
    learning = view("a.1 b.1 c.1", "c.2", wanted="a.1 b.1 c.2")
    assert target(learning) is None
    done = view("a.1 b.1 c.1", "c.2", wanted="a.1 b.1 c.2", caught_up="c.2")
    assert target(done) == Membership.of(ids("a.1", "b.1", "c.2"))


def test_a_host_that_came_back_twice_leaves_nothing_behind() -> None:
    now = view("a.1 b.1 c.1", "c.2 c.3", wanted="a.1 b.1 c.3", caught_up="c.2")
    assert target(now) == Membership.of(ids("a.1", "b.1", "c.1"), ids("c.3"))


def test_a_removed_host_goes_at_once_and_its_replacement_votes_when_ready() -> None:
    assert target(view("a.1 b.1 c.1", wanted="a.1 b.1")) == Membership.of(ids("a.1", "b.1"))
    assert target(view("a.1 b.1", "d.1", wanted="a.1 b.1 d.1", caught_up="d.1")) == Membership.of(
        ids("a.1", "b.1", "d.1")
    )


def test_the_leader_is_never_taken_out() -> None:
    assert target(view("a.1 b.1 c.1", wanted="b.1 c.1")) is None


def test_a_witness_votes_when_it_is_there_and_makes_the_number_odd() -> None:
    absent = view("a.1", "b.1", wanted="a.1 b.1", wanted_witnesses="w.1", caught_up="b.1")
    assert target(absent) is None
    there = view("a.1", "b.1", wanted="a.1 b.1", wanted_witnesses="w.1", caught_up="b.1", beating="w.1")
    assert target(there) == Membership.of(ids("a.1", "b.1", "w.1"), (), ids("w.1"))


def test_a_removed_witness_goes() -> None:
    now = view("a.1 b.1", wanted="a.1 b.1", witnesses="w.1")
    assert target(now) == Membership.of(ids("a.1", "b.1"))


def test_nothing_is_proposed_while_a_change_is_under_way() -> None:
    now = view("a.1", wanted="a.1 b.1")
    joint = Membership(voters=ids("a.1", "b.1"), outgoing=ids("a.1"))
    assert next_membership_change(MembershipView(MemberId("a.1"), joint, now.wanted, Index(1), {})) is None


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
