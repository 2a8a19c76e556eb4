"""Services and instances on the wire.

Fails: `InvalidRequest` from every decoder when an enum is unspecified or unknown.
"""

from google.protobuf.duration_pb2 import Duration
from trellis.common.v1 import policy_pb2
from trellis.heartbeat.v1 import heartbeat_pb2
from trellis.supervisor.v1 import supervisor_pb2 as pb

from mesh.ids import FencingTerm, HostId, InstanceId, ServiceName
from mesh.state.model import DeclaredService
from mesh.state.service import InstanceStatus, MethodPolicy, Probe, Probes, Restart, ServiceSpec
from mesh.wire.enums import INSTANCE_STATE, PROBE_KIND, RESTART_WHEN, SERVICE_MODE

_NEVER_ASSIGNED = FencingTerm(0)


def duration_of_ms(value_ms: int) -> Duration:
    return Duration(seconds=value_ms // 1000, nanos=value_ms % 1000 * 1_000_000)


def ms_of_duration(duration: Duration) -> int:
    """Whole milliseconds; what is less is cut off."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def encode_spec(spec: ServiceSpec) -> pb.ServiceSpec:
    message = pb.ServiceSpec(
        name=spec.name,
        command=spec.command,
        mode=SERVICE_MODE.encode(spec.mode),
        instances_min=spec.instances_min,
        instances_max=spec.instances_max,
        directory=spec.directory,
        environment=dict(spec.environment),
        user=spec.user,
        startup=_encode_probe(spec.probes.startup),
        readiness=_encode_probe(spec.probes.readiness),
        liveness=_encode_probe(spec.probes.liveness),
        startup_deadline=duration_of_ms(spec.probes.startup_deadline_ms),
        restart_when=RESTART_WHEN.encode(spec.restart.when),
        restart_delay_min=duration_of_ms(spec.restart.delay_ms_min),
        restart_delay_max=duration_of_ms(spec.restart.delay_ms_max),
        restart_stable=duration_of_ms(spec.restart.stable_ms),
        depends_on=spec.depends_on,
        grace=duration_of_ms(spec.grace_ms),
        memory_bytes_max=spec.memory_bytes_max,
        routed=spec.routed,
        grpc_services=spec.grpc_services,
        database=spec.database,
    )
    message.methods.extend(_encode_method(each) for each in spec.methods)
    return message


def decode_spec(message: pb.ServiceSpec) -> ServiceSpec:
    """The spec with its environment sorted by name."""
    return ServiceSpec(
        name=ServiceName(message.name),
        command=tuple(message.command),
        mode=SERVICE_MODE.decode(message.mode),
        instances_min=message.instances_min,
        instances_max=message.instances_max,
        directory=message.directory,
        environment=tuple(sorted(message.environment.items())),
        user=message.user,
        probes=Probes(
            startup=_decode_probe(message.startup) if message.HasField("startup") else None,
            readiness=_decode_probe(message.readiness) if message.HasField("readiness") else None,
            liveness=_decode_probe(message.liveness) if message.HasField("liveness") else None,
            startup_deadline_ms=ms_of_duration(message.startup_deadline),
        ),
        restart=Restart(
            when=RESTART_WHEN.decode(message.restart_when),
            delay_ms_min=ms_of_duration(message.restart_delay_min),
            delay_ms_max=ms_of_duration(message.restart_delay_max),
            stable_ms=ms_of_duration(message.restart_stable),
        ),
        depends_on=tuple(ServiceName(each) for each in message.depends_on),
        grace_ms=ms_of_duration(message.grace),
        memory_bytes_max=message.memory_bytes_max,
        routed=message.routed,
        grpc_services=tuple(message.grpc_services),
        methods=tuple(_decode_method(each) for each in message.methods),
        database=message.database,
    )


def encode_instance(status: InstanceStatus) -> heartbeat_pb2.InstanceReport:
    """The report without its host, which the stream or the row around it names."""
    return heartbeat_pb2.InstanceReport(
        instance=status.instance,
        service=status.service,
        generation=status.generation,
        state=INSTANCE_STATE.encode(status.state),
        ready=status.ready,
        pid=status.pid,
        restarts=status.restarts,
        address=status.address,
        ingress=status.ingress,
        reason=status.reason,
        spec_version=status.spec_version,
        restart_nonce=status.restart_nonce,
    )


def decode_instance(message: heartbeat_pb2.InstanceReport, host: HostId) -> InstanceStatus:
    return InstanceStatus(
        instance=InstanceId(message.instance),
        service=ServiceName(message.service),
        host=host,
        generation=message.generation,
        state=INSTANCE_STATE.decode(message.state),
        ready=message.ready,
        pid=message.pid,
        restarts=message.restarts,
        address=message.address,
        ingress=message.ingress,
        reason=message.reason,
        spec_version=message.spec_version,
        restart_nonce=message.restart_nonce,
    )


def encode_service(
    declared: DeclaredService,
    instances: tuple[InstanceStatus, ...],
    *,
    degraded_reason: str = "",
    fencing_term: FencingTerm = _NEVER_ASSIGNED,
) -> pb.Service:
    """A service with what runs of it, for the servers that show it."""
    return pb.Service(
        spec=encode_spec(declared.spec),
        version=declared.version,
        stopped=declared.stopped,
        instances=[encode_instance(each) for each in sorted(instances, key=lambda each: each.instance)],
        degraded_reason=degraded_reason,
        fencing_term=fencing_term,
    )


def _encode_probe(probe: Probe | None) -> pb.Probe | None:
    if probe is None:
        return None
    return pb.Probe(
        kind=PROBE_KIND.encode(probe.kind),
        interval=duration_of_ms(probe.interval_ms),
        timeout=duration_of_ms(probe.timeout_ms),
        rise=probe.rise,
        fall=probe.fall,
        target=probe.target,
        command=probe.command,
    )


def _decode_probe(message: pb.Probe) -> Probe:
    return Probe(
        kind=PROBE_KIND.decode(message.kind),
        interval_ms=ms_of_duration(message.interval),
        timeout_ms=ms_of_duration(message.timeout),
        rise=message.rise,
        fall=message.fall,
        target=message.target,
        command=tuple(message.command),
    )


def _encode_method(method: MethodPolicy) -> pb.MethodRoute:
    policy = policy_pb2.MethodPolicy(
        idempotent=method.idempotent,
        timeout=duration_of_ms(method.timeout_ms) if method.timeout_ms else None,
        roles=method.roles,
        leader_required=method.leader_required,
    )
    return pb.MethodRoute(path=method.path, policy=policy)


def _decode_method(message: pb.MethodRoute) -> MethodPolicy:
    policy = message.policy
    return MethodPolicy(
        path=message.path,
        idempotent=policy.idempotent,
        timeout_ms=ms_of_duration(policy.timeout),
        roles=tuple(policy.roles),
        leader_required=policy.leader_required,
    )
