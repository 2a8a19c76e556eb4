"""Filter chains: what happens to bytes once a connection is accepted.

The chain of a call holds the router only: each further filter costs throughput
on every call (see benchmarks/northbound).
"""

from typing import Final

from envoy.config.trace.v3 import opentelemetry_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from google.protobuf import any_pb2

from mesh import limits
from sidecar.routing.decide import OTLP_CLUSTER
from sidecar.routing.model import RoutingSettings
from sidecar.routing.wire import ADS, Json, duration, pack

PREVIOUS_HOSTS: Final = pack(previous_hosts_pb2.PreviousHostsPredicate())
#: A peer that sends nothing and answers no ping for this long is gone.
PING_INTERVAL_MS: Final = 5_000
PING_TIMEOUT_MS: Final = 2_000
#: A connection that has not sent the head of a call by then is dropped.
HEADERS_TIMEOUT_MS: Final = 10_000
STREAMS_PER_CONNECTION_MAX: Final = 1_000


def http(settings: RoutingSettings, name: str, routes: str) -> Json:
    """Layer 7: one HTTP/2 connection manager with the router behind it."""
    message = manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        codec_type="HTTP2",
        rds={"route_config_name": routes, "config_source": ADS},
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": _router(settings)}],
        http2_protocol_options={
            "max_concurrent_streams": {"value": STREAMS_PER_CONNECTION_MAX},
            "initial_stream_window_size": {"value": limits.MIB},
            "initial_connection_window_size": {"value": 4 * limits.MIB},
            "connection_keepalive": {
                "interval": duration(PING_INTERVAL_MS),
                "timeout": duration(PING_TIMEOUT_MS),
            },
        },
        generate_request_id={"value": bool(settings.otlp_address)},
        # a watch may be silent for hours; keepalive tells a dead peer from a quiet one
        stream_idle_timeout=duration(0),
        request_headers_timeout=duration(HEADERS_TIMEOUT_MS),
        use_remote_address={"value": True},
        # the service's own name for itself stays
        server_header_transformation="PASS_THROUGH",
    )
    if settings.otlp_address:
        message.tracing.CopyFrom(_tracing(settings))
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": pack(message)}


def _router(settings: RoutingSettings) -> any_pb2.Any:
    return pack(
        router_pb2.Router(
            suppress_envoy_headers=True,
            dynamic_stats={"value": False},
            start_child_span=bool(settings.otlp_address),
        )
    )


def _tracing(settings: RoutingSettings) -> manager_pb2.HttpConnectionManager.Tracing:
    config = opentelemetry_pb2.OpenTelemetryConfig(
        service_name=f"envoy.{settings.host}",
        grpc_service={"envoy_grpc": {"cluster_name": OTLP_CLUSTER}, "timeout": duration(1_000)},
    )
    return manager_pb2.HttpConnectionManager.Tracing(
        provider={"name": "envoy.tracers.opentelemetry", "typed_config": pack(config)}
    )


def tcp(name: str, cluster: str) -> Json:
    """Layer 4: bytes to one cluster."""
    message = tcp_proxy_pb2.TcpProxy(stat_prefix=name, cluster=cluster, idle_timeout=duration(0))
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": pack(message)}


def api_manager(routes: str) -> any_pb2.Any:
    """The connection manager as far as a gRPC client reads it."""
    router = {"name": "envoy.filters.http.router", "typed_config": pack(router_pb2.Router())}
    return pack(
        manager_pb2.HttpConnectionManager(
            rds={"route_config_name": routes, "config_source": ADS}, http_filters=[router]
        )
    )
