"""Which routes follow from a view; no Envoy, no network."""

from dataclasses import replace

import pytest

from mesh.errors import InvariantBroken
from mesh.ids import HostId, InstanceId, ServiceName
from mesh.state.service import (
    InstanceState,
    InstanceStatus,
    MethodPolicy,
    Probe,
    ProbeKind,
    Probes,
    ServiceSpec,
)
from sidecar.routing.decide import check_consistent, decide
from sidecar.routing.model import (
    AggregateCluster,
    ApiListener,
    CertificatePaths,
    Cluster,
    Endpoint,
    Endpoints,
    HealthCheck,
    IngressListener,
    LocalCluster,
    NorthboundListener,
    ProxylessCluster,
    Route,
    Routes,
    RoutingSettings,
    RoutingView,
    Snapshot,
)
from sidecar.routing.retries import HEDGE_MS_MAX, HEDGE_MS_MIN, IDEMPOTENT, NEVER_SENT, hedge_ms, retry_of

HOSTS = (HostId("host1"), HostId("host2"), HostId("host3"))
PLAIN = RoutingSettings("c0ffee", HostId("host1"), "/run/t", "127.0.0.1:8080", vip_address="127.0.0.9:8080")
SECURE = replace(PLAIN, identity=CertificatePaths("c", "k", "a"))
ECHO = ServiceSpec(ServiceName("echo"), ("echo",), routed=True, grpc_services=("t.Echo",))


def instance(host: str, *, ready: bool = True, service: str = "echo", **other: str) -> InstanceStatus:
    number = host.removeprefix("host")
    addresses = {"address": f"127.0.0.{number}:2000", "ingress": f"127.0.0.{number}:3000"} | other
    return InstanceStatus(
        instance=InstanceId(f"{service}@{host}#0"),
        service=ServiceName(service),
        host=HostId(host),
        generation=1,
        state=InstanceState.RUNNING,
        ready=ready,
        address=addresses["address"],
        ingress=addresses["ingress"],
    )


def view(*instances: InstanceStatus, **other: object) -> RoutingView:
    values = {"services": (ECHO,), "hosts": HOSTS} | other
    return RoutingView(7, instances=instances, **values)  # type: ignore[arg-type]  # test data


def endpoints(snapshot: Snapshot, name: str = "echo") -> tuple[Endpoint, ...]:
    return next(each.endpoints for each in snapshot.endpoints if each.name == name)


# ---- endpoints ------------------------------------------------------------------


def test_local_instances_are_reached_plainly_and_remote_ones_by_mtls() -> None:
    """Goal: no plain byte between hosts, no needless hop within one. Method: one instance on each."""
    snapshot = decide(view(instance("host2"), instance("host1")), SECURE).envoy
    assert endpoints(snapshot) == (
        Endpoint("127.0.0.1:2000"),
        Endpoint("127.0.0.2:3000", peer="host2"),
    )


@pytest.mark.parametrize(
    "excluded",
    [
        instance("host2", ready=False),
        instance("host2", ingress=""),
        instance("host2", address=""),
        instance("host2", address="127.0.0.2"),
        instance("host2", address=":80"),
        instance("host2", address="127.0.0.2:0"),
        instance("host2", address="127.0.0.2:99999"),
        instance("host2", ingress="127.0.0.2:http"),
        instance("host9"),
        instance("host2", service="other"),
    ],
)
def test_what_is_not_ready_or_not_reachable_is_no_endpoint(excluded: InstanceStatus) -> None:
    """Goal: one bad report does not spoil a snapshot. Method: each flaw beside a sound instance."""
    snapshot = decide(view(instance("host1"), excluded), SECURE).envoy
    assert endpoints(snapshot) == (Endpoint("127.0.0.1:2000"),)


def test_an_instance_may_listen_on_a_unix_socket() -> None:
    """Goal: such an address is not torn into host and port. Method: a local one."""
    snapshot = decide(view(instance("host1", address="unix:/run/echo.sock")), SECURE).envoy
    assert endpoints(snapshot) == (Endpoint("unix:/run/echo.sock"),)


def test_hosts_that_are_out_get_no_traffic() -> None:
    """Goal: a lost or draining host gets no call. Method: two ready instances, one host out."""
    snapshot = decide(view(instance("host1"), instance("host2"), hosts_out=(HOSTS[1],)), SECURE).envoy
    assert endpoints(snapshot) == (Endpoint("127.0.0.1:2000"),)


def test_suspect_hosts_get_traffic_only_where_there_are_no_others() -> None:
    """Goal: a silent host costs no call, and a slow one is better than none."""
    suspects = (HOSTS[1], HOSTS[2])
    passed_over = decide(view(instance("host1"), instance("host2"), hosts_suspect=suspects), SECURE).envoy
    assert passed_over.endpoints == (Endpoints("echo", (Endpoint("127.0.0.1:2000"),)),)
    alone = decide(view(instance("host2"), instance("host3"), hosts_suspect=suspects), SECURE).envoy
    assert [len(each.endpoints) for each in alone.endpoints] == [2]


