"""The files Envoy and proxyless clients start from.

Envoy's bootstrap holds only what never changes while it runs: its name, where its
ADS server is, its admin socket, and limits. Certificates reach it as file names in
secret files, and Envoy itself watches their directory: a certificate is rotated
by renaming new files into place.
"""

import json
from pathlib import Path
from typing import Any, Final

from mesh.errors import Problem, SettingsError
from mesh.limits import SOCKET_PATH_BYTES_MAX
from sidecar.routing import transport
from sidecar.routing.model import CertificatePaths, RoutingSettings

Json = dict[str, Any]

#: How soon Envoy looks for its ADS server again.
RECONNECT_MS_MIN, RECONNECT_MS_MAX = 20, 250
CONNECTIONS_MAX: Final = 10_000
#: No service can have this name.
XDS_CLUSTER: Final = "trellis/xds"
ENVOY_NODE_PREFIX: Final = "envoy/"
CERTIFICATE_REFRESH: Final = "10s"

#: Statistics that are kept; the rest costs memory for each cluster and is never read.
STATS_KEPT: Final = (
    "upstream_rq_total",
    "upstream_rq_active",
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_retry",
    "upstream_rq_retry_overflow",
    # Envoy itself reads this one: without it every cluster counts as never called
    # and its health checks run at the idle interval for ever.
    "upstream_cx_total",
    "upstream_cx_active",
    "upstream_cx_connect_fail",
    "membership_healthy",
    "membership_total",
    "ejections_active",
    "downstream_cx_active",
    "downstream_rq_active",
    "downstream_rq_total",
)


def xds_socket(settings: RoutingSettings) -> str:
    """Where this host's Envoy finds its ADS server."""
    return f"{settings.run_dir}/xds.sock"


def admin_socket(settings: RoutingSettings) -> str:
    """Envoy's admin interface, for this user only."""
    return f"{settings.run_dir}/envoy-admin.sock"


def prepare(settings: RoutingSettings) -> None:
    """Makes the run directory and the secret files.

    Fails: SettingsError when a socket path would be too long for the kernel.
    """
    _check_socket_paths(settings)
    Path(settings.run_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    for secret in secrets(settings):
        path = Path(transport.secret_path(settings, secret["name"]))
        write_json(path, {"resources": [secret]})


def _check_socket_paths(settings: RoutingSettings) -> None:
    longest = max(admin_socket(settings), xds_socket(settings), key=len)
    if len(longest.encode()) > SOCKET_PATH_BYTES_MAX:
        problem = Problem(
            "run_dir",
            f"{longest} is longer than the {SOCKET_PATH_BYTES_MAX} bytes of a UNIX socket path",
            "/run/trellis",
        )
        raise SettingsError("Envoy cannot be started from this directory.", [problem])


def envoy_bootstrap(settings: RoutingSettings) -> Json:
    """Bootstrap of this host's Envoy."""
    return {
        "node": {"id": f"{ENVOY_NODE_PREFIX}{settings.host}", "cluster": settings.cluster_id},
        "admin": {"address": {"pipe": {"path": admin_socket(settings), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": _ads_config(),
            "cds_config": _ADS,
            "lds_config": _ADS,
        },
        "static_resources": {"clusters": [_xds_cluster(settings)]},
        "stats_config": _stats(),
        "overload_manager": _connection_limit(),
    }


_ADS: Final[Json] = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _ads_config() -> Json:
    back_off = {
        "base_interval": f"{RECONNECT_MS_MIN / 1000}s",
        "max_interval": f"{RECONNECT_MS_MAX / 1000}s",
    }
    service = {"cluster_name": XDS_CLUSTER, "retry_policy": {"retry_back_off": back_off}}
    return {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": service}],
    }


def _xds_cluster(settings: RoutingSettings) -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": xds_socket(settings)}}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _stats() -> Json:
    patterns = [{"suffix": name} for name in STATS_KEPT]
    return {"stats_matcher": {"inclusion_list": {"patterns": patterns}}}


def _connection_limit() -> Json:
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    monitor = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"type.googleapis.com/{kind}",
            "max_active_downstream_connections": CONNECTIONS_MAX,
        },
    }
    return {"resource_monitors": [monitor]}


# ---- certificates ---------------------------------------------------------------


def secrets(settings: RoutingSettings) -> list[Json]:
    """The file names of all certificates, each as a secret that Envoy reads from a file of its own."""
    resources: list[Json] = []
    if settings.identity is not None:
        resources.append(_certificate(transport.HOST_CERTIFICATE, settings.identity))
        resources.append(_authorities(settings.identity))
    if settings.northbound_tls is not None:
        resources.append(_certificate(transport.NORTHBOUND_CERTIFICATE, settings.northbound_tls))
    return resources


_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def _watched(path: str) -> Json:
    return {"path": str(Path(path).parent)}


def _certificate(name: str, paths: CertificatePaths) -> Json:
    certificate = {
        "certificate_chain": {"filename": paths.certificate},
        "private_key": {"filename": paths.key},
        "watched_directory": _watched(paths.certificate),
    }
    return {"@type": _TYPE, "name": name, "tls_certificate": certificate}


def _authorities(paths: CertificatePaths) -> Json:
    trusted = {
        "trusted_ca": {"filename": paths.authorities},
        "watched_directory": _watched(paths.authorities),
    }
    return {"@type": _TYPE, "name": transport.AUTHORITIES, "validation_context": trusted}


# ---- proxyless clients ----------------------------------------------------------


def proxyless_bootstrap(settings: RoutingSettings, client: str) -> Json:
    """What `GRPC_XDS_BOOTSTRAP` points to, for a client on this host."""
    if not settings.xds_address:
        problem = Problem("xds_address", "is empty, so no proxyless client is served", "127.0.0.1:18000")
        raise SettingsError("Proxyless clients cannot be served by this host.", [problem])
    server = {
        "server_uri": settings.xds_address,
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    document: Json = {
        "xds_servers": [server],
        "node": {"id": f"client/{client}", "cluster": settings.cluster_id},
    }
    if settings.identity is not None:
        paths = {
            "certificate_file": settings.identity.certificate,
            "private_key_file": settings.identity.key,
            "ca_certificate_file": settings.identity.authorities,
            "refresh_interval": CERTIFICATE_REFRESH,
        }
        provider = {"plugin_name": "file_watcher", "config": paths}
        document["certificate_providers"] = {transport.PROXYLESS_PROVIDER: provider}
    return document


def write_bootstrap(path: Path, settings: RoutingSettings, client: str = "client") -> None:
    """Writes the bootstrap file of proxyless clients of this host."""
    write_json(path, proxyless_bootstrap(settings, client))


def write_json(path: Path, document: Json) -> bool:
    """Replaces a file by rename, so that no reader sees half of it; False when it was equal."""
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if path.exists() and path.read_text() == text:
        return False
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
    return True
