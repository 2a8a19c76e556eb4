"""Resources of a snapshot as xDS messages.

Nothing is decided here but how a field is spelled. Each resource is encoded once
and remembered by value, so a push costs only what has changed.

Source: Envoy API v3; for the subset that gRPC clients read, gRFCs A27-A31, A37.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as aggregate_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2

from mesh import limits
from sidecar.routing import filters, transport
from sidecar.routing.model import (
    AggregateCluster,
    ApiListener,
    Cluster,
    Endpoint,
    Endpoints,
    IngressListener,
    LocalCluster,
    NorthboundListener,
    PassListener,
    PrimaryCluster,
    ProxylessCluster,
    Resource,
    Route,
    Routes,
    RoutingSettings,
)
from sidecar.routing.stream import Kind
from sidecar.routing.wire import ADS, Json, XdsMessage, duration, pack, parse_address

TYPE_URLS: Final = {
    Kind.CLUSTER: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    Kind.ENDPOINTS: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    Kind.LISTENER: "type.googleapis.com/envoy.config.listener.v3.Listener",
    Kind.ROUTES: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}
KINDS: Final = {url: kind for kind, url in TYPE_URLS.items()}

#: A local network answers in less than a millisecond; a silent host must not hold a call longer.
CONNECT_TIMEOUT_MS: Final = 400
#: Retries in flight: this share of the calls in flight, or the number below if that is more.
RETRY_BUDGET_PERCENT: Final = 20.0
RETRIES_IN_FLIGHT_MIN: Final = 25
HEALTH_INTERVAL_MS: Final = 250
#: Clusters that have never been called are asked this seldom.
HEALTH_IDLE_INTERVAL_MS: Final = 4_000
STREAMS_PER_CONNECTION_MAX: Final = 1_000
IN_FLIGHT_MAX: Final = 20_000


class Encoder:
    """Encodes resources for the settings of one host."""

    def __init__(self, settings: RoutingSettings) -> None:
        self._settings = settings
        kinds: dict[type, Callable[[Any], XdsMessage]] = {
            Cluster: self._cluster,
            LocalCluster: _local_cluster,
            PrimaryCluster: _primary_cluster,
            ProxylessCluster: self._proxyless_cluster,
            AggregateCluster: _aggregate_cluster,
            Endpoints: _endpoints,
            Routes: _routes,
            NorthboundListener: self._northbound,
            IngressListener: self._ingress,
            PassListener: _pass,
            ApiListener: _api_listener,
        }
        self._kinds = kinds
        #: Bound: twice what the largest cluster holds, so that old versions fall out.
        self.encode = lru_cache(maxsize=8 * limits.SERVICES_MAX)(self._encode)

    def _encode(self, resource: Resource) -> any_pb2.Any:
        return pack(self._kinds[type(resource)](resource))

    # ---- clusters -----------------------------------------------------------------

    def _cluster(self, cluster: Cluster) -> XdsMessage:
        settings = self._settings
        checks = [_health_check(cluster.health_check.service)] if cluster.health_check else []
        return cluster_pb2.Cluster(
            name=cluster.name,
            type="EDS",
            eds_cluster_config=ADS_CLUSTER,
            connect_timeout=duration(CONNECT_TIMEOUT_MS),
            lb_policy="LEAST_REQUEST",
            # Envoy's own verdicts never take the last instance away: with none
            # left it uses all that the cluster says are ready.
            # A verdict is in force at once, not merged with those of the next second.
            common_lb_config={
                "healthy_panic_threshold": {"value": 1.0},
                "update_merge_window": duration(0),
            },
            ignore_health_on_host_removal=True,
            health_checks=checks,
            outlier_detection=_OUTLIER,
            circuit_breakers=_CIRCUIT_BREAKERS,
            transport_socket_matches=transport.matches(settings, cluster.peers),
            typed_extension_protocol_options=_HTTP2,
            upstream_connection_options=transport.KEEPALIVE,
            upstream_bind_config={"socket_options": transport.USER_TIMEOUT},
        )

    def _proxyless_cluster(self, cluster: ProxylessCluster) -> XdsMessage:
        message = cluster_pb2.Cluster(
            name=cluster.name,
            type="EDS",
            eds_cluster_config=ADS_CLUSTER,
            lb_policy="ROUND_ROBIN",
        )
        if cluster.peers:
            socket = transport.proxyless(self._settings, cluster.peers)
            message.transport_socket.CopyFrom(socket)
        return message

    # ---- listeners ----------------------------------------------------------------

    def _northbound(self, listener: NorthboundListener) -> XdsMessage:
        chain: Json = {"filters": [filters.http(self._settings, listener.name, listener.routes)]}
        if self._settings.northbound_tls is not None:
            chain["transport_socket"] = transport.northbound(self._settings)
        message = _listener(listener.name, listener.address, chain)
        if listener.freebind:
            message.freebind.value = True
        return message

    def _ingress(self, listener: IngressListener) -> XdsMessage:
        chain: Json = {
            "filters": [filters.tcp(listener.name, listener.cluster)],
            "transport_socket": transport.ingress(self._settings),
        }
        return _listener(listener.name, listener.address, chain)


ADS_CLUSTER: Final[Json] = {"eds_config": ADS}

_HTTP2: Final = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(
        http_protocol_options_pb2.HttpProtocolOptions(
            explicit_http_config={
                "http2_protocol_options": {
                    "max_concurrent_streams": {"value": STREAMS_PER_CONNECTION_MAX},
                    "initial_stream_window_size": {"value": limits.MIB},
                    "initial_connection_window_size": {"value": 4 * limits.MIB},
                }
            }
        )
    )
}

#: Two failures in a row, and the instance rests until it passes a health check, or
#: for the ejection time. An attempt that outlives its hedge delay counts as one.
#: Local and remote failures are not split: split, each new call on an open
#: connection would clear the count.
_OUTLIER: Final[Json] = {
    "consecutive_gateway_failure": {"value": 2},
    "enforcing_consecutive_gateway_failure": {"value": 100},
    "enforcing_consecutive_5xx": {"value": 0},
    # needs five hosts to mean anything; a cluster of three has none to spare
    "enforcing_success_rate": {"value": 0},
    "interval": duration(250),
    "base_ejection_time": duration(5_000),
    "max_ejection_time": duration(10_000),
    # the panic threshold keeps the last one, see Encoder._cluster
    "max_ejection_percent": {"value": 100},
}

_CIRCUIT_BREAKERS: Final[Json] = {
    "thresholds": [
        {
            "max_connections": {"value": IN_FLIGHT_MAX},
            "max_pending_requests": {"value": IN_FLIGHT_MAX},
            "max_requests": {"value": IN_FLIGHT_MAX},
            "retry_budget": {
                "budget_percent": {"value": RETRY_BUDGET_PERCENT},
                "min_retry_concurrency": {"value": RETRIES_IN_FLIGHT_MIN},
            },
        }
    ]
}


def _health_check(service: str) -> Json:
    return {
        "timeout": duration(HEALTH_INTERVAL_MS),
        "interval": duration(HEALTH_INTERVAL_MS),
        "interval_jitter_percent": 10,
        "no_traffic_interval": duration(HEALTH_IDLE_INTERVAL_MS),
        "unhealthy_threshold": {"value": 2},
        "healthy_threshold": {"value": 1},
        "grpc_health_check": {"service_name": service},
    }


def _local_cluster(cluster: LocalCluster) -> XdsMessage:
    message = cluster_pb2.Cluster(
        name=cluster.name,
        type="STATIC",
        connect_timeout=duration(CONNECT_TIMEOUT_MS),
        load_assignment=_endpoints(Endpoints(cluster.name, (Endpoint(cluster.address),))),
        circuit_breakers=_CIRCUIT_BREAKERS,
    )
    if cluster.http2:
        for name, options in _HTTP2.items():
            message.typed_extension_protocol_options[name].CopyFrom(options)
    return message


#: One failure counts: nothing lies between Envoy and the port.
_PULSE: Final[Json] = {
    "timeout": duration(1_000),
    "interval": duration(100),
    "no_traffic_interval": duration(250),
    "unhealthy_threshold": {"value": 1},
    "healthy_threshold": {"value": 1},
    "tcp_health_check": {},
}


def _primary_cluster(cluster: PrimaryCluster) -> XdsMessage:
    return cluster_pb2.Cluster(
        name=cluster.name,
        type="EDS",
        eds_cluster_config=ADS_CLUSTER,
        connect_timeout=duration(CONNECT_TIMEOUT_MS),
        common_lb_config={"update_merge_window": duration(0), "healthy_panic_threshold": {"value": 0}},
        close_connections_on_host_health_failure=True,
        health_checks=[_PULSE],
        circuit_breakers=_CIRCUIT_BREAKERS,
        upstream_connection_options=transport.KEEPALIVE,
        upstream_bind_config={"socket_options": transport.USER_TIMEOUT},
    )


def _aggregate_cluster(cluster: AggregateCluster) -> XdsMessage:
    config = pack(aggregate_pb2.ClusterConfig(clusters=cluster.members))
    return cluster_pb2.Cluster(
        name=cluster.name,
        # what gRPC asks for; Envoy would want CLUSTER_PROVIDED and never sees this
        lb_policy="ROUND_ROBIN",
        connect_timeout=duration(CONNECT_TIMEOUT_MS),
        cluster_type={"name": "envoy.clusters.aggregate", "typed_config": config},
    )


# ---- endpoints ------------------------------------------------------------------


def _endpoints(endpoints: Endpoints) -> XdsMessage:
    locality: Json = {
        "locality": {"zone": "cluster"},
        "load_balancing_weight": {"value": 1},
        "lb_endpoints": [_endpoint(each) for each in endpoints.endpoints],
    }
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=endpoints.name, endpoints=[locality] if endpoints.endpoints else []
    )


def _endpoint(endpoint: Endpoint) -> Json:
    message: Json = {"endpoint": {"address": parse_address(endpoint.address)}}
    if endpoint.peer:
        message["metadata"] = transport.endpoint_metadata(endpoint.peer)
    if endpoint.pulse_port:
        pulse = {"address": parse_address(f"127.0.0.1:{endpoint.pulse_port}")}
        message["endpoint"]["health_check_config"] = pulse
    if endpoint.is_former:
        message["health_status"] = "DRAINING"
    return message


# ---- routes ---------------------------------------------------------------------


def _routes(routes: Routes) -> XdsMessage:
    host = {"name": "all", "domains": ["*"], "routes": [_route(each) for each in routes.routes]}
    return route_pb2.RouteConfiguration(name=routes.name, virtual_hosts=[host])


def _route(route: Route) -> Json:
    match: Json = {"prefix" if route.path.endswith("/") else "path": route.path}
    if not route.cluster:
        return {"match": match, "direct_response": {"status": 403 if route.denied else 503}}
    action: Json = {
        "cluster": route.cluster,
        "timeout": duration(0),
        # the caller's own deadline, but not longer than the method's (0: however long)
        "max_stream_duration": {
            "max_stream_duration": duration(route.timeout_ms),
            "grpc_timeout_header_max": duration(route.timeout_ms),
        },
    }
    if route.retry is not None:
        action["retry_policy"] = {
            "retry_on": ",".join(route.retry.conditions),
            "num_retries": {"value": route.retry.attempts_max},
            "retry_host_predicate": [_PREVIOUS_HOSTS],
            "host_selection_retry_max_attempts": 5,
            "retry_back_off": {"base_interval": duration(5), "max_interval": duration(100)},
        }
        if route.retry.hedge_ms:
            action["retry_policy"]["per_try_timeout"] = duration(route.retry.hedge_ms)
            action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    return {"match": match, "route": action}


_PREVIOUS_HOSTS: Final[Json] = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": filters.PREVIOUS_HOSTS,
}


# ---- listeners ------------------------------------------------------------------


def _listener(name: str, address: str, chain: Json) -> listener_pb2.Listener:
    return listener_pb2.Listener(
        name=name,
        address=parse_address(address),
        # one socket, so that a second process on the same address is an error
        # and not a silent share of the calls
        enable_reuse_port={"value": False},
        connection_balance_config={"exact_balance": {}},
        per_connection_buffer_limit_bytes={"value": limits.MIB},
        socket_options=[*transport.USER_TIMEOUT, *transport.LISTENER_KEEPALIVE],
        filter_chains=[chain],
    )


def _pass(listener: PassListener) -> XdsMessage:
    return _listener(
        listener.name, listener.address, {"filters": [filters.tcp(listener.name, listener.cluster)]}
    )


def _api_listener(listener: ApiListener) -> XdsMessage:
    manager = filters.api_manager(listener.routes)
    return listener_pb2.Listener(name=listener.name, api_listener={"api_listener": manager})
