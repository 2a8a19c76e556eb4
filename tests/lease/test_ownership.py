"""Who should own what, and the next safe step there."""

from dataclasses import replace

from mesh.ids import VIP, FencingTerm, HostId, Index, OwnedName, ServiceName, owned_service
from mesh.lease.grantor import LeaseTable
from mesh.lease.model import (
    Assign,
    Decision,
    ElectedBy,
    Election,
    HostView,
    OwnershipSituation,
    OwnershipView,
    RequestRelease,
    Target,
    Unassign,
    WaitUntil,
)
from mesh.lease.ownership import decide_ownerships
from mesh.lease.timers import LeaseTimers

A, B, C = HostId("a"), HostId("b"), HostId("c")
REPORTER = owned_service(ServiceName("reporter"))
TIMERS = LeaseTimers()
NOW = 10**12
ALL = {host: HostView(host, alive=True, load=load) for host, load in ((A, 9), (B, 3), (C, 2))}


def situation(
    *ownerships: OwnershipView,
    hosts: dict[HostId, HostView] | None = None,
    wanted: tuple[OwnedName, ...] = (REPORTER,),
) -> OwnershipSituation:
    return OwnershipSituation(A, tuple((hosts or ALL).values()), wanted, ownerships)


def table(*silent: HostId, elected_at: int = NOW - 60 * 10**9) -> LeaseTable:
    """All hosts were granted just now, but for the silent ones."""
    leases = LeaseTable(A, Election(elected_at, ElectedBy.TIMEOUT, None, 0), TIMERS)
    leases.state_applied((), Index(1))
    for host in (B, C):
        if host not in silent:
            assert leases.grant(host, NOW, quorum_confirmed_at=NOW, applied_index=Index(1))
    return leases


def without(host: HostId, **change: object) -> dict[HostId, HostView]:
    return ALL | {host: replace(ALL[host], **change)}  # type: ignore[arg-type]  # one of its fields


def decide(asked: OwnershipSituation, leases: LeaseTable | None = None) -> tuple[Decision, ...]:
    return decide_ownerships(asked, leases or table(), NOW)


def held(name: OwnedName, holder: HostId, successor: HostId | None = None) -> OwnershipView:
    return OwnershipView(name, holder, FencingTerm(4), successor)


def test_what_needs_the_database_is_owned_where_there_is_one() -> None:
    """Goal: no owner that cannot act. Method: a leader without a database; who has it already keeps it."""
    needy = replace(situation(hosts=without(A, has_database=False)), on_database=[REPORTER])
    assert decide(needy) == (Assign(REPORTER, C, FencingTerm(0)),)
    assert decide(replace(needy, ownerships=(held(REPORTER, A),))) == ()


def test_new_names_go_to_the_leader_in_name_order() -> None:
    """Goal: every leader would decide the same. Method: two unowned names, given in the other order."""
    assert decide(situation(wanted=(VIP, REPORTER))) == (
        Assign(REPORTER, A, FencingTerm(0)),
        Assign(VIP, A, FencingTerm(0)),
    )


def test_a_service_goes_to_the_least_loaded_host_when_the_leader_is_drained() -> None:
    """Goal: load spreads and ties do not flap. Method: the leader is drained; then equal loads."""
    hosts = without(A, draining=True)
    assert decide(situation(hosts=hosts)) == (Assign(REPORTER, C, FencingTerm(0)),)
    hosts[C] = replace(hosts[C], load=3)
    assert decide(situation(hosts=hosts)) == (Assign(REPORTER, B, FencingTerm(0)),)


def test_a_name_that_is_decided_elsewhere_goes_where_that_says_and_stays_otherwise() -> None:
    """Goal: fitness does not overrule a failover. Method: a drained target, none, the holder renewed."""
    asked = replace(
        situation(held(REPORTER, B), hosts=without(C, draining=True)), targets={REPORTER: Target(C)}
    )
    waiting = WaitUntil(REPORTER, NOW + TIMERS.cleared_ns)
    assert decide(asked) == (RequestRelease(REPORTER, C, FencingTerm(4)), waiting)
    assert decide(replace(asked, targets={REPORTER: Target(None)})) == ()
    assert decide(replace(asked, targets={REPORTER: Target(B)})) == ()
    assert decide(replace(asked, targets={REPORTER: Target(B, renew=True)})) == (
        Assign(REPORTER, B, FencingTerm(4)),
    )


def test_a_fit_holder_keeps_its_service() -> None:
    """Goal: no move without a reason. Method: a healthy holder that is not the leader."""
    assert decide(situation(held(REPORTER, B))) == ()


