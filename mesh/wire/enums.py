"""Enums on the wire: one table each, and nothing unknown or unspecified gets through."""

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from trellis.database.v1 import database_pb2 as database
from trellis.heartbeat.v1 import heartbeat_pb2 as heartbeat
from trellis.membership.v1 import membership_pb2 as membership
from trellis.supervisor.v1 import supervisor_pb2 as supervisor

from mesh.errors import InvalidRequest, Problem
from mesh.state.database_model import DatabaseRole, Lag, Wants
from mesh.state.model import HostStatus, MemberRole
from mesh.state.service import InstanceState, ProbeKind, RestartWhen, ServiceMode

E = TypeVar("E", bound=Enum)
N = TypeVar("N", bound=int)


class EnumCodec(Generic[E, N]):
    """Maps each value of a domain enum to its number, and back.

    Fails: `decode` with `InvalidRequest` for unspecified and for numbers of a later version.
    """

    def __init__(self, path: str, numbers: Mapping[E, N]) -> None:
        self._path = path
        self._numbers = dict(numbers)
        self._values: dict[int, E] = {number: value for value, number in numbers.items()}

    def encode(self, value: E) -> N:
        return self._numbers[value]

    def decode(self, number: int) -> E:
        value = self._values.get(number)
        if value is None:
            what = "must be set" if number == 0 else f"has the unknown number {number}"
            known = " or ".join(each.value for each in self._numbers)
            problem = Problem(self._path, f"{what}: {known}")
            raise InvalidRequest(f"{self._path} {what}", [problem])
        return value


MEMBER_ROLE = EnumCodec(
    "role",
    {
        MemberRole.VOTER: membership.MEMBER_ROLE_VOTER,
        MemberRole.LEARNER: membership.MEMBER_ROLE_LEARNER,
        MemberRole.WITNESS: membership.MEMBER_ROLE_WITNESS,
    },
)
HOST_STATUS = EnumCodec(
    "status",
    {
        HostStatus.ALIVE: membership.HOST_STATUS_ALIVE,
        HostStatus.SUSPECT: membership.HOST_STATUS_SUSPECT,
        HostStatus.LOST: membership.HOST_STATUS_LOST,
    },
)
SERVICE_MODE = EnumCodec(
    "mode",
    {
        ServiceMode.ACTIVE_ACTIVE: supervisor.SERVICE_MODE_ACTIVE_ACTIVE,
        ServiceMode.ACTIVE_STANDBY: supervisor.SERVICE_MODE_ACTIVE_STANDBY,
    },
)
PROBE_KIND = EnumCodec(
    "kind",
    {
        ProbeKind.GRPC: supervisor.PROBE_KIND_GRPC,
        ProbeKind.HTTP: supervisor.PROBE_KIND_HTTP,
        ProbeKind.TCP: supervisor.PROBE_KIND_TCP,
        ProbeKind.EXEC: supervisor.PROBE_KIND_EXEC,
        ProbeKind.PUSH: supervisor.PROBE_KIND_PUSH,
    },
)
RESTART_WHEN = EnumCodec(
    "restart_when",
    {
        RestartWhen.ALWAYS: supervisor.RESTART_WHEN_ALWAYS,
        RestartWhen.ON_FAILURE: supervisor.RESTART_WHEN_ON_FAILURE,
        RestartWhen.NEVER: supervisor.RESTART_WHEN_NEVER,
    },
)
INSTANCE_STATE = EnumCodec(
    "state",
    {
        InstanceState.STOPPED: heartbeat.INSTANCE_STATE_STOPPED,
        InstanceState.STARTING: heartbeat.INSTANCE_STATE_STARTING,
        InstanceState.RUNNING: heartbeat.INSTANCE_STATE_RUNNING,
        InstanceState.BACKOFF: heartbeat.INSTANCE_STATE_BACKOFF,
        InstanceState.STOPPING: heartbeat.INSTANCE_STATE_STOPPING,
        InstanceState.EXITED: heartbeat.INSTANCE_STATE_EXITED,
    },
)
DATABASE_ROLE = EnumCodec(
    "role",
    {
        DatabaseRole.NONE: database.DATABASE_ROLE_NONE,
        DatabaseRole.PREPARING: database.DATABASE_ROLE_PREPARING,
        DatabaseRole.STOPPED: database.DATABASE_ROLE_STOPPED,
        DatabaseRole.RECOVERING: database.DATABASE_ROLE_RECOVERING,
        DatabaseRole.STANDBY: database.DATABASE_ROLE_STANDBY,
        DatabaseRole.PRIMARY: database.DATABASE_ROLE_PRIMARY,
    },
)
LAG = EnumCodec(
    "lag",
    {
        Lag.UNKNOWN: database.LAG_UNKNOWN,
        Lag.CLOSE: database.LAG_CLOSE,
        Lag.BEHIND: database.LAG_BEHIND,
        Lag.FAR: database.LAG_FAR,
    },
)
#: Where it wants nothing, the field is not set.
WANTS = EnumCodec(
    "wants",
    {
        Wants.RESTART: database.WANTS_RESTART,
        Wants.RESTART_LATER: database.WANTS_RESTART_LATER,
        Wants.COPY: database.WANTS_COPY,
    },
)
