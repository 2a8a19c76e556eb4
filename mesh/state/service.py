"""What a service is: one declaration, made once, the same on every host.

A declaration is the replicated, validated form of the file an operator gives to
`trellis services apply` (mesh.settings.declaration reads that file).
"""

from dataclasses import dataclass, field
from enum import Enum

from mesh.ids import HostId, InstanceId, ServiceName


class ServiceMode(Enum):
    """How many copies may act at the same time."""

    ACTIVE_ACTIVE = "active-active"
    ACTIVE_STANDBY = "active-standby"


class ProbeKind(Enum):
    """How an instance is asked whether it is well."""

    GRPC = "grpc"
    HTTP = "http"
    TCP = "tcp"
    EXEC = "exec"
    #: The service pushes heartbeats over the local socket; silence fails.
    PUSH = "push"


class RestartWhen(Enum):
    """Which exits are followed by a restart."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Probe:
    """One periodic question to an instance; `rise`/`fall` answers in a row change the verdict."""

    kind: ProbeKind
    interval_ms: int = 1000
    timeout_ms: int = 1000
    rise: int = 1
    fall: int = 3
    #: grpc: name of the health service asked for; http: path; exec: unused.
    target: str = ""
    #: exec only: program and arguments; exit code 0 is well.
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probes:
    """Startup gates the other two; readiness decides traffic; liveness decides restarts."""

    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    #: How long startup may take before the instance counts as failed.
    startup_deadline_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart policy: delay doubles from `delay_ms_min` to `delay_ms_max`, with jitter."""

    when: RestartWhen = RestartWhen.ALWAYS
    delay_ms_min: int = 100
    delay_ms_max: int = 30_000
    #: Running this long without failing resets the delay.
    stable_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """Route policy of one gRPC method, read from its `.proto` options."""

    #: "/trellis.echo.v1.EchoService/Echo"
    path: str
    idempotent: bool = False
    timeout_ms: int = 0
    #: Only one of these roles may call; empty: anybody. Not for methods behind Envoy (docs/decisions/0012).
    roles: tuple[str, ...] = ()
    #: Must be answered by the instance on the leader's host.
    leader_required: bool = False


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service as declared.

    Invariant: 1 <= `instances_min` <= `instances_max`; an active-standby
    service has both at 1; `depends_on` has no cycles (checked when applied).
    """

    name: ServiceName
    command: tuple[str, ...]
    mode: ServiceMode = ServiceMode.ACTIVE_ACTIVE
    instances_min: int = 1
    instances_max: int = 1
    directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    #: Name or number of the user to run as; empty: the sidecar's own.
    user: str = ""
    probes: Probes = field(default_factory=Probes)
    restart: Restart = field(default_factory=Restart)
    depends_on: tuple[ServiceName, ...] = ()
    #: How long after SIGTERM before SIGKILL.
    grace_ms: int = 5_000
    #: 0: no limit.
    memory_bytes_max: int = 0
    #: Listens on the address and port it is given and takes northbound traffic.
    routed: bool = False
    #: Full gRPC service names routed to it: "trellis.echo.v1.EchoService".
    grpc_services: tuple[str, ...] = ()
    methods: tuple[MethodPolicy, ...] = ()
    #: It is given DATABASE_URL, which leads to the database's primary.
    database: bool = False


class InstanceState(Enum):
    """Where one instance is in its life, in Supervisor's words."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """What a host reports of one of its instances.

    `ready` is true only while RUNNING and readiness holds. `address` is where
    it listens on its own host ("127.0.0.2:20003"); `ingress` is the mTLS
    address through which other hosts reach it, empty when not routed.
    """

    instance: InstanceId
    service: ServiceName
    host: HostId
    #: Counts starts on this host, from 1.
    generation: int
    state: InstanceState
    ready: bool
    pid: int = 0
    restarts: int = 0
    address: str = ""
    ingress: str = ""
    #: Why it is in this state, as one sentence; empty when all is well.
    reason: str = ""
    #: Version of the declaration that this instance runs.
    spec_version: int = 0
    #: Newest requested restart that it has followed.
    restart_nonce: int = 0