def test_without_an_identity_only_this_host_is_reached_and_no_ingress_is_open() -> None:
    """Goal: without certificates nothing is exposed. Method: two instances, no identity."""
    snapshot = decide(view(instance("host1"), instance("host2")), PLAIN).envoy
    assert endpoints(snapshot) == (Endpoint("127.0.0.1:2000"),)
    assert [each.name for each in snapshot.listeners] == ["northbound/host"]


def test_services_that_are_not_routed_are_left_out() -> None:
    """Goal: an internal service is not reachable from outside. Method: the same service, unrouted."""
    snapshot = decide(view(instance("host1"), services=(replace(ECHO, routed=False),)), SECURE).envoy
    assert snapshot.clusters == ()
    assert [type(each) for each in snapshot.listeners] == [NorthboundListener]


# ---- clusters -------------------------------------------------------------------


def test_envoy_asks_what_the_grpc_probe_asks() -> None:
    """Goal: Envoy and sidecar agree on health. Method: a service with and one without a gRPC probe."""
    http, grpc = Probe(ProbeKind.HTTP), Probe(ProbeKind.GRPC, target="live")
    asked = replace(ECHO, probes=Probes(readiness=http, liveness=grpc))
    silent = replace(ECHO, name=ServiceName("quiet"), probes=Probes(readiness=http))
    snapshot = decide(view(services=(asked, silent)), SECURE).envoy
    assert snapshot.clusters == (
        Cluster("echo", ("host2", "host3"), HealthCheck("live")),
        Cluster("quiet", ("host2", "host3")),
    )


def test_a_method_for_the_leader_goes_to_the_leaders_instance() -> None:
    """Goal: never to another host, rather to none. Method: with a leader and without."""
    policy = MethodPolicy("/t.Echo/Lead", leader_required=True)
    seen = view(instance("host1"), instance("host2"), services=(replace(ECHO, methods=(policy,)),))
    snapshot = decide(replace(seen, leader=HOSTS[1]), SECURE).envoy
    assert snapshot.routes[0].routes[0].cluster == "echo/leader"
    assert endpoints(snapshot, "echo/leader") == (Endpoint("127.0.0.2:3000", peer="host2"),)
    assert endpoints(decide(seen, SECURE).envoy, "echo/leader") == ()


def test_the_collector_is_a_cluster_when_there_is_one() -> None:
    """Goal: spans have somewhere to go. Method: settings with its address."""
    snapshot = decide(view(), replace(PLAIN, otlp_address="127.0.0.1:4317")).envoy
    assert LocalCluster("trellis/otlp", "127.0.0.1:4317", http2=True) in snapshot.clusters


# ---- listeners and routes -------------------------------------------------------


def test_each_local_routed_instance_has_an_ingress_ready_or_not() -> None:
    """Goal: an instance is reachable the moment others learn that it is ready.

    Method: an unready local one.
    """
    snapshot = decide(view(instance("host1", ready=False), instance("host2")), SECURE).envoy
    ingress = [each for each in snapshot.listeners if isinstance(each, IngressListener)]
    name = "ingress/echo@host1#0"
    assert ingress == [IngressListener(name, "127.0.0.1:3000", name)]
    assert LocalCluster(name, "127.0.0.1:2000") in snapshot.clusters


def test_only_the_owner_listens_on_the_virtual_ip() -> None:
    """Goal: two hosts never answer on it. Method: owner, other, and no such address."""
    mine = decide(view(owns_vip=True), PLAIN).envoy
    assert [each.name for each in mine.listeners] == ["northbound/host", "northbound/vip"]
    assert [each.name for each in decide(view(), PLAIN).envoy.listeners] == ["northbound/host"]
    none = decide(view(owns_vip=True), replace(PLAIN, vip_address="")).envoy
    assert [each.name for each in none.listeners] == ["northbound/host"]


def test_a_closed_host_has_no_northbound_listener_and_answers_unavailable() -> None:
    """Goal: a fenced host serves nobody, and says so on open connections. Method: closed, but owner."""
    snapshot = decide(view(instance("host1"), northbound_open=False, owns_vip=True), SECURE).envoy
    assert [type(each) for each in snapshot.listeners] == [IngressListener]
    assert snapshot.routes == (Routes("northbound", (Route("/", cluster=""),)),)


def test_a_draining_host_takes_no_connection_and_serves_those_it_has() -> None:
    """Goal: a drain fails no call. Method: no listener, routes as before."""
    snapshot = decide(view(instance("host1"), draining=True), PLAIN).envoy
    assert snapshot.listeners == ()
    assert snapshot.routes[0].routes[0].cluster == "echo"


