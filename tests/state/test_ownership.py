"""Ownership: fencing terms only rise, whatever happens in between."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ids import VIP, FencingTerm, HostId, OwnedName, ServiceName, owned_service
from mesh.state import Applied
from mesh.state.commands import (
    ApplyService,
    AssignOwner,
    Command,
    RemoveMember,
    RequestRelease,
    SetHostStatus,
    StopService,
    Unassign,
)
from mesh.state.model import HostStatus
from tests.state.model_state import A, B, C, Cluster, member, spec

REPORTER = owned_service(ServiceName("reporter"))


def term(number: int) -> FencingTerm:
    return FencingTerm(number)


def test_each_assignment_gets_the_next_term_also_to_the_same_host() -> None:
    """Goal: a resource can tell any two holders apart. Method: assign to the same host, then to another."""
    cluster = Cluster()
    assert cluster.do(AssignOwner(VIP, A, term(0))).fencing_term == 1
    assert cluster.do(AssignOwner(VIP, A, term(1))).fencing_term == 2
    assert cluster.do(AssignOwner(VIP, B, term(2))).fencing_term == 3
    assert cluster.state.owners[VIP].holder == B
    assert cluster.events("ownership-assigned")[-1] == "host2 owns vip under fencing term 3"


def test_an_assignment_decided_before_another_one_is_stale() -> None:
    """Goal: of two decisions from one state one wins. Method: assign twice from term 0."""
    cluster = Cluster()
    cluster.do(AssignOwner(VIP, A, term(0)))
    refusal = cluster.refuse(AssignOwner(VIP, B, term(0)))
    assert refusal.reason == "STALE_TERM"
    assert dict(refusal.metadata) == {"fencing_term": "1", "expected": "0"}


def test_terms_go_on_after_unassign_and_after_the_service_was_removed_and_came_back() -> None:
    """Goal: no deletion resets the fence. Method: release, remove and declare again, in steps."""
    cluster = Cluster()
    cluster.do(ApplyService(spec("reporter")))
    cluster.do(AssignOwner(REPORTER, A, term(0)))
    cluster.do(Unassign(REPORTER, term(1)))
    assert cluster.state.owners[REPORTER].holder is None
    assert cluster.do(Unassign(REPORTER, term(1))).unchanged
    cluster.do(AssignOwner(REPORTER, B, term(1)))
    cluster.do(StopService(ServiceName("reporter")))
    assert cluster.state.owners[REPORTER].holder == B, "the holder still acts until it has released"
    cluster.do(Unassign(REPORTER, term(2)))
    assert REPORTER not in cluster.state.owners
    cluster.do(ApplyService(spec("reporter")))
    assert cluster.state.fencing_term(REPORTER) == 2
    assert cluster.do(AssignOwner(REPORTER, C, term(2))).fencing_term == 3


def test_a_lost_or_unknown_host_is_given_nothing() -> None:
    """Goal: no ownership that nobody can use. Method: a lost host, a stranger, malformed names."""
    cluster = Cluster()
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.LOST, "no beat for 1.3 s"))
    assert cluster.refuse(AssignOwner(VIP, B, term(0))).reason == "CONFLICT"
    assert cluster.refuse(AssignOwner(VIP, HostId("host9"), term(0))).reason == "NOT_FOUND"
    assert cluster.refuse(AssignOwner(OwnedName("No Name"), A, term(0))).reason == "INVALID_REQUEST"
    assert cluster.refuse(AssignOwner(OwnedName("service/-"), A, term(0))).reason == "INVALID_REQUEST"


def test_a_release_names_a_successor_and_can_be_withdrawn() -> None:
    """Goal: a request to move never outlives the move.

    Method: ask, repeat, withdraw, ask again and assign.
    """
    cluster = Cluster()
    assert cluster.refuse(RequestRelease(VIP, B)).reason == "NOT_FOUND"
    cluster.do(AssignOwner(VIP, A, term(0)))
    assert cluster.refuse(RequestRelease(VIP, A)).reason == "INVALID_REQUEST"
    assert cluster.do(RequestRelease(VIP, B)).fencing_term == 1
    assert cluster.do(RequestRelease(VIP, B)).unchanged
    assert cluster.state.owners[VIP].successor == B
    cluster.do(RequestRelease(VIP, None))
    assert cluster.state.owners[VIP].successor is None
    cluster.do(RequestRelease(VIP, C))
    cluster.do(AssignOwner(VIP, C, term(1)))
    assert cluster.state.owners[VIP].successor is None


def test_a_late_request_to_release_does_not_hit_the_next_owner() -> None:
    """Goal: a request asks the holder it was decided for. Method: decided under term 1, applied under 2."""
    cluster = Cluster()
    cluster.do(AssignOwner(VIP, A, term(0)))
    assert not cluster.do(RequestRelease(VIP, B, term(1))).unchanged
    cluster.do(AssignOwner(VIP, B, term(1)))
    assert cluster.refuse(RequestRelease(VIP, C, term(1))).reason == "STALE_TERM"
    assert cluster.state.owners[VIP].successor is None
    cluster.do(RequestRelease(VIP, C))  # as in a log of before
    assert cluster.state.owners[VIP].successor == C


def test_a_release_of_an_earlier_term_does_not_take_the_thing_from_its_new_holder() -> None:
    """Goal: a late release harms nobody. Method: release term 1 when term 2 is held."""
    cluster = Cluster()
    assert cluster.refuse(Unassign(VIP, term(0))).reason == "NOT_FOUND"
    cluster.do(AssignOwner(VIP, A, term(0)))
    cluster.do(AssignOwner(VIP, B, term(1)))
    assert cluster.refuse(Unassign(VIP, term(1))).reason == "STALE_TERM"
    assert cluster.state.owners[VIP].holder == B


def test_a_thing_of_no_service_and_one_that_is_no_longer_held_are_unassigned_too() -> None:
    """Goal: no row stays behind for ever.

    Method: a thing without service; a service stopped when nobody holds it.
    """
    cluster = Cluster()
    primary = OwnedName("postgres-primary")
    cluster.do(AssignOwner(primary, A, term(0)))
    cluster.do(Unassign(primary, term(1)))
    assert cluster.state.owners[primary].holder is None
    cluster.do(ApplyService(spec("reporter")))
    cluster.do(AssignOwner(REPORTER, A, term(0)))
    cluster.do(Unassign(REPORTER, term(1)))
    cluster.do(StopService(ServiceName("reporter")))
    cluster.do(Unassign(REPORTER, term(1)))
    assert REPORTER not in cluster.state.owners
    assert len(cluster.events("ownership-released")) == 2


names = st.sampled_from([VIP, REPORTER])
hosts = st.sampled_from([A, B, C])
terms = st.integers(0, 6).map(FencingTerm)
steps = st.lists(
    st.one_of(
        st.builds(AssignOwner, names, hosts, terms),
        st.builds(Unassign, names, terms),
        st.builds(RequestRelease, names, st.one_of(st.none(), hosts)),
        st.just(ApplyService(spec("reporter"))),
        st.just(StopService(ServiceName("reporter"))),
        hosts.map(lambda host: RemoveMember(member(host).member)),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=150, deadline=None)
def test_no_sequence_of_commands_makes_a_term_come_twice(commands: list[Command]) -> None:
    """Goal: fencing terms strictly rise. Method: random commands against the highest term seen."""
    cluster = Cluster()
    highest = {VIP: 0, REPORTER: 0}
    for command in commands:
        outcome = cluster.apply(command).outcome
        if isinstance(command, AssignOwner) and isinstance(outcome, Applied):
            assert outcome.fencing_term > highest[command.name]
            highest[command.name] = outcome.fencing_term
        for name, seen in highest.items():
            assert cluster.state.fencing_term(name) == seen
            owned = cluster.state.owners.get(name)
            assert owned is None or owned.fencing_term == seen
            assert owned is None or owned.holder is None or owned.holder in cluster.state.hosts
