"""What a host runs, holds and routes, from the applied state and its lease."""

from dataclasses import replace

from mesh.ids import VIP, FencingTerm, ServiceName, instance_id, owned_service
from mesh.state.commands import (
    ApplyService,
    AssignOwner,
    DrainHost,
    ReportInstances,
    RequestRelease,
    RestartService,
    SetHostStatus,
    SetPlacement,
    StopService,
)
from mesh.state.model import HostStatus, Slot
from mesh.state.service import ServiceMode
from sidecar.app.decide import Standing, desired, owed, releases, routing_view
from tests.state.model_state import ECHO, A, B, C, Cluster, member, spec, status

REPORTER = ServiceName("reporter")
LIVE = Standing(A, lease_live=True, leader=A)
FENCED = Standing(A, lease_live=False)


def cluster_with_echo() -> Cluster:
    cluster = Cluster()
    cluster.do(ApplyService(replace(spec(), routed=True)))
    cluster.do(SetPlacement(ECHO, (Slot(A, 0), Slot(B, 0), Slot(C, 0))))
    return cluster


def cluster_with_reporter() -> Cluster:
    cluster = Cluster()
    standby = replace(spec("reporter"), mode=ServiceMode.ACTIVE_STANDBY, instances_min=1, instances_max=1)
    cluster.do(ApplyService(standby))
    cluster.do(AssignOwner(owned_service(REPORTER), A, FencingTerm(0)))
    return cluster


def test_active_active_instances_run_where_they_are_placed_with_or_without_a_lease() -> None:
    """Goal: a cut-off host keeps serving until its grace ends. Method: live, fenced, over."""
    cluster = cluster_with_echo()
    for standing in (LIVE, FENCED):
        assert [each.instance for each in desired(cluster.state, standing).assignments] == ["echo@host1#0"]
    over = replace(FENCED, grace_over=True)
    assert desired(cluster.state, over).assignments == ()


def test_a_service_that_is_stopped_or_not_placed_runs_nowhere() -> None:
    """Goal: a declaration alone starts nothing. Method: declared only, then placed and stopped."""
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    assert desired(cluster.state, LIVE).assignments == ()
    stopped = cluster_with_echo()
    stopped.do(StopService(ECHO, keep=True))
    assert desired(stopped.state, LIVE).assignments == ()


def test_exclusive_things_are_held_only_by_their_owner_with_a_live_lease() -> None:
    """Goal: no right without both. Method: take away the lease, then the ownership."""
    cluster = cluster_with_reporter()
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    held = desired(cluster.state, LIVE)
    assert [(each.instance, each.fencing_term) for each in held.assignments] == [("reporter@host1#0", 1)]
    assert held.vip_term == 1
    for standing in (FENCED, Standing(B, lease_live=True)):
        given_up = desired(cluster.state, standing)
        assert (given_up.assignments, given_up.vip_term) == ((), None)


def test_a_hand_over_that_is_asked_for_ends_the_holding_at_once() -> None:
    """Goal: a planned move does not wait for the lease. Method: a successor is named."""
    cluster = cluster_with_reporter()
    cluster.do(RequestRelease(owned_service(REPORTER), B))
    assert desired(cluster.state, LIVE).assignments == ()


def test_a_restart_reaches_the_instances_one_after_the_other() -> None:
    """Goal: never two of a service down for a restart. Method: walk it through three hosts."""
    cluster = cluster_with_echo()
    hosts = (A, B, C)
    present = {
        host: {
            each.instance: each
            for each in desired(cluster.state, Standing(host, lease_live=True)).assignments
        }
        for host in hosts
    }
    for host in hosts:
        cluster.do(ReportInstances(host, member(host).member, (replace(status(host), spec_version=1),)))
    cluster.do(RestartService(ECHO))

    def told(host: str) -> list[int]:
        own = next(each for each in hosts if each == host)
        wanted = desired(cluster.state, Standing(own, lease_live=True), present[own]).assignments
        return [each.restart_nonce for each in wanted]

    followed: list[str] = []
    for host in hosts:
        assert [told(each)[0] for each in hosts] == [
            1 if each == host or each in followed else 0 for each in hosts
        ]
        present[host] = {
            each.instance: each
            for each in desired(cluster.state, Standing(host, lease_live=True), present[host]).assignments
        }
        running = replace(status(host), spec_version=1, restart_nonce=1)
        cluster.do(ReportInstances(host, member(host).member, (replace(running, ready=False),)))
        assert told(C) == ([0] if host != C else [1])  # nobody goes on while this one is not ready
        cluster.do(ReportInstances(host, member(host).member, (running,)))
        followed.append(host)


