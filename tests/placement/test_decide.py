"""Placement: how many, where, and what does not move."""

from collections import Counter
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ids import VIP, FencingTerm, HostId, OwnedName, ServiceName, owned_service
from mesh.placement import (
    HostRoom,
    PlacementDecision,
    decide_placement,
    owners_of,
    placement_commands,
    rooms_of,
)
from mesh.state.commands import AdmitMember, AssignOwner, DrainHost, SetHostStatus, SetPlacement
from mesh.state.database_commands import ReportDatabase
from mesh.state.database_model import DatabaseRole, DatabaseStatus
from mesh.state.model import DeclaredService, HostStatus, MemberRole, Placement, Slot
from mesh.state.service import ServiceMode, ServiceSpec
from tests.state.model_state import Cluster, member

A, B, C, D = (HostId(f"host{n}") for n in (1, 2, 3, 4))
ECHO = ServiceName("echo")


def declared(
    name: str = "echo", count: int = 3, mode: ServiceMode = ServiceMode.ACTIVE_ACTIVE
) -> DeclaredService:
    spec = ServiceSpec(ServiceName(name), ("true",), mode, instances_min=count, instances_max=count)
    return DeclaredService(spec, version=1)


def rooms(*hosts: HostId) -> list[HostRoom]:
    return [HostRoom(host) for host in hosts]


def placed(name: str, *hosts: HostId) -> dict[ServiceName, Placement]:
    ordinals: Counter[HostId] = Counter()
    slots = []
    for host in hosts:
        slots.append(Slot(host, ordinals[host]))
        ordinals[host] += 1
    return {ServiceName(name): Placement(ServiceName(name), tuple(sorted(slots)), version=7)}


def hosts_of(decision: PlacementDecision) -> list[HostId]:
    return [slot.host for slot in decision.slots]


def test_three_instances_go_one_to_each_of_three_hosts() -> None:
    """Goal: one host's death takes one instance. Method: three hosts, nothing placed."""
    (decision,) = decide_placement([declared()], rooms(A, B, C), {}, {})
    assert hosts_of(decision) == [A, B, C]
    assert not decision.degraded


def test_the_instance_of_a_lost_host_goes_to_another_host_at_once() -> None:
    """Goal: capacity is back before the host is. Method: lose one of three; the reasons say so."""
    hosts = [HostRoom(A), HostRoom(B), HostRoom(C, alive=False)]
    (decision,) = decide_placement([declared()], hosts, placed("echo", A, B, C), {})
    assert hosts_of(decision) == [A, A, B]
    assert decision.reasons == ("host3 is lost", "one more on host1: 3 are wanted")


def test_a_host_that_returns_is_given_one_instance_back() -> None:
    """Goal: the cluster evens out by itself. Method: two on one host, an empty one."""
    (decision,) = decide_placement([declared()], rooms(A, B, C), placed("echo", A, A, B), {})
    assert decision.slots == (Slot(A, 0), Slot(B, 0), Slot(C, 0))


def test_a_difference_of_one_moves_nothing() -> None:
    """Goal: no instance is restarted for beauty. Method: three on two hosts; no command follows."""
    before = placed("echo", A, A, B)
    (decision,) = decide_placement([declared()], rooms(A, B), before, {})
    assert decision.slots == before[ECHO].slots
    assert decision.reasons == ()
    assert placement_commands([decision], before) == ()


def test_a_full_host_keeps_what_it_runs_and_is_given_nothing() -> None:
    """Goal: full does not mean evicted. Method: three wanted, one of two hosts full."""
    hosts = [HostRoom(A, full=True), HostRoom(B)]
    (decision,) = decide_placement([declared()], hosts, placed("echo", A), {})
    assert Counter(hosts_of(decision)) == {A: 1, B: 2}


def test_without_any_host_that_accepts_the_service_is_degraded_and_says_why() -> None:
    """Goal: the operator sees each host's reason. Method: full, draining and lost."""
    hosts = [HostRoom(A, full=True), HostRoom(B, draining=True), HostRoom(C, alive=False)]
    (decision,) = decide_placement([declared()], hosts, placed("echo", A, B, C), {})
    assert hosts_of(decision) == [A]
    assert decision.degraded == (
        "1 of 3 instances can be placed: host1 has no room, host2 is draining, host3 is lost or a witness"
    )


def test_without_hosts_nothing_is_placed() -> None:
    """Goal: a removed host's placement is not kept. Method: no hosts at all."""
    (decision,) = decide_placement([declared()], [], placed("echo", A), {})
    assert decision.slots == ()
    assert decision.degraded == "0 of 3 instances can be placed: there are no hosts"
    assert decision.reasons == ("host1 is no longer in the cluster",)


