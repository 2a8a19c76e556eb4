"""One host's settings: every path, address, port and timer, and nothing replicated.

The sections are the tables of the TOML file. Everything but `host.name` and
`mesh.address` has a default; defaults that depend on the address are derived
before validation, so a loaded `HostSettings` has no holes.

Absent here: relations between keys (rules.py) and whether the machine fits
(ports.py).
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mesh import limits
from mesh.ids import HostId
from mesh.settings.values import (
    PORT_MAX,
    AbsolutePath,
    Address,
    Endpoint,
    Ip,
    Name,
    Words,
    parse_endpoint,
)

Port = Annotated[int, Field(ge=1, le=PORT_MAX)]
Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]

NORTHBOUND_PORT: Final = 8080
#: Of the listener that leads to the database's primary.
CLIENT_PORT: Final = 6432


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Host(Section):
    """[host] Who this machine is and where it keeps things."""

    name: Annotated[Name, Field(examples=["host1"])]
    #: Log, snapshots, identity: what must survive a restart.
    data_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/trellis"])] = Path("/var/lib/trellis")
    #: Sockets and process records: may vanish at boot.
    run_dir: Annotated[AbsolutePath, Field(examples=["/run/trellis"])] = Path("/run/trellis")
    #: What services print.
    log_dir: Annotated[AbsolutePath, Field(examples=["/var/log/trellis"])] = Path("/var/log/trellis")


class Mesh(Section):
    """[mesh] Where other members reach this host."""

    address: Annotated[Address, Field(examples=["10.0.0.1:7400"])]
    #: TLS without a client certificate, for `trellis join` only. Default: the port after `address`.
    join_address: Annotated[Address, Field(examples=["10.0.0.1:7401"])]
    #: How long a host certificate this host signs while it leads is good for.
    certificate_hours: Annotated[int, Field(ge=1, le=24 * 90, examples=[168])] = 168


class Northbound(Section):
    """[northbound] Where this host's Envoy takes calls; default port 8080 of the mesh address."""

    address: Annotated[Address, Field(examples=["10.0.0.1:8080"])]
    tls_certificate: Annotated[AbsolutePath | None, Field(examples=["/etc/trellis/northbound.pem"])] = None
    tls_key: Annotated[AbsolutePath | None, Field(examples=["/etc/trellis/northbound.key"])] = None


class VirtualIp(Section):
    """[virtual_ip] The address that moves with the leader; the table left out: none."""

    address: Annotated[Ip, Field(examples=["10.0.0.100"])]
    port: Annotated[Port, Field(examples=[NORTHBOUND_PORT])] = NORTHBOUND_PORT
    #: Network interface that gets the address; not needed in listener mode.
    interface: Annotated[str, Field(examples=["eth0"])] = ""
    #: netlink adds the address to the interface; listener only opens a port on an address that is
    #: always there (127.0.0.0/8). auto: listener for loopback, else netlink.
    mode: Annotated[Literal["auto", "netlink", "listener"], Field(examples=["auto"])] = "auto"

    @property
    def is_listener_only(self) -> bool:
        """No address is added: the owner's Envoy is the one that listens."""
        return self.mode == "listener" or (
            self.mode == "auto" and ipaddress.ip_address(self.address).is_loopback
        )

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.port)


class Envoy(Section):
    """[envoy] The data plane."""

    #: Program to run; empty: the one installed with Trellis.
    path: Annotated[AbsolutePath | None, Field(examples=["/usr/bin/envoy"])] = None
    concurrency: Annotated[int, Field(ge=1, le=256, examples=[2])] = 2


class Xds(Section):
    """[xds] Where the sidecar serves xDS to Envoy and to proxyless clients of this machine."""

    address: Annotated[Address, Field(examples=["127.0.0.1:18000"])]


class Services(Section):
    """[services] Where instances listen and how they are confined.

    The ports are for the instances at `listen` and, each paired with one, for the
    mTLS listeners at the mesh address through which other hosts reach them.
    """

    listen: Annotated[Ip, Field(examples=["127.0.0.1"])]
    port_min: Annotated[Port, Field(examples=[20_000])] = 20_000
    port_max: Annotated[Port, Field(examples=[20_999])] = 20_999
    cgroups: Annotated[Literal["auto", "off"], Field(examples=["auto"])] = "auto"


class Database(Section):
    """[database] PostgreSQL on this host; the table left out: this host carries none."""

    #: Whom it runs as, never root; empty: `postgres` when the sidecar is root, else the sidecar's own user.
    user: Annotated[str, Field(examples=["postgres"])] = ""
    #: Folder of its programs; none: searched for.
    bin_dir: Annotated[AbsolutePath | None, Field(examples=["/usr/lib/postgresql/17/bin"])] = None
    #: Its data, and what is needed beside it to make a new copy; none: `postgres` in `host.data_dir`.
    data_dir: Annotated[AbsolutePath | None, Field(examples=["/var/lib/trellis/postgres"])] = None
    #: Every byte of this host's WAL is kept there, for a restore to any moment; none: no archive.
    archive_dir: Annotated[AbsolutePath | None, Field(examples=["/backups/wal"])] = None
    #: Where the other hosts reach it. Default: the mesh address.
    listen: Annotated[Ip, Field(examples=["10.0.0.1"])]
    #: None: the declared one.
    port: Annotated[Port | None, Field(examples=[5432])] = None
    #: Where this machine's services reach the primary, wherever it is. Default: port 6432, local.
    client_address: Annotated[Address, Field(examples=["127.0.0.1:6432"])]
    #: How long crash recovery may take, its progress being told, before the host gives way.
    recovery_s_max: Annotated[int, Field(ge=1, le=86_400, examples=[600])] = 600


