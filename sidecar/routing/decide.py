"""From a view of the cluster to the xDS snapshots of this host.

Invariant: only instances that are ready, on a host that is in, become endpoints;
so whatever Envoy does on its own (ejection, panic), it never reaches an instance
that the cluster believes unready.

Absent here: what a resource looks like on the wire (resources.py), and who is
sent what when (stream.py).
"""

from dataclasses import replace
from typing import Final

from mesh.errors import InvariantBroken
from mesh.ids import HostId
from mesh.state.service import InstanceStatus, MethodPolicy, ProbeKind, ServiceSpec
from sidecar.routing.model import (
    DATABASE,
    NORTHBOUND,
    NORTHBOUND_ROUTES,
    NORTHBOUND_VIP,
    AggregateCluster,
    AnyCluster,
    AnyListener,
    ApiListener,
    Cluster,
    DatabasePlace,
    Endpoint,
    Endpoints,
    HealthCheck,
    IngressListener,
    LocalCluster,
    NorthboundListener,
    PassListener,
    PrimaryCluster,
    ProxylessCluster,
    Route,
    Routes,
    RoutingSettings,
    RoutingView,
    Snapshot,
    Snapshots,
)
from sidecar.routing.retries import retry_of

#: No service can have this name.
OTLP_CLUSTER: Final = "trellis/otlp"


def decide(
    view: RoutingView, settings: RoutingSettings, database: tuple[DatabasePlace, ...] = ()
) -> Snapshots:
    """What Envoy and the proxyless clients of this host are to know now.

    *database*: where connections to it lead, and led before.
    """
    services = sorted((spec for spec in view.services if spec.routed), key=lambda spec: spec.name)
    ready = _ready_by_service(view)
    snapshots = Snapshots(
        envoy=_envoy(view, settings, services, ready, database),
        proxyless=_proxyless(view, settings, services, ready),
    )
    check_consistent(snapshots.envoy)
    check_consistent(snapshots.proxyless)
    return snapshots


def is_address(text: str) -> bool:
    """Whether this names a listener: "127.0.0.1:80", "[::1]:80" or "unix:/path"."""
    if text.startswith("unix:/"):
        return True
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16


def _ready_by_service(view: RoutingView) -> dict[str, list[InstanceStatus]]:
    """Instances that take traffic, by service, in a stable order.

    A suspect host may be silent or only slow: it is passed over while a service has others.
    One whose address cannot be read is left out, so that it cannot hold up the others.
    """
    out = frozenset(view.hosts_out)
    ready: dict[str, list[InstanceStatus]] = {}
    for instance in sorted(view.instances, key=lambda each: each.instance):
        if instance.ready and is_address(instance.address) and instance.host not in out:
            ready.setdefault(instance.service, []).append(instance)
    suspect = frozenset(view.hosts_suspect)
    return {
        service: [each for each in found if each.host not in suspect] or found
        for service, found in ready.items()
    }


# ---- Envoy ----------------------------------------------------------------------


def _envoy(
    view: RoutingView,
    settings: RoutingSettings,
    services: list[ServiceSpec],
    ready: dict[str, list[InstanceStatus]],
    places: tuple[DatabasePlace, ...],
) -> Snapshot:
    peers = _peers(view, settings)
    clusters: list[AnyCluster] = []
    endpoints: list[Endpoints] = []
    for spec in services:
        reachable = _reachable(ready.get(spec.name, ()), settings, peers)
        check = _health_check(spec)
        clusters.append(Cluster(spec.name, peers, check))
        endpoints.append(Endpoints(spec.name, tuple(endpoint for _, endpoint in reachable)))
        if _has_leader_methods(spec):
            name = leader_cluster(spec.name)
            at_leader = tuple(each for host, each in reachable if host == view.leader)
            clusters.append(Cluster(name, peers, check))
            endpoints.append(Endpoints(name, at_leader))
    ingress, targets = _ingress(view, settings, services)
    clusters.extend(targets)
    database: tuple[AnyListener, ...] = ()
    if settings.database_address:
        database = (PassListener(DATABASE, settings.database_address, DATABASE),)
        clusters.append(PrimaryCluster(DATABASE))
        endpoints.append(Endpoints(DATABASE, _places(places)))
    if settings.otlp_address:
        clusters.append(LocalCluster(OTLP_CLUSTER, settings.otlp_address, http2=True))
    return Snapshot(
        revision=view.revision,
        listeners=(*_northbound(view, settings), *ingress, *database),
        routes=(Routes(NORTHBOUND_ROUTES, _northbound_routes(view, services)),),
        clusters=tuple(clusters),
        endpoints=tuple(endpoints),
    )