def test_services_of_one_instance_go_to_different_hosts() -> None:
    """Goal: small services do not all land on the first host. Method: three of one instance."""
    services = [declared(name, count=1) for name in ("one", "three", "two")]
    decisions = decide_placement(services, rooms(A, B, C), {}, {})
    assert sorted(host for each in decisions for host in hosts_of(each)) == [A, B, C]


def test_fewer_wanted_instances_leave_the_fullest_host_first() -> None:
    """Goal: scaling down keeps the spread. Method: from three to two."""
    (decision,) = decide_placement([declared(count=2)], rooms(A, B), placed("echo", A, A, B), {})
    assert decision.slots == (Slot(A, 0), Slot(B, 0))


def test_a_stopped_service_runs_nowhere() -> None:
    """Goal: stopped is not degraded. Method: placed and not placed before."""
    stopped = replace(declared(), stopped=True)
    (decision,) = decide_placement([stopped], rooms(A), placed("echo", A), {})
    assert decision.slots == ()
    assert not decision.degraded
    (already,) = decide_placement([stopped], rooms(A), {}, {})
    assert already.reasons == ()


@pytest.mark.parametrize("room", [HostRoom(B), HostRoom(B, draining=True), HostRoom(B, full=True)])
def test_an_active_standby_service_runs_on_its_owner_only(room: HostRoom) -> None:
    """Goal: placement never contradicts ownership, whatever the room.

    Method: owner free, draining and full.
    """
    service = declared("reporter", 1, ServiceMode.ACTIVE_STANDBY)
    owners: dict[OwnedName, HostId | None] = {owned_service(ServiceName("reporter")): B}
    (decision,) = decide_placement([service], [HostRoom(A), room], placed("reporter", A), owners)
    assert decision.slots == (Slot(B, 0),)
    assert decision.reasons == ("host2 owns it",)


@pytest.mark.parametrize(
    ("owner", "why"),
    [(None, "nobody owns it"), (A, "its owner host1 is lost"), (D, "its owner host4 is lost")],
)
def test_an_active_standby_service_without_a_living_owner_runs_nowhere(
    owner: HostId | None, why: str
) -> None:
    """Goal: two never act; none is told as a reason. Method: no owner, a lost one, an unknown one."""
    service = declared("reporter", 1, ServiceMode.ACTIVE_STANDBY)
    hosts = [HostRoom(A, alive=False), HostRoom(B)]
    owners = {owned_service(ServiceName("reporter")): owner}
    (decision,) = decide_placement([service], hosts, placed("reporter", B), owners)
    assert decision.slots == ()
    assert decision.degraded == f"reporter does not run: {why}"


def test_what_differs_is_proposed_from_the_version_it_was_decided_from() -> None:
    """Goal: a plan of an old state is refused, not applied. Method: one changed and one new placement."""
    before = placed("echo", A)
    decisions = decide_placement([declared(count=2), declared("new", 1)], rooms(A, B), before, {})
    assert placement_commands(decisions, before) == (
        SetPlacement(ECHO, (Slot(A, 0), Slot(B, 0)), 7),
        SetPlacement(ServiceName("new"), (Slot(A, 0),), 0),
    )


def test_rooms_and_owners_are_taken_from_the_applied_state() -> None:
    """Goal: all leaders see the same rooms. Method: witness, suspect, draining, lost and full."""
    cluster = Cluster()
    cluster.do(AdmitMember(member(D, role=MemberRole.WITNESS)))
    cluster.do(SetHostStatus(D, member(D).member, HostStatus.ALIVE))
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.SUSPECT))
    cluster.do(SetHostStatus(C, member(C).member, HostStatus.LOST))
    cluster.do(DrainHost(B, True))
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    cluster.do(ReportDatabase(A, member(A).member, DatabaseStatus(DatabaseRole.NONE)))
    assert rooms_of(cluster.state, full=[A]) == (
        HostRoom(A, full=True),
        HostRoom(B, draining=True, has_database=False),
        HostRoom(C, alive=False, has_database=False),
        HostRoom(D, alive=False, has_database=False),
    )
    assert owners_of(cluster.state) == {VIP: A}


def test_what_needs_the_database_goes_where_there_is_one() -> None:
    """Goal: no instance where it would end for want of DATABASE_URL. Method: one host of two carries none;
    what runs there stays; where no host carries one, the reason says so."""
    hosts = [HostRoom(A), HostRoom(B, has_database=False)]
    needy = declared("lcm", 2)
    needy = replace(needy, spec=replace(needy.spec, database=True))
    (decision,) = decide_placement([needy], hosts, {}, {})
    assert hosts_of(decision) == [A, A]
    (kept,) = decide_placement([needy], hosts, placed("lcm", A, B), {})
    assert hosts_of(kept) == [A, B]
    (none,) = decide_placement([needy], hosts[1:], {}, {})
    assert none.degraded == "0 of 2 instances can be placed: host2 carries no database"
    owned = replace(needy, spec=replace(needy.spec, mode=ServiceMode.ACTIVE_STANDBY))
    (nobody,) = decide_placement([owned], hosts[1:], {}, {})
    assert nobody.degraded == "lcm does not run: no host carries a database"


