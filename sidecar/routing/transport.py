"""TLS between hosts, and how a silent peer is noticed on every connection.

Invariant: bytes leave this host only under TLS with a peer whose SPIFFE id is
exactly the host the endpoint is said to be on; bytes from another host are
accepted only from an identity of this cluster.
"""

from collections.abc import Sequence
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from sidecar.routing.model import RoutingSettings
from sidecar.routing.wire import Json, pack

#: Names of the secrets; each is a file that bootstrap.prepare writes.
HOST_CERTIFICATE: Final = "host-certificate"
AUTHORITIES: Final = "authorities"
NORTHBOUND_CERTIFICATE: Final = "northbound-certificate"
#: The entry of `certificate_providers` in a proxyless client's bootstrap.
PROXYLESS_PROVIDER: Final = "trellis"

_TLS: Final = "envoy.transport_sockets.tls"
_MATCH: Final = "envoy.transport_socket_match"

#: Unacknowledged bytes, or unanswered keepalive probes, for this long: the peer is gone.
SILENCE_MS_MAX: Final = 2_000
_SOL_SOCKET, _SO_KEEPALIVE = 1, 9
_IPPROTO_TCP, _TCP_KEEPIDLE, _TCP_KEEPINTVL, _TCP_KEEPCNT, _TCP_USER_TIMEOUT = 6, 4, 5, 6, 18


def _option(level: int, name: int, value: int) -> Json:
    return {"level": level, "name": name, "int_value": value, "state": "STATE_PREBIND"}


USER_TIMEOUT: Final = [_option(_IPPROTO_TCP, _TCP_USER_TIMEOUT, SILENCE_MS_MAX)]
#: Accepted sockets inherit these from the listening one (tcp(7)).
LISTENER_KEEPALIVE: Final = [
    _option(_SOL_SOCKET, _SO_KEEPALIVE, 1),
    _option(_IPPROTO_TCP, _TCP_KEEPIDLE, 1),
    _option(_IPPROTO_TCP, _TCP_KEEPINTVL, 1),
    _option(_IPPROTO_TCP, _TCP_KEEPCNT, 2),
]
KEEPALIVE: Final[Json] = {
    "tcp_keepalive": {
        "keepalive_time": {"value": 1},
        "keepalive_interval": {"value": 1},
        "keepalive_probes": {"value": 2},
    }
}


def spiffe_id(settings: RoutingSettings, host: str) -> str:
    """Identity of a host of this cluster."""
    return f"spiffe://{settings.cluster_id}/host/{host}"


def secret_path(settings: RoutingSettings, name: str) -> str:
    """The file that tells Envoy where a certificate is."""
    return f"{settings.run_dir}/{name}.secret.json"


def _secret(settings: RoutingSettings, name: str) -> Json:
    source = {"path_config_source": {"path": secret_path(settings, name)}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def endpoint_metadata(peer: str) -> Json:
    """Marks an endpoint as reached by TLS with this host."""
    metadata = base_pb2.Metadata()
    metadata.filter_metadata[_MATCH]["peer"] = peer
    return {"filter_metadata": dict(metadata.filter_metadata)}


def matches(settings: RoutingSettings, peers: Sequence[str]) -> list[Json]:
    """One TLS context per peer; what carries no peer is on this host and goes plain."""
    found: list[Json] = [
        {"name": peer, "match": {"peer": peer}, "transport_socket": _upstream(settings, peer)}
        for peer in peers
    ]
    plain = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": pack(raw_buffer_pb2.RawBuffer())}
    return [*found, {"name": "plain", "match": {}, "transport_socket": plain}]


def _subject(matcher: Json) -> Json:
    return {"san_type": "URI", "matcher": matcher}


def _peer_check(settings: RoutingSettings, subjects: list[Json]) -> Json:
    return {
        "default_validation_context": {"match_typed_subject_alt_names": subjects},
        "validation_context_sds_secret_config": _secret(settings, AUTHORITIES),
    }


def _common(settings: RoutingSettings, subjects: list[Json]) -> Json:
    return {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [_secret(settings, HOST_CERTIFICATE)],
        "combined_validation_context": _peer_check(settings, subjects),
    }


def _upstream(settings: RoutingSettings, peer: str) -> Json:
    subject = _subject({"exact": spiffe_id(settings, peer)})
    context = tls_pb2.UpstreamTlsContext(common_tls_context=_common(settings, [subject]))
    return {"name": _TLS, "typed_config": pack(context)}


def ingress(settings: RoutingSettings) -> Json:
    """Every caller shows a certificate of this cluster."""
    subject = _subject({"prefix": f"spiffe://{settings.cluster_id}/"})
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context=_common(settings, [subject]), require_client_certificate={"value": True}
    )
    return {"name": _TLS, "typed_config": pack(context)}


def northbound(settings: RoutingSettings) -> Json:
    """TLS for clients; who they are is not asked here."""
    certificate = _secret(settings, NORTHBOUND_CERTIFICATE)
    common = {"alpn_protocols": ["h2"], "tls_certificate_sds_secret_configs": [certificate]}
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common)
    return {"name": _TLS, "typed_config": pack(context)}


def proxyless(settings: RoutingSettings, peers: Sequence[str]) -> base_pb2.TransportSocket:
    """TLS as a gRPC client does it: certificates come from its own bootstrap file."""
    provider = {"instance_name": PROXYLESS_PROVIDER}
    subjects = [_subject({"exact": spiffe_id(settings, peer)}) for peer in peers]
    common: Json = {
        "tls_certificate_provider_instance": provider,
        "validation_context": {
            "ca_certificate_provider_instance": provider,
            "match_typed_subject_alt_names": subjects,
        },
    }
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common)
    return base_pb2.TransportSocket(name=_TLS, typed_config=pack(context))
