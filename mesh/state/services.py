"""Commands on services: declaration, stop, restart, placement, and what hosts report.

Absent here: whether a declaration makes sense as a whole (that is checked with
every problem at once before it is proposed), where instances should run
(mesh.placement), and when a declared service's owner may change (ownership).
"""

from collections.abc import Iterable
from dataclasses import replace

from mesh.errors import InvalidRequest, NotFound, QueueFull
from mesh.ids import HostId, InstanceId, ServiceName
from mesh.limits import (
    ENVIRONMENT_BYTES_MAX,
    EVENT_CHARS_MAX,
    INSTANCES_PER_HOST_MAX,
    INSTANCES_PER_SERVICE_MAX,
    SERVICES_MAX,
    SPEC_BYTES_MAX,
)
from mesh.state.applying import Applying, check_name, check_text, check_version, invalid, shortened
from mesh.state.commands import (
    Applied,
    ApplyService,
    ReportInstances,
    RestartService,
    SetPlacement,
    StopService,
)
from mesh.state.hash import encode
from mesh.state.model import ChangeKind, DeclaredService, Placement
from mesh.state.service import InstanceState, InstanceStatus, ServiceMode, ServiceSpec
from mesh.state.tables import ClusterState


def apply_service(at: Applying, command: ApplyService) -> Applied:
    services, spec = at.state.services, command.spec
    # One order of the environment, whichever way the declaration came.
    spec = replace(spec, environment=tuple(sorted(dict(spec.environment).items())))
    present = services.get(spec.name)
    check_version(f"service {spec.name}", present.version if present else 0, command.expected_version)
    if present is not None and present.spec == spec and not present.stopped:
        return Applied(at.index, version=present.version, unchanged=True)
    _check_spec(at.state, spec)
    if present is None and len(services) >= SERVICES_MAX:
        raise QueueFull(f"there are {SERVICES_MAX} services; stop some first", services=SERVICES_MAX)
    if present is not None and present.spec == spec:
        version = present.version
    else:
        version = at.raise_counter(f"service/{spec.name}")
    nonce = present.restart_nonce if present else 0
    services.put(spec.name, DeclaredService(spec, version, restart_nonce=nonce))
    at.changed(ChangeKind.SERVICE, spec.name)
    at.record(
        "service-applied",
        spec.name,
        f"{spec.name} is declared {spec.mode.value} in version {version}",
        version=version,
        mode=spec.mode.value,
        instances_min=spec.instances_min,
        instances_max=spec.instances_max,
    )
    return Applied(at.index, version=version)


def stop_service(at: Applying, command: StopService) -> Applied:
    present = _declared(at.state, command.name)
    check_version(f"service {command.name}", present.version, command.expected_version)
    if command.keep and present.stopped:
        return Applied(at.index, version=present.version, unchanged=True)
    if command.keep:
        stopped = DeclaredService(present.spec, present.version, True, present.restart_nonce)
        at.state.services.put(command.name, stopped)
        message = f"{command.name} is stopped; its declaration is kept"
    else:
        _check_no_dependents(at.state, command.name)
        at.state.services.drop(command.name)
        if command.name in at.state.placements:
            at.state.placements.drop(command.name)
            at.changed(ChangeKind.PLACEMENT, command.name)
        message = f"{command.name} is stopped and no longer declared"
    at.changed(ChangeKind.SERVICE, command.name)
    at.record("service-stopped", command.name, message, kept=command.keep)
    return Applied(at.index, version=present.version)


def restart_service(at: Applying, command: RestartService) -> Applied:
    present = _declared(at.state, command.name)
    restarted = DeclaredService(present.spec, present.version, False, present.restart_nonce + 1)
    at.state.services.put(command.name, restarted)
    at.changed(ChangeKind.SERVICE, command.name)
    at.record("service-restarted", command.name, f"{command.name} is to be restarted, instance by instance")
    return Applied(at.index, version=present.version)


def set_placement(at: Applying, command: SetPlacement) -> Applied:
    state, name = at.state, command.service
    present = state.placements.get(name)
    check_version(f"placement of {name}", present.version if present else 0, command.expected_version)
    slots = tuple(sorted(set(command.slots)))
    if slots:
        _declared(state, name)
    if len(slots) > INSTANCES_PER_SERVICE_MAX:
        raise invalid(
            "slots", f"has {len(slots)} instances; a service has at most {INSTANCES_PER_SERVICE_MAX}"
        )
    for slot in slots:
        at.host(slot.host)
    if present is not None and present.slots == slots:
        return Applied(at.index, version=present.version, unchanged=True)
    if present is None and not slots:
        return Applied(at.index, unchanged=True)
    version = int(at.index)
    state.placements.put(name, Placement(name, slots, version))
    at.changed(ChangeKind.PLACEMENT, name)
    # A decision, not a fact: what ran before may still be ending, what is to run has not begun.
    hosts = ", ".join(slot.host for slot in slots)
    at.record("placement-changed", name, f"{name} is placed on {hosts or 'no host'}", hosts=hosts)
    return Applied(at.index, version=version)


