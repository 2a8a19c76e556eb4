"""The settings file that `trellis init` and `trellis join` write when there is none."""

from pathlib import Path

from mesh import limits
from mesh.settings.problems import toml
from mesh.settings.values import Endpoint

_TEXT = """\
# Settings of one Trellis host. Every key but host.name and mesh.address may be left out;
# what stands behind '#' is the default. `trellis run --settings FILE` checks the whole file.

[host]
name = {name}
data_dir = {data_dir}          # log, snapshots, identity: must survive a restart
run_dir = {run_dir}              # sockets: may vanish at boot
log_dir = {log_dir}          # what services print

[mesh]
address = {address}            # where other members reach this host
join_address = {join_address}       # for `trellis join` of new hosts; the port after address
# certificate_hours = 168               # life of the host certificates this host signs while it leads

[northbound]
address = {northbound}         # where this host's Envoy takes calls
# tls_certificate = "/etc/trellis/northbound.pem"
# tls_key = "/etc/trellis/northbound.key"

{virtual_ip}

[envoy]
# path = "/usr/bin/envoy"               # the one installed with Trellis
# concurrency = 2

[xds]
address = {xds}

[services]
listen = {local}                    # where instances listen
port_min = 20000
port_max = 20999
# cgroups = "auto"                      # "off": process groups only

# [database]                            # this host carries PostgreSQL; every key has a default

[timers]                                # checked against each other
# tick_ms = 50
# heartbeat_ms = {heartbeat_ms}
# lease_ms = {lease_ms}
# election_ms_min = {election_ms_min}
# election_ms_max = {election_ms_max}
# release_bound_ms = {release_bound_ms}
# clock_rate_error = {clock_rate_error}

[join]                                  # what a machine must have before it may join
# memory_mib_min = 256
# disk_mib_min = 512
# clock_skew_ms_max = 1000

[telemetry]
# otlp_endpoint = "http://10.0.0.9:4317"
prometheus = {prometheus}

[logs]
# level = "info"                        # debug, info, warning, error
# format = "auto"                       # json for machines, text for people

[development]
mode = {development}                            # true allows failpoints; never in production
"""

_NO_VIRTUAL_IP = """\
# [virtual_ip]                          # moves with the leader
# address = "10.0.0.100"
# port = 8080
# interface = "eth0"                    # not needed for an address of 127.0.0.0/8"""


def example_settings(
    name: str,
    address: Endpoint,
    *,
    data_dir: Path = Path("/var/lib/trellis"),
    run_dir: Path = Path("/run/trellis"),
    log_dir: Path = Path("/var/log/trellis"),
    virtual_ip: Endpoint | None = None,
    interface: str = "",
    northbound_port: int = 8080,
    development: bool = False,
) -> str:
    """A commented file for one host, which `load_settings` accepts as it is."""
    local = address.ip if address.is_loopback else "::1" if ":" in address.ip else "127.0.0.1"
    facts: dict[str, object] = {
        "name": name,
        "data_dir": data_dir,
        "run_dir": run_dir,
        "log_dir": log_dir,
        "address": address,
        "join_address": address.with_port(address.port + 1),
        "northbound": address.with_port(northbound_port),
        "xds": Endpoint(local, 18_000),
        "local": local,
        "prometheus": Endpoint(local, 9464),
        "development": development,
        "heartbeat_ms": limits.HEARTBEAT_MS,
        "lease_ms": limits.LEASE_MS,
        "election_ms_min": limits.ELECTION_MS_MIN,
        "election_ms_max": limits.ELECTION_MS_MAX,
        "release_bound_ms": limits.RELEASE_BOUND_MS,
        "clock_rate_error": limits.CLOCK_RATE_ERROR,
    }
    written = {key: toml(value) for key, value in facts.items()}
    return _TEXT.format(virtual_ip=_virtual_ip(virtual_ip, interface), **written)


def _virtual_ip(endpoint: Endpoint | None, interface: str) -> str:
    if endpoint is None:
        return _NO_VIRTUAL_IP
    lines = [
        "[virtual_ip]                            # moves with the leader",
        f"address = {toml(endpoint.ip)}",
        f"port = {endpoint.port}",
    ]
    if interface:
        lines.append(f"interface = {toml(interface)}")
    return "\n".join(lines)
