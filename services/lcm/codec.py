"""Deployments and operations ↔ the contract's messages, and ↔ the JSON that the database keeps.

The JSON is the message's own, so that an older instance reads what a newer one wrote and leaves
out what it does not know.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from trellis.lcm.v1 import lcm_pb2 as pb
from trellis.supervisor.v1 import supervisor_pb2

from mesh.errors import InvalidRequest, Problem
from mesh.ids import ServiceName
from mesh.state.service import Probes, ServiceSpec
from mesh.wire.enums import RESTART_WHEN, EnumCodec
from mesh.wire.service import decode_spec, duration_of_ms, encode_spec
from services.lcm.model import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Operation,
    OperationKind,
    OperationState,
    WorkloadStatus,
)

DEPLOYMENT_STATE: Final = EnumCodec(
    "state",
    {
        DeploymentState.REQUESTED: pb.DEPLOYMENT_STATE_REQUESTED,
        DeploymentState.DEPLOYING: pb.DEPLOYMENT_STATE_DEPLOYING,
        DeploymentState.RUNNING: pb.DEPLOYMENT_STATE_RUNNING,
        DeploymentState.DEGRADED: pb.DEPLOYMENT_STATE_DEGRADED,
        DeploymentState.FAILED: pb.DEPLOYMENT_STATE_FAILED,
        DeploymentState.DELETING: pb.DEPLOYMENT_STATE_DELETING,
    },
)
OPERATION_KIND: Final = EnumCodec(
    "kind",
    {
        OperationKind.CREATE: pb.OPERATION_KIND_CREATE,
        OperationKind.UPDATE: pb.OPERATION_KIND_UPDATE,
        OperationKind.DELETE: pb.OPERATION_KIND_DELETE,
    },
)
OPERATION_STATE: Final = EnumCodec(
    "state",
    {
        OperationState.PENDING: pb.OPERATION_STATE_PENDING,
        OperationState.RUNNING: pb.OPERATION_STATE_RUNNING,
        OperationState.SUCCEEDED: pb.OPERATION_STATE_SUCCEEDED,
        OperationState.FAILED: pb.OPERATION_STATE_FAILED,
        OperationState.CANCELLED: pb.OPERATION_STATE_CANCELLED,
    },
)
_PROBES: Final = ("startup", "readiness", "liveness")
#: Probes as they are where the contract's message leaves a field at zero.
_PROBE_DEFAULTS: Final = {"rise": 1, "fall": 3}
_SHARED: Final = (
    "name", "command", "environment", "mode", "instances_min", "instances_max", "directory", "startup",
    "readiness", "liveness", "startup_deadline", "grace", "memory_bytes_max", "depends_on", "routed",
    "grpc_services",
)  # fmt: skip
_RESTART_DEFAULT: Final = encode_spec(ServiceSpec(name=ServiceName(""), command=()))


def encode_workload(workload: ServiceSpec) -> pb.Workload:
    spec = encode_spec(workload)
    message = pb.Workload()
    for name in _SHARED:
        _copy(spec, message, name)
    return message


def decode_workload(message: pb.Workload, path: str = "workload") -> tuple[ServiceSpec, tuple[Problem, ...]]:
    """The workload, and what cannot be decoded; of such, the spec holds a stand-in."""
    problems: list[Problem] = []
    spec = supervisor_pb2.ServiceSpec()
    spec.CopyFrom(_RESTART_DEFAULT)
    for name in _SHARED:
        _copy(message, spec, name)
    spec.instances_min = message.instances_min or 1
    spec.instances_max = message.instances_max or spec.instances_min
    if not message.HasField("startup_deadline"):
        spec.startup_deadline.CopyFrom(duration_of_ms(Probes().startup_deadline_ms))
    if not message.HasField("grace"):
        spec.grace.CopyFrom(_RESTART_DEFAULT.grace)
    if spec.mode not in (1, 2):
        problems.append(Problem(f"{path}.mode", "must be active-active or active-standby", "active-active"))
        spec.mode = supervisor_pb2.SERVICE_MODE_ACTIVE_ACTIVE
    for name in _PROBES:
        if spec.HasField(name):  # type: ignore[arg-type]  # each is a field
            problems += _complete(getattr(spec, name), f"{path}.{name}")
    spec.restart_when = RESTART_WHEN.encode(RESTART_WHEN.decode(_RESTART_DEFAULT.restart_when))
    return decode_spec(spec), tuple(problems)


def encode_deployment_spec(spec: DeploymentSpec) -> pb.DeploymentSpec:
    return pb.DeploymentSpec(
        name=spec.name,
        workloads=[encode_workload(each) for each in spec.workloads],
        labels=dict(spec.labels),
    )


def decode_deployment_spec(message: pb.DeploymentSpec) -> tuple[DeploymentSpec, tuple[Problem, ...]]:
    """The specification, and what cannot be decoded."""
    decoded = [
        decode_workload(each, f"spec.workloads[{number}]") for number, each in enumerate(message.workloads)
    ]
    spec = DeploymentSpec(
        message.name, tuple(workload for workload, _ in decoded), tuple(sorted(message.labels.items()))
    )
    return spec, tuple(problem for _, problems in decoded for problem in problems)


def encode_deployment(deployment: Deployment) -> pb.Deployment:
    return pb.Deployment(
        spec=encode_deployment_spec(deployment.spec),
        uid=deployment.uid,
        version=deployment.version,
        state=DEPLOYMENT_STATE.encode(deployment.state),
        reason=deployment.reason,
        workloads=[
            pb.WorkloadStatus(
                name=each.name,
                service=each.service,
                declared_version=each.declared_version,
                ready=each.ready,
                reason=each.reason,
            )
            for each in deployment.workloads
        ],
        operation_id=deployment.operation_id,
        revision=deployment.revision,
        created=_timestamp(deployment.created),
        updated=_timestamp(deployment.updated),
    )


def decode_deployment(message: pb.Deployment) -> Deployment:
    """Fails: `InvalidRequest` when it is not what `encode_deployment` made."""
    spec, problems = decode_deployment_spec(message.spec)
    if problems:
        raise InvalidRequest(f"The deployment {message.spec.name} cannot be read.", problems)
    return Deployment(
        spec=spec,
        uid=message.uid,
        version=message.version,
        state=DEPLOYMENT_STATE.decode(message.state),
        operation_id=message.operation_id,
        revision=message.revision,
        created=message.created.ToDatetime(UTC),
        updated=message.updated.ToDatetime(UTC),
        reason=message.reason,
        workloads=tuple(
            WorkloadStatus(each.name, each.service, each.declared_version, each.ready, each.reason)
            for each in message.workloads
        ),
    )


def encode_operation(operation: Operation) -> pb.Operation:
    return pb.Operation(
        id=operation.id,
        kind=OPERATION_KIND.encode(operation.kind),
        deployment=operation.deployment,
        deployment_version=operation.deployment_version,
        state=OPERATION_STATE.encode(operation.state),
        steps_done=operation.steps_done,
        steps_all=operation.steps_all,
        message=operation.message,
        reason=operation.reason,
        revision=operation.revision,
        created=_timestamp(operation.created),
        updated=_timestamp(operation.updated),
        begun=_timestamp(operation.begun) if operation.begun else None,
    )


def decode_operation(message: pb.Operation) -> Operation:
    return Operation(
        id=message.id,
        kind=OPERATION_KIND.decode(message.kind),
        deployment=message.deployment,
        deployment_version=message.deployment_version,
        state=OPERATION_STATE.decode(message.state),
        steps_done=message.steps_done,
        steps_all=message.steps_all,
        message=message.message,
        revision=message.revision,
        created=message.created.ToDatetime(UTC),
        updated=message.updated.ToDatetime(UTC),
        reason=message.reason,
        begun=message.begun.ToDatetime(UTC) if message.HasField("begun") else None,
    )


def deployment_json(deployment: Deployment) -> dict[str, Any]:
    return MessageToDict(encode_deployment(deployment))


def deployment_of(body: Mapping[str, Any]) -> Deployment:
    return decode_deployment(ParseDict(dict(body), pb.Deployment(), ignore_unknown_fields=True))


def operation_json(operation: Operation) -> dict[str, Any]:
    return MessageToDict(encode_operation(operation))


def operation_of(body: Mapping[str, Any]) -> Operation:
    return decode_operation(ParseDict(dict(body), pb.Operation(), ignore_unknown_fields=True))


def _complete(probe: supervisor_pb2.Probe, path: str) -> list[Problem]:
    """Defaults for what is unset, as in a declaration's file."""
    for name, default in _PROBE_DEFAULTS.items():
        if not getattr(probe, name):
            setattr(probe, name, default)
    for name in ("interval", "timeout"):
        if not probe.HasField(name):  # type: ignore[arg-type]  # each is a field
            getattr(probe, name).CopyFrom(duration_of_ms(1000))
    if probe.kind not in supervisor_pb2.ProbeKind.values() or not probe.kind:
        probe.kind = supervisor_pb2.PROBE_KIND_TCP
        return [Problem(f"{path}.kind", "must be grpc, http, tcp, exec or push", "grpc")]
    return []


def _copy(source: Any, target: Any, name: str) -> None:
    field = source.DESCRIPTOR.fields_by_name[name]
    value = getattr(source, name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(target, name).clear()
        getattr(target, name).update(value)
    elif field.is_repeated:
        del getattr(target, name)[:]
        getattr(target, name).extend(value)
    elif field.message_type is not None:
        target.ClearField(name)
        if source.HasField(name):
            getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)


def _timestamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message