def _places(places: tuple[DatabasePlace, ...]) -> tuple[Endpoint, ...]:
    """Nobody checks here who answers: the database's own TLS does."""
    return tuple(
        Endpoint(each.address, pulse_port=each.pulse_port, is_former=each.is_former)
        for each in places
        if is_address(each.address)
    )


def _peers(view: RoutingView, settings: RoutingSettings) -> tuple[str, ...]:
    """Hosts that can be reached by mTLS."""
    if settings.identity is None:
        return ()
    return tuple(sorted(host for host in view.hosts if host != settings.host))


def _reachable(
    instances: list[InstanceStatus] | tuple[()], settings: RoutingSettings, peers: tuple[str, ...]
) -> list[tuple[HostId, Endpoint]]:
    """Local instances directly, remote ones through their host's ingress."""
    found: list[tuple[HostId, Endpoint]] = []
    for instance in instances:
        if instance.host == settings.host:
            found.append((instance.host, Endpoint(instance.address)))
        elif instance.host in peers and is_address(instance.ingress):
            found.append((instance.host, Endpoint(instance.ingress, peer=instance.host)))
    return found


def _health_check(spec: ServiceSpec) -> HealthCheck | None:
    """Envoy asks the same question as the declared gRPC probe; without one it does not ask."""
    for probe in (spec.probes.readiness, spec.probes.liveness):
        if probe is not None and probe.kind is ProbeKind.GRPC:
            return HealthCheck(probe.target)
    return None


def leader_cluster(service: str) -> str:
    """Name of the cluster that holds only the instance on the leader's host."""
    return f"{service}/leader"


def _has_leader_methods(spec: ServiceSpec) -> bool:
    return any(policy.leader_required for policy in spec.methods)


def _northbound(view: RoutingView, settings: RoutingSettings) -> tuple[AnyListener, ...]:
    if not view.northbound_open or view.draining:
        return ()
    own = NorthboundListener(NORTHBOUND, settings.northbound_address, NORTHBOUND_ROUTES)
    if not (view.owns_vip and settings.vip_address):
        return (own,)
    vip = NorthboundListener(NORTHBOUND_VIP, settings.vip_address, NORTHBOUND_ROUTES, settings.vip_freebind)
    return (own, vip)


def _northbound_routes(view: RoutingView, services: list[ServiceSpec]) -> tuple[Route, ...]:
    """One route per method with a policy, then one per gRPC service.

    While fenced, calls on connections that are still open get UNAVAILABLE.
    """
    if not view.northbound_open:
        return (Route("/", cluster=""),)
    return tuple(route for spec in services for route in service_routes(spec))


def service_routes(spec: ServiceSpec) -> list[Route]:
    """Routes of one service, most specific first."""
    methods = sorted(spec.methods, key=lambda policy: policy.path)
    routes = [_method_route(spec, policy) for policy in methods]
    routes += [Route(f"/{name}/", spec.name, 0, retry_of(None)) for name in spec.grpc_services]
    return routes


def _method_route(spec: ServiceSpec, policy: MethodPolicy) -> Route:
    if policy.roles:  # nobody has shown a role, see docs/decisions/0012
        return Route(policy.path, cluster="", denied=True)
    cluster = leader_cluster(spec.name) if policy.leader_required else spec.name
    return Route(policy.path, cluster, policy.timeout_ms, retry_of(policy))


