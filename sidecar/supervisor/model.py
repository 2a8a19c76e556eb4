"""The words of supervision: what is assigned, what a process did, what to do next.

Pure values only; `decide` turns them into actions, `driver` carries those out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mesh.ids import HostId, InstanceId
from mesh.state.service import InstanceState, ServiceMode, ServiceSpec


@dataclass(frozen=True, slots=True)
class Assignment:
    """One instance that this host is to run, as placement says.

    A change of `spec_version` or `restart_nonce` is a graceful restart; a
    change of `fencing_term` kills at once and starts anew.
    """

    instance: InstanceId
    spec: ServiceSpec
    spec_version: int
    ordinal: int
    #: Proves the ownership of an active-standby service; None for active-active.
    fencing_term: int | None = None
    restart_nonce: int = 0

    @property
    def exclusive(self) -> bool:
        """Whether at most one copy of it may act in the whole cluster."""
        return self.spec.mode is ServiceMode.ACTIVE_STANDBY


@dataclass(frozen=True, slots=True)
class ExclusiveHandle:
    """What the fence process needs to kill the right process tree and no other."""

    pid: int
    #: Field 22 of /proc/PID/stat: with the pid, names a process once and for all.
    start_time_ticks: int
    #: cgroup v2 leaf that holds the whole tree; empty where there are no cgroups.
    cgroup: str


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Where the supervisor keeps its things, and from which ports it may give."""

    host: HostId
    cluster: str
    #: Lives as long as the machine is up: records of running processes.
    run_dir: str
    #: Lives for ever: one folder per instance for the service's own use.
    state_dir: str
    log_dir: str
    listen_address: str
    port_min: int
    port_max: int
    #: The sidecar's local UNIX socket, told to the services.
    socket_path: str
    #: Where the receiving Envoy listens for an instance; empty: `listen_address`.
    ingress_address: str = ""
    #: False forces process groups and /proc in place of cgroups.
    cgroups: bool = True
    #: Of the cluster's database, for services that declare to need it; empty: not known yet.
    database_url: Callable[[], str] = str


class Goal(Enum):
    """What the life of an instance is heading for."""

    RUN = "run"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. `code` is None when nobody could see it (an adopted process)."""

    code: int | None
    signal: int = 0
    #: The kernel killed it, or one of its children, over the memory limit.
    out_of_memory: bool = False

    @property
    def clean(self) -> bool:
        """Whether this counts as success."""
        return self.code == 0 and not self.signal and not self.out_of_memory


class Kind(Enum):
    """What can happen to an instance."""

    START = "start"
    ADOPT = "adopt"
    STOP = "stop"
    RESTART = "restart"
    FENCE = "fence"
    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn-failed"
    STARTED = "started"
    LATE = "late"
    UNWELL = "unwell"
    EXITED = "exited"
    GRACE_OVER = "grace-over"
    DELAY_OVER = "delay-over"
    #: The whole tree is verified empty. `decide` tells four cases apart.
    GONE = "gone"
    GONE_STOPPED = "gone-stopped"
    GONE_AGAIN = "gone-again"
    GONE_RETRY = "gone-retry"
    GONE_FINAL = "gone-final"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `reason` is one sentence for people."""

    kind: Kind
    reason: str = ""
    exit: Exit | None = None


class Do(Enum):
    """What the driver is to do."""

    SPAWN = "spawn"
    TERM = "term"
    KILL = "kill"
    #: Kill whatever is left of the tree; report GONE when it is verified empty.
    CLEAR = "clear"
    #: Ask the probes of the phase: startup first, then readiness and liveness.
    PROBE_STARTUP = "probe-startup"
    PROBE_STEADY = "probe-steady"
    PROBE_STOP = "probe-stop"
    ARM_STARTUP = "arm-startup"
    ARM_GRACE = "arm-grace"
    ARM_DELAY = "arm-delay"
    DISARM = "disarm"
    #: Nothing runs any more; drop the instance unless it is assigned again.
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do; `delay_ms` only with ARM_DELAY."""

    do: Do
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class Life:
    """Where an instance is in its life.

    Invariant: `failures` counts ends in a row that nobody asked for; a run of
    at least `Restart.stable_ms` starts the count anew.
    """

    state: InstanceState = InstanceState.STOPPED
    goal: Goal = Goal.STOP
    #: Counts starts on this host, from 1.
    generation: int = 0
    restarts: int = 0
    failures: int = 0
    started_ns: int = 0
    #: The end now awaited was asked for, and a new start follows it at once.
    planned: bool = False
    #: How the last process ended; None while one runs.
    ended: Exit | None = None
    reason: str = ""