def test_what_is_given_up_is_reported_only_once_nothing_of_it_is_left() -> None:
    """Goal: a release is never a promise.

    Method: still running, gone, leaving, and a host that holds nothing.
    """
    cluster = cluster_with_reporter()
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    name = owned_service(REPORTER)
    nothing = releases(cluster.state, A, running=[], vip_held=False, leaving=False)
    assert nothing == {}  # it stays the owner: not running yet is no release
    cluster.do(RequestRelease(name, B))
    assert releases(cluster.state, A, running=[REPORTER], vip_held=True, leaving=False) == {}
    assert releases(cluster.state, A, running=[], vip_held=True, leaving=False) == {name: 1}
    assert releases(cluster.state, B, running=[], vip_held=False, leaving=True) == {}
    assert releases(cluster.state, A, running=[], vip_held=False, leaving=True) == {name: 1, VIP: 1}


def test_a_stopped_or_forgotten_service_gives_its_ownership_back() -> None:
    """Goal: no owner of what does not run. Method: stop it both ways."""
    name = owned_service(REPORTER)
    for keep in (True, False):
        cluster = cluster_with_reporter()
        cluster.do(StopService(REPORTER, keep=keep))
        assert releases(cluster.state, A, running=[], vip_held=False, leaving=False) == {name: 1}


def test_routes_believe_this_host_about_itself_and_the_state_about_others() -> None:
    """Goal: no call to an instance this host knows to be gone.

    Method: local and replicated readiness differ.
    """
    cluster = cluster_with_echo()
    for host in (A, B):
        cluster.do(ReportInstances(host, member(host).member, (status(host),)))
    cluster.do(SetHostStatus(C, member(C).member, HostStatus.LOST))
    cluster.do(DrainHost(B, draining=True))
    own = replace(status(A), ready=False)
    view = routing_view(cluster.state, LIVE, revision=9, own=[own], owns_vip=True)
    assert view.revision == 9
    assert {each.instance: each.ready for each in view.instances} == {
        instance_id(ECHO, A, 0): False,
        instance_id(ECHO, B, 0): True,
    }
    assert view.hosts_out == (B, C)
    assert (view.owns_vip, view.northbound_open, view.leader) == (True, True, A)
    assert view.hosts_suspect == ()
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.SUSPECT))
    assert routing_view(cluster.state, LIVE, revision=9, own=[own], owns_vip=True).hosts_suspect == (B,)
    closed = routing_view(cluster.state, FENCED, revision=9, own=[], owns_vip=True)
    assert (closed.owns_vip, closed.northbound_open) == (False, False)


def test_what_was_released_is_never_acted_for_again_under_that_number() -> None:
    """A service that is stopped and started again may still be named for its old holder."""
    cluster = cluster_with_reporter()
    name = owned_service(REPORTER)
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    given = replace(LIVE, released={name: FencingTerm(1), VIP: FencingTerm(1)})
    seen = desired(cluster.state, given)
    assert (seen.assignments, seen.vip_term) == ((), None)
    cluster.do(AssignOwner(name, A, FencingTerm(1)))
    assert [each.fencing_term for each in desired(cluster.state, given).assignments] == [2]


def test_what_is_asked_for_and_not_released_is_owed_with_its_grace() -> None:
    """Goal: the stop knows how long to wait for what.

    Method: before the request, after it, after one release.
    """
    cluster = cluster_with_reporter()
    name = owned_service(REPORTER)
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    assert owed(cluster.state, A, {}) == {}
    cluster.do(RequestRelease(name, B))
    cluster.do(RequestRelease(VIP, B))
    assert owed(cluster.state, A, {}) == {name: spec("reporter").grace_ms, VIP: 0}
    assert owed(cluster.state, A, {VIP: FencingTerm(1)}) == {name: spec("reporter").grace_ms}
    assert owed(cluster.state, B, {}) == {}