def _ingress(
    view: RoutingView, settings: RoutingSettings, services: list[ServiceSpec]
) -> tuple[list[AnyListener], list[AnyCluster]]:
    """One mTLS listener per routed instance of this host, ready or not.

    Readiness decides who calls it; keeping it open spares a listener update at
    each change.
    """
    listeners: list[AnyListener] = []
    targets: list[AnyCluster] = []
    if settings.identity is None:
        return listeners, targets
    routed = frozenset(spec.name for spec in services)
    for each in sorted(view.instances, key=lambda instance: instance.instance):
        is_here = each.host == settings.host and each.service in routed
        if is_here and is_address(each.ingress) and is_address(each.address):
            name = f"ingress/{each.instance}"
            listeners.append(IngressListener(name, each.ingress, name))
            targets.append(LocalCluster(name, each.address))
    return listeners, targets


# ---- proxyless clients ----------------------------------------------------------


def _proxyless(
    view: RoutingView,
    settings: RoutingSettings,
    services: list[ServiceSpec],
    ready: dict[str, list[InstanceStatus]],
) -> Snapshot:
    clusters: list[AnyCluster] = []
    endpoints: list[Endpoints] = []
    for spec in services:
        some_clusters, some_endpoints = _proxyless_service(
            spec.name, ready.get(spec.name, []), settings, _peers(view, settings)
        )
        clusters.extend(some_clusters)
        endpoints.extend(some_endpoints)
    return Snapshot(
        revision=view.revision,
        listeners=tuple(ApiListener(spec.name, spec.name) for spec in services),
        routes=tuple(Routes(spec.name, _proxyless_routes(spec)) for spec in services),
        clusters=tuple(clusters),
        endpoints=tuple(endpoints),
    )


def _proxyless_routes(spec: ServiceSpec) -> tuple[Route, ...]:
    routes = service_routes(spec)
    return tuple(each if each.denied else replace(each, cluster=spec.name) for each in routes)


def _proxyless_service(
    name: str, ready: list[InstanceStatus], settings: RoutingSettings, peers: tuple[str, ...]
) -> tuple[list[AnyCluster], list[Endpoints]]:
    """A gRPC client speaks either TLS or not within one cluster.

    So the instances of this host (plain) and of the others (mTLS) are two
    clusters, and the client prefers the first; or all are reached plainly.
    """
    if settings.proxyless_direct or not peers:
        direct = [each for each in ready if settings.proxyless_direct or each.host == settings.host]
        found = Endpoints(name, tuple(Endpoint(each.address) for each in direct))
        return [ProxylessCluster(name)], [found]
    reachable = _reachable(ready, settings, peers)
    local = Endpoints(f"{name}/local", tuple(each for _, each in reachable if not each.peer))
    remote = Endpoints(f"{name}/remote", tuple(each for _, each in reachable if each.peer))
    clusters: list[AnyCluster] = [
        AggregateCluster(name, (local.name, remote.name)),
        ProxylessCluster(local.name),
        ProxylessCluster(remote.name, peers),
    ]
    return clusters, [local, remote]


# ---- consistency ----------------------------------------------------------------


def check_consistent(snapshot: Snapshot) -> None:
    """Fails with InvariantBroken when a resource refers to one that is not there."""
    clusters = {cluster.name: cluster for cluster in snapshot.clusters}
    routes = {each.name for each in snapshot.routes}
    expected = {name for name, each in clusters.items() if _has_endpoints(each)}
    if expected != {each.name for each in snapshot.endpoints}:
        raise InvariantBroken(f"endpoints do not match clusters in snapshot {snapshot.revision}")
    for listener in snapshot.listeners:
        passes = isinstance(listener, IngressListener | PassListener)
        wanted = listener.cluster if isinstance(listener, IngressListener | PassListener) else listener.routes
        if wanted not in (clusters if passes else routes):
            raise InvariantBroken(f"listener {listener.name} refers to {wanted}, which is missing")
    for route in (route for each in snapshot.routes for route in each.routes):
        if route.cluster and route.cluster not in clusters:
            raise InvariantBroken(f"route {route.path} refers to {route.cluster}, which is missing")


def _has_endpoints(cluster: AnyCluster) -> bool:
    return isinstance(cluster, Cluster | PrimaryCluster | ProxylessCluster)