def test_methods_with_a_policy_come_before_their_service() -> None:
    """Goal: the service's prefix does not swallow a method's policy.

    Method: two methods in the wrong order.
    """
    policies = (MethodPolicy("/t.Echo/B", timeout_ms=9), MethodPolicy("/t.Echo/A", idempotent=True))
    snapshot = decide(view(services=(replace(ECHO, methods=policies),)), PLAIN).envoy
    assert [route.path for route in snapshot.routes[0].routes] == ["/t.Echo/A", "/t.Echo/B", "/t.Echo/"]
    assert snapshot.routes[0].routes[1].timeout_ms == 9


# ---- retries --------------------------------------------------------------------


def test_only_idempotent_methods_are_repeated() -> None:
    """Goal: no call is done twice by a retry or a hedge.

    Method: without a policy, with one, with an idempotent one.
    """
    for policy in (None, MethodPolicy("/t.Echo/A")):
        assert retry_of(policy).conditions == NEVER_SENT
        assert retry_of(policy).hedge_ms == 0
    repeated = retry_of(MethodPolicy("/t.Echo/A", idempotent=True, timeout_ms=5_000))
    assert repeated.conditions == IDEMPOTENT
    assert repeated.hedge_ms == 100


def test_a_slow_method_is_doubled_later_but_within_bounds() -> None:
    """Goal: hedging does not double the load of slow methods. Method: timeouts at both ends and none."""
    assert [hedge_ms(timeout) for timeout in (1, 10_000, 0, 10**9)] == [HEDGE_MS_MIN, 200, 600, HEDGE_MS_MAX]


# ---- proxyless ------------------------------------------------------------------


def test_a_proxyless_client_prefers_this_host_and_falls_back_to_mtls() -> None:
    """Goal: the same reach without a proxy. Method: compare all resources of a snapshot."""
    snapshot = decide(view(instance("host1"), instance("host2")), SECURE).proxyless
    assert snapshot.listeners == (ApiListener("echo", "echo"),)
    assert snapshot.clusters == (
        AggregateCluster("echo", ("echo/local", "echo/remote")),
        ProxylessCluster("echo/local"),
        ProxylessCluster("echo/remote", ("host2", "host3")),
    )
    assert endpoints(snapshot, "echo/local") == (Endpoint("127.0.0.1:2000"),)
    assert endpoints(snapshot, "echo/remote") == (Endpoint("127.0.0.2:3000", peer="host2"),)


def test_on_one_machine_a_proxyless_client_reaches_all_directly() -> None:
    """Goal: a trial on loopback needs no certificates between hosts. Method: the setting for it."""
    snapshot = decide(view(instance("host1"), instance("host2")), replace(SECURE, proxyless_direct=True))
    assert snapshot.proxyless.clusters == (ProxylessCluster("echo"),)
    assert endpoints(snapshot.proxyless) == (Endpoint("127.0.0.1:2000"), Endpoint("127.0.0.2:2000"))


def test_without_an_identity_a_proxyless_client_reaches_this_host_only() -> None:
    """Goal: no plain call to another host. Method: two instances, no identity."""
    snapshot = decide(view(instance("host1"), instance("host2")), PLAIN).proxyless
    assert endpoints(snapshot) == (Endpoint("127.0.0.1:2000"),)


# ---- consistency ----------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        Snapshot(1, clusters=(Cluster("a"),)),
        Snapshot(1, endpoints=(Endpoints("a", ()),)),
        Snapshot(1, listeners=(NorthboundListener("n", "a:1", "missing"),)),
        Snapshot(1, listeners=(IngressListener("n", "a:1", "missing"),)),
        Snapshot(1, routes=(Routes("r", (Route("/a/", "missing"),)),)),
    ],
)
def test_a_snapshot_that_names_what_is_not_there_is_a_bug(broken: Snapshot) -> None:
    """Goal: Envoy never waits for a resource nobody will send. Method: each kind of dangling name."""
    with pytest.raises(InvariantBroken):
        check_consistent(broken)


def test_equal_views_make_equal_snapshots_whatever_their_order() -> None:
    """Goal: nothing is pushed because a table was walked differently.

    Method: the same instances in two orders.
    """
    one = decide(view(instance("host1"), instance("host2"), instance("host3")), SECURE)
    other = decide(view(instance("host3"), instance("host1"), instance("host2")), SECURE)
    assert one == other


def test_a_method_for_certain_roles_is_called_by_nobody() -> None:
    """Goal: no rule is broken silently. Method: a declaration of before the rule, both kinds of client."""
    policies = (MethodPolicy("/t.Echo/Get", timeout_ms=5), MethodPolicy("/t.Echo/Drop", roles=("operator",)))
    made = decide(view(instance("host1"), services=(replace(ECHO, methods=policies),)), PLAIN)
    for routes in (made.envoy.routes[0].routes, made.proxyless.routes[0].routes):
        by_path = {route.path: route for route in routes}
        assert by_path["/t.Echo/Drop"] == Route("/t.Echo/Drop", cluster="", denied=True)
        assert by_path["/t.Echo/Get"].cluster == "echo"