class Timers(Section):
    """[timers] How fast the cluster notices and acts; checked against each other by rules.py."""

    tick_ms: Annotated[Milliseconds, Field(examples=[50])] = 50
    heartbeat_ms: Annotated[Milliseconds, Field(examples=[limits.HEARTBEAT_MS])] = limits.HEARTBEAT_MS
    lease_ms: Annotated[Milliseconds, Field(examples=[limits.LEASE_MS])] = limits.LEASE_MS
    election_ms_min: Annotated[Milliseconds, Field(examples=[limits.ELECTION_MS_MIN])] = (
        limits.ELECTION_MS_MIN
    )
    election_ms_max: Annotated[Milliseconds, Field(examples=[limits.ELECTION_MS_MAX])] = (
        limits.ELECTION_MS_MAX
    )
    release_bound_ms: Annotated[Milliseconds, Field(examples=[limits.RELEASE_BOUND_MS])] = (
        limits.RELEASE_BOUND_MS
    )
    clock_rate_error: Annotated[float, Field(ge=0, lt=0.1, examples=[limits.CLOCK_RATE_ERROR])] = (
        limits.CLOCK_RATE_ERROR
    )


class Join(Section):
    """[join] What a machine must have before it may join."""

    memory_mib_min: Annotated[int, Field(ge=0, examples=[256])] = 256
    disk_mib_min: Annotated[int, Field(ge=0, examples=[512])] = 512
    clock_skew_ms_max: Annotated[Milliseconds, Field(examples=[1000])] = 1000


class Telemetry(Section):
    """[telemetry] Traces and metrics."""

    #: OTLP over gRPC; empty: traces stay in the process.
    otlp_endpoint: Annotated[str, Field(examples=["http://10.0.0.9:4317"])] = ""
    #: Where metrics are scraped.
    prometheus: Annotated[Address, Field(examples=["127.0.0.1:9464"])]


class Logs(Section):
    """[logs] What the sidecar itself prints."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Field(examples=["info"])] = "info"
    format: Annotated[Literal["auto", "json", "text"], Field(examples=["auto"])] = "auto"


class Development(Section):
    """[development] Never in production."""

    mode: Annotated[bool, Field(examples=[True])] = False
    #: As in TRELLIS_FAILPOINTS: "name=action", "name=action:count" (see mesh.failpoints.arming).
    failpoints: Annotated[Words, Field(examples=[["driver.turn.before-save=crash"]])] = ()


class HostSettings(Section):
    """The whole file."""

    host: Host
    mesh: Mesh
    northbound: Northbound
    virtual_ip: VirtualIp | None = None
    envoy: Envoy
    xds: Xds
    services: Services
    database: Database | None = None
    timers: Timers = Field(default_factory=Timers)
    join: Join = Field(default_factory=Join)
    telemetry: Telemetry
    logs: Logs = Field(default_factory=Logs)
    development: Development = Field(default_factory=Development)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, raw: Any) -> Any:
        return with_derived_defaults(raw) if isinstance(raw, dict) else raw

    @property
    def host_id(self) -> HostId:
        return HostId(self.host.name)

    @property
    def admin_socket(self) -> Path:
        """Operators of this machine; only root and the sidecar's user may open it."""
        return self.host.run_dir / "admin.sock"

    @property
    def service_socket(self) -> Path:
        """Services of this machine: pushed heartbeats, documents, the cluster's state."""
        return self.host.run_dir / "service.sock"

    @property
    def identity_dir(self) -> Path:
        return self.host.data_dir / "identity"

    @property
    def database_dir(self) -> Path:
        """Where the database lies, should this host carry one."""
        given = self.database.data_dir if self.database else None
        return given or self.host.data_dir / "postgres"

    @property
    def local_ip(self) -> str:
        """Where this machine talks to itself."""
        return _local_ip(self.mesh.address)


def _local_ip(mesh: Endpoint) -> str:
    # Several hosts share one machine only on different loopback addresses, so each keeps to its own.
    return mesh.ip if mesh.is_loopback else ("::1" if ":" in mesh.ip else "127.0.0.1")


def with_derived_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """The file's tables with the defaults that follow from the mesh address put in.

    When that address is missing or wrong, any valid one stands in: the address
    is reported, and nothing that only follows from it.
    """
    mesh = _mesh_address(raw)
    local = _local_ip(mesh)
    derived: dict[str, dict[str, object]] = {
        "mesh": {"join_address": mesh.with_port(min(mesh.port + 1, PORT_MAX))},
        "northbound": {"address": mesh.with_port(NORTHBOUND_PORT)},
        "envoy": {},
        "xds": {"address": Endpoint(local, 18_000)},
        "services": {"listen": local},
        "database": {"listen": mesh.ip, "client_address": Endpoint(local, CLIENT_PORT)},
        "telemetry": {"prometheus": Endpoint(local, 9464)},
    }
    filled = dict(raw)
    for table, defaults in derived.items():
        given = raw.get(table, {})
        if isinstance(given, dict) and (table in raw or table not in ("mesh", "database")):
            filled[table] = {**defaults, **cast(dict[str, object], given)}
    return filled


def _mesh_address(raw: dict[str, Any]) -> Endpoint:
    mesh = raw.get("mesh")
    try:
        return parse_endpoint(mesh.get("address") if isinstance(mesh, dict) else None)
    except ValueError:
        return Endpoint("127.0.0.1", 7400)