# ---- properties ---------------------------------------------------------------------

HOSTS = (A, B, C, D)
room = st.builds(HostRoom, st.just(A), st.booleans(), st.booleans(), st.booleans())
cluster = st.tuples(room, room, room, room).map(
    lambda each: [replace(found, host=host) for found, host in zip(each, HOSTS, strict=True)]
)
counts = st.dictionaries(st.sampled_from(["echo", "lcm", "web"]), st.integers(1, 7), min_size=1)
where = st.lists(st.sampled_from(HOSTS), max_size=8)


@st.composite
def situations(
    draw: st.DrawFn,
) -> tuple[list[DeclaredService], list[HostRoom], dict[ServiceName, Placement]]:
    services, current = [], {}
    for name, count in draw(counts).items():
        services.append(declared(name, count))
        current.update(placed(name, *draw(where)))
    return services, draw(cluster), current


@given(situations())
@settings(max_examples=120, deadline=None)
def test_every_decision_keeps_the_rules(
    situation: tuple[list[DeclaredService], list[HostRoom], dict[ServiceName, Placement]],
) -> None:
    """Never on a host that may not keep; as many as wanted if any host accepts; even; minimal."""
    services, hosts, current = situation
    keeping = {each.host for each in hosts if each.keeps}
    accepting = {each.host for each in hosts if each.accepts}
    decisions = decide_placement(services, hosts, current, {})
    for service, decision in zip(sorted(services, key=lambda s: s.spec.name), decisions, strict=True):
        wanted = service.spec.instances_min
        used = Counter(hosts_of(decision))
        assert set(used) <= keeping
        assert len(set(decision.slots)) == len(decision.slots) <= wanted
        assert bool(decision.degraded) == (len(decision.slots) < wanted)
        if accepting:
            assert len(decision.slots) == wanted
            least = min(used[host] for host in accepting)
            assert max(used.values()) - least <= 1
        stayed = {slot for slot in current[decision.service].slots if slot.host in keeping}
        assert len(stayed & set(decision.slots)) == most_that_can_stay(stayed, wanted, accepting, used)


def most_that_can_stay(stayed: set[Slot], wanted: int, accepting: set[HostId], used: Counter[HostId]) -> int:
    """A naive twin: each host keeps what it has, up to what it ends up with."""
    have = Counter(slot.host for slot in stayed)
    return sum(min(have[host], used[host]) for host in have)


@given(situations())
@settings(max_examples=60, deadline=None)
def test_deciding_again_changes_nothing(
    situation: tuple[list[DeclaredService], list[HostRoom], dict[ServiceName, Placement]],
) -> None:
    """Goal: placement comes to rest. Method: random situations, decided on their own outcome."""
    services, hosts, current = situation
    first = decide_placement(services, hosts, current, {})
    after = {each.service: Placement(each.service, each.slots, 8) for each in first}
    second = decide_placement(services, hosts, after, {})
    assert [each.slots for each in second] == [each.slots for each in first]
    assert placement_commands(second, after) == ()


@given(situations())
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_arguments_does_not_matter(
    situation: tuple[list[DeclaredService], list[HostRoom], dict[ServiceName, Placement]],
) -> None:
    """Goal: two leaders decide alike. Method: every order of services, hosts reversed."""
    services, hosts, current = situation
    expected = decide_placement(services, hosts, current, {})
    for shuffled in permutations(services):
        assert decide_placement(shuffled, reversed(hosts), current, {}) == expected


@given(situations())
@settings(max_examples=60, deadline=None)
def test_nothing_moves_while_every_host_is_well_and_even(
    situation: tuple[list[DeclaredService], list[HostRoom], dict[ServiceName, Placement]],
) -> None:
    """Goal: a lost host moves its own instances only. Method: place on well hosts, then lose each in turn."""
    services, hosts, _ = situation
    well = [replace(each, alive=True, draining=False, full=False) for each in hosts]
    first = decide_placement(services, well, {}, {})
    after = {each.service: Placement(each.service, each.slots, 8) for each in first}
    for lost in HOSTS:
        without = [replace(each, alive=each.host != lost) for each in well]
        moved = decide_placement(services, without, after, {})
        for old, new in zip(first, moved, strict=True):
            on_the_living = {slot for slot in old.slots if slot.host != lost}
            assert on_the_living <= set(new.slots), "only the lost host's instances move"