def report_instances(at: Applying, command: ReportInstances) -> Applied:
    at.host_with_member(command.host, command.member)
    _check_report(command)
    instances = at.state.instances
    reported = {status.instance: status for status in command.statuses}
    if command.complete:
        _forget(
            at,
            (
                each.instance
                for each in instances.values()
                if each.host == command.host and each.instance not in reported
            ),
        )
    for identity, status in reported.items():
        before = instances.get(identity)
        if len(status.reason) > EVENT_CHARS_MAX:
            status = replace(status, reason=shortened(status.reason))
        if status.state is InstanceState.STOPPED:
            _forget(at, [identity])
        elif before != status:
            instances.put(identity, status)
            at.changed(ChangeKind.INSTANCE, identity)
            _record_transition(at, before, status)
    return Applied(at.index, unchanged=not at.changes)


def forget_instances_of(at: Applying, host: HostId) -> None:
    """The host is gone or a new incarnation: nothing that was said of its instances holds."""
    _forget(at, [each.instance for each in at.state.instances.values() if each.host == host])


def close_instances_of(at: Applying, host: HostId) -> None:
    """The host is lost: none of its instances takes traffic until it reports again."""
    for status in list(at.state.instances.values()):
        if status.host == host and status.ready:
            closed = replace(status, ready=False, reason=f"{host} is lost")
            at.state.instances.put(status.instance, closed)
            at.changed(ChangeKind.INSTANCE, status.instance)


def _forget(at: Applying, identities: Iterable[InstanceId]) -> None:
    instances = at.state.instances
    for identity in list(identities):
        if identity in instances:
            instances.drop(identity)
            at.changed(ChangeKind.INSTANCE, identity)


def _record_transition(at: Applying, before: InstanceStatus | None, now: InstanceStatus) -> None:
    """Journals what people ask about: began to take traffic, failed, stopped taking traffic."""
    was_ready = before is not None and before.ready
    failed = now.state in (InstanceState.BACKOFF, InstanceState.EXITED)
    facts = {"generation": now.generation, "state": now.state.value, "restarts": now.restarts}
    if failed and (before is None or before.state is not now.state or before.generation != now.generation):
        reason = f": {now.reason}" if now.reason else ""
        at.record("instance-failed", now.instance, f"{now.instance} is {now.state.value}{reason}", **facts)
    elif now.ready and not was_ready:
        at.record("instance-ready", now.instance, f"{now.instance} takes traffic", **facts)
    elif was_ready and not now.ready:
        reason = f": {now.reason}" if now.reason else ""
        at.record("instance-unready", now.instance, f"{now.instance} takes no traffic{reason}", **facts)


def _declared(state: ClusterState, name: ServiceName) -> DeclaredService:
    present = state.services.get(name)
    if present is None:
        raise NotFound(f"no service {name} is declared; see `trellis services list`", service=name)
    return present


def _check_report(command: ReportInstances) -> None:
    if len(command.statuses) > INSTANCES_PER_HOST_MAX:
        raise QueueFull(f"a host reports at most {INSTANCES_PER_HOST_MAX} instances")
    for status in command.statuses:
        if status.host != command.host:
            raise invalid("statuses", f"{status.instance} is on {status.host}, not on {command.host}")
        check_text("statuses", status.instance, status.service, status.address, status.ingress)


def _check_no_dependents(state: ClusterState, name: ServiceName) -> None:
    dependents = sorted(each for each, row in state.services.rows.items() if name in row.spec.depends_on)
    if dependents:
        raise InvalidRequest(
            f"{', '.join(dependents)} depends on {name}; stop that first, or stop {name} with --keep",
            dependents=",".join(dependents),
        )


def _check_spec(state: ClusterState, spec: ServiceSpec) -> None:
    """The bounds and invariants that the state itself relies on."""
    check_name("name", spec.name, "echo")
    if not spec.command:
        raise invalid("command", "is empty", '["python3", "-m", "services.echo"]')
    if not 1 <= spec.instances_min <= spec.instances_max <= INSTANCES_PER_SERVICE_MAX:
        raise invalid(
            "instances_min",
            f"1 <= instances_min ({spec.instances_min}) <= instances_max ({spec.instances_max})"
            f" <= {INSTANCES_PER_SERVICE_MAX} does not hold",
        )
    if spec.mode is ServiceMode.ACTIVE_STANDBY and spec.instances_max != 1:
        raise invalid("instances_max", "is not 1, and the service is active-standby", "1")
    size = sum(len(name) + len(value) for name, value in spec.environment)
    if size > ENVIRONMENT_BYTES_MAX:
        raise invalid("environment", f"has {size} characters; at most {ENVIRONMENT_BYTES_MAX}")
    if len(encode(spec)) > SPEC_BYTES_MAX:
        raise invalid("spec", f"is longer than {SPEC_BYTES_MAX} bytes altogether")
    _check_acyclic(state, spec)


def _check_acyclic(state: ClusterState, spec: ServiceSpec) -> None:
    """Refuses a dependency that leads back to the service itself."""
    pending: list[tuple[ServiceName, tuple[ServiceName, ...]]]
    pending, seen = [(each, (spec.name, each)) for each in spec.depends_on], set()
    while pending:
        name, path = pending.pop()
        if name == spec.name:
            raise invalid("depends_on", f"has a cycle: {' → '.join(path)}")
        declared = state.services.get(name)
        if declared is not None and name not in seen:
            seen.add(name)
            pending += [(each, (*path, each)) for each in declared.spec.depends_on]