def test_with_every_host_drained_nothing_moves_and_nobody_is_given_anything() -> None:
    """Goal: draining the last host stops nothing by itself. Method: owned names, and one that nobody owns."""
    hosts = {host: replace(view, draining=True) for host, view in without(A).items()}
    assert decide(situation(held(REPORTER, B), hosts=hosts)) == ()
    assert decide(situation(held(VIP, A), hosts=hosts, wanted=(VIP,))) == ()
    assert decide(situation(wanted=(REPORTER,), hosts=hosts)) == ()


def test_a_fit_holder_that_has_released_gets_a_new_number() -> None:
    """Goal: who released is never left with a right it gave up. Method: release, holder still fit."""
    leases = table()
    leases.released(B, REPORTER, FencingTerm(4))
    assert decide(situation(held(REPORTER, B)), leases) == (Assign(REPORTER, B, FencingTerm(4)),)


def test_a_silent_holder_is_waited_out_and_then_replaced() -> None:
    """Goal: no second actor before the first is certainly done.

    Method: a dead holder granted just now, and one that was not.
    """
    hosts = without(B, alive=False)
    granted_now = NOW + TIMERS.cleared_ns
    assert decide(situation(held(REPORTER, B), hosts=hosts)) == (WaitUntil(REPORTER, granted_now),)
    expected = (Assign(REPORTER, A, FencingTerm(4)),)
    assert decide(situation(held(REPORTER, B), hosts=hosts), table(B)) == expected


def test_a_live_holder_that_should_give_way_is_asked_once() -> None:
    """Goal: moves are asked for before they are forced, without nagging.

    Method: drained or outdated, before and after the request.
    """
    waiting = WaitUntil(REPORTER, NOW + TIMERS.cleared_ns)
    for hosts in (without(B, draining=True), without(B, current=False)):
        asked = situation(held(REPORTER, B), hosts=hosts)
        assert decide(asked) == (RequestRelease(REPORTER, A, FencingTerm(4)), waiting)
        asked = situation(held(REPORTER, B, successor=A), hosts=hosts)
        assert decide(asked) == (waiting,)


def test_after_the_release_the_successor_is_assigned_at_once() -> None:
    """Goal: a planned move costs no lease. Method: the holder has released to its successor."""
    leases = table()
    leases.released(B, REPORTER, FencingTerm(4))
    asked = situation(held(REPORTER, B, successor=A), hosts=without(B, draining=True))
    assert decide(asked, leases) == (Assign(REPORTER, A, FencingTerm(4)),)


def test_the_virtual_ip_follows_the_leader() -> None:
    """Goal: clients reach the leader, unless it is leaving.

    Method: the address on another host, leader fit and draining.
    """
    asked = situation(held(VIP, B), wanted=(VIP,))
    waiting = WaitUntil(VIP, NOW + TIMERS.cleared_ns)
    assert decide(asked) == (RequestRelease(VIP, A, FencingTerm(4)), waiting)
    draining_leader = situation(held(VIP, B), wanted=(VIP,), hosts=without(A, draining=True))
    assert decide(draining_leader) == ()


def test_a_hand_over_that_is_no_longer_wanted_goes_back_to_its_holder() -> None:
    """Goal: an undone drain leaves nobody half released. Method: a successor named for a fit holder."""
    assert decide(situation(held(REPORTER, B, successor=A))) == (Assign(REPORTER, B, FencingTerm(4)),)
    assert decide(situation(held(REPORTER, B, successor=B))) == ()


def test_a_holder_that_left_the_cluster_is_waited_out() -> None:
    """Goal: removal does not prove that a host has stopped.

    Method: an unknown holder, under an old and a young leader.
    """
    asked = situation(held(REPORTER, HostId("gone")))
    assert decide(asked, table()) == (Assign(REPORTER, A, FencingTerm(4)),)
    young = table(elected_at=NOW)
    assert decide(asked, young) == (WaitUntil(REPORTER, NOW + TIMERS.cleared_ns),)


def test_nothing_is_decided_while_no_host_is_fit() -> None:
    """Goal: no assignment to the dead. Method: all hosts lost, with and without a holder."""
    hosts = {host: replace(view, alive=False) for host, view in ALL.items()}
    assert decide(situation(hosts=hosts)) == ()
    assert decide(situation(held(REPORTER, B), hosts=hosts), table(B)) == ()


def test_an_unwanted_ownership_ends_when_its_holder_is_certainly_done() -> None:
    """Goal: a removed service is not forgotten while it may act.

    Method: holder granted just now, then not.
    """
    asked = situation(held(REPORTER, B), wanted=())
    assert decide(asked) == (WaitUntil(REPORTER, NOW + TIMERS.cleared_ns),)
    assert decide(asked, table(B)) == (Unassign(REPORTER, FencingTerm(4)),)
