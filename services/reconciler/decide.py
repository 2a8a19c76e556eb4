"""From what is requested and what is there: what to do, and how it stands.

Invariant: nothing is done for an operation before it is durable that it has begun, so that
cancelling one that has not begun is the whole truth.

Invariant: only services that carry the mark of this installation and this deployment are changed
or stopped. A service of somebody else in the way is a refusal, never overwritten.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from mesh.errors import Conflict, TrellisError
from mesh.state.service import ServiceSpec
from mesh.state.spec_rules import dependencies_first
from services.lcm.model import (
    Change,
    Deployment,
    DeploymentState,
    Now,
    Operation,
    OperationKind,
    OperationState,
    WorkloadStatus,
)
from services.lcm.rules import service_specs
from services.reconciler.model import MARK, Action, Apply, Declared, Plan, Stop

#: An operation that is not done so long after it has begun is given up; the deployment is healed further.
OPERATION_MAX: Final = timedelta(minutes=10)
#: A deployment that was refused is tried again after this.
REFUSED_PAUSE: Final = timedelta(seconds=30)

Services = Mapping[str, Declared]


def mark_of(installation: str, deployment: str) -> str:
    return f"{installation}/{deployment}"


def wanted(deployment: Deployment, installation: str) -> tuple[ServiceSpec, ...]:
    """What is to be declared, each after those it depends on, with the mark."""
    mark = (MARK, mark_of(installation, deployment.name))
    return tuple(
        replace(spec, environment=tuple(sorted((*spec.environment, mark))))
        for spec in dependencies_first(service_specs(deployment.spec))
    )


def plan(
    deployment: Deployment, operation: Operation | None, services: Services, installation: str, at: datetime
) -> Plan:
    """What to do next for one deployment."""
    if operation is not None and operation.state is OperationState.PENDING:
        return Plan(begin=True)
    own = _own(services, mark_of(installation, deployment.name))
    if deployment.state is DeploymentState.DELETING:
        return Plan(actions=_stops(own))
    is_refused = deployment.state is DeploymentState.FAILED and operation is None
    if is_refused and at - deployment.updated < REFUSED_PAUSE:
        return Plan(resting=True)
    specs = wanted(deployment, installation)
    foreign = [spec.name for spec in specs if spec.name in services and spec.name not in own]
    if foreign:
        return Plan(refusal=_in_the_way(foreign, services))
    applies = [apply for spec in specs if (apply := _apply(spec, services.get(spec.name)))]
    names = {spec.name for spec in specs}
    return Plan(actions=(*applies, *_stops({name: own[name] for name in own if name not in names})))


def orphans(services: Services, installation: str, deployments: Iterable[str]) -> tuple[str, ...]:
    """Services of deployments that are not there any more, sorted."""
    marks = {mark_of(installation, name) for name in deployments}
    prefix = mark_of(installation, "")
    return tuple(
        sorted(
            name for name, each in services.items() if each.mark.startswith(prefix) and each.mark not in marks
        )
    )


def in_turn(names: Iterable[str], ended_at: str) -> tuple[str, ...]:
    """All of them, sorted, beginning after the one where the last round ended early (empty: at the first)."""
    ordered = sorted(names)
    return (*(name for name in ordered if name > ended_at), *(name for name in ordered if name <= ended_at))


def deployment_of_mark(mark: str) -> str:
    """The name of the deployment in a mark."""
    return mark.rpartition("/")[2]


def begin(deployment: Deployment, operation: Operation, now: Now) -> Change:
    """The operation has begun."""
    begun = replace(
        operation,
        state=OperationState.RUNNING,
        message="Begun.",
        begun=now.at,
        revision=now.revision,
        updated=now.at,
    )
    if deployment.state is DeploymentState.DELETING:
        return Change(deployment, (begun,))
    deploying = replace(deployment, state=DeploymentState.DEPLOYING, revision=now.revision, updated=now.at)
    return Change(deploying, (begun,))


def judge(
    deployment: Deployment, operation: Operation | None, services: Services, installation: str,
    refusal: TrellisError | None, now: Now,
) -> Change | None:  # fmt: skip
    """How it stands now; None when nothing is new."""
    if deployment.state is DeploymentState.DELETING:
        return _judge_deletion(deployment, operation, services, installation, refusal, now)
    statuses = _statuses(deployment, services, installation)
    whole = all(not status.reason for status in statuses)
    state = _state(deployment, operation, refusal, whole=whole)
    judged = replace(
        deployment,
        state=state,
        workloads=statuses,
        reason=refusal.message if refusal else _first_reason(statuses),
    )
    ended = _judge_operation(operation, statuses, refusal, now) if operation else None
    is_tried_again = refusal is not None and now.at - deployment.updated >= REFUSED_PAUSE
    if judged == deployment and ended == operation and not is_tried_again:
        return None
    if judged != deployment or is_tried_again:
        judged = replace(judged, revision=now.revision, updated=now.at)
    changed = (replace(ended, revision=now.revision, updated=now.at),) if ended and ended != operation else ()
    return Change(judged, changed)


def _judge_deletion(
    deployment: Deployment, operation: Operation | None, services: Services, installation: str,
    refusal: TrellisError | None, now: Now,
) -> Change | None:  # fmt: skip
    left = sorted(_own(services, mark_of(installation, deployment.name)))
    if operation is None:
        return None  # a deletion always has one
    if not left:
        done = replace(
            operation,
            state=OperationState.SUCCEEDED,
            steps_done=operation.steps_all,
            message="Deleted.",
            revision=now.revision,
            updated=now.at,
        )
        return Change(None, (done,), last=replace(deployment, revision=now.revision, updated=now.at))
    message = refusal.message if refusal else f"Stopping {', '.join(left)}."
    steps = max(0, operation.steps_all - 1 - len(left))
    stands = replace(operation, steps_done=max(operation.steps_done, steps), message=message)
    if stands == operation:
        return None
    return Change(deployment, (replace(stands, revision=now.revision, updated=now.at),))


def _judge_operation(
    operation: Operation, statuses: tuple[WorkloadStatus, ...], refusal: TrellisError | None, now: Now
) -> Operation:
    declared = sum(bool(status.declared_version) for status in statuses)
    ready = sum(bool(status.declared_version) and not status.reason for status in statuses)
    steps = max(operation.steps_done, declared + ready)
    if refusal is not None:
        return replace(operation, state=OperationState.FAILED, message=refusal.message, reason=refusal.reason)
    if ready == len(statuses):
        how = "Updated" if operation.kind is OperationKind.UPDATE else "Created"
        message = f"{how}: every workload is ready."
        return replace(
            operation, state=OperationState.SUCCEEDED, steps_done=operation.steps_all, message=message
        )
    if now.at - (operation.begun or operation.created) > OPERATION_MAX:
        message = f"Not whole in time: {_first_reason(statuses)} It is healed further."
        return replace(operation, state=OperationState.FAILED, message=message, reason="DEADLINE")
    message = f"{declared} of {len(statuses)} workloads declared, {ready} ready. {_first_reason(statuses)}"
    return replace(operation, steps_done=steps, message=message)


def _state(
    deployment: Deployment, operation: Operation | None, refusal: TrellisError | None, *, whole: bool
) -> DeploymentState:
    """A table: what was, and what is seen."""
    if refusal is not None:
        return DeploymentState.FAILED
    if whole:
        return DeploymentState.RUNNING
    if operation is not None:
        return DeploymentState.DEPLOYING
    return {
        DeploymentState.RUNNING: DeploymentState.DEGRADED,
        DeploymentState.DEGRADED: DeploymentState.DEGRADED,
        DeploymentState.FAILED: DeploymentState.FAILED,
    }.get(deployment.state, DeploymentState.DEPLOYING)


def _statuses(deployment: Deployment, services: Services, installation: str) -> tuple[WorkloadStatus, ...]:
    mark = mark_of(installation, deployment.name)
    marked = {spec.name: spec for spec in wanted(deployment, installation)}
    return tuple(
        _status(workload.name, spec.name, marked[spec.name], services.get(spec.name), mark)
        for workload, spec in zip(deployment.spec.workloads, service_specs(deployment.spec), strict=True)
    )


def _status(
    name: str, service: str, spec: ServiceSpec, declared: Declared | None, mark: str
) -> WorkloadStatus:
    if declared is None or declared.mark != mark or declared.spec != spec or declared.stopped:
        return WorkloadStatus(name, service, reason=f"{service} is not declared yet.")
    if declared.ready >= spec.instances_min:
        return WorkloadStatus(name, service, declared.version, declared.ready)
    why = f": {declared.degraded_reason}" if declared.degraded_reason else ""
    reason = f"{service} has {declared.ready} of {spec.instances_min} instances ready{why}."
    return WorkloadStatus(name, service, declared.version, declared.ready, reason)


def _first_reason(statuses: Iterable[WorkloadStatus]) -> str:
    return next((status.reason for status in statuses if status.reason), "")


def _apply(spec: ServiceSpec, declared: Declared | None) -> Apply | None:
    if declared is None:
        return Apply(spec, 0)
    if declared.spec != spec or declared.stopped:
        return Apply(spec, declared.version)
    return None


def _own(services: Services, mark: str) -> dict[str, Declared]:
    return {name: each for name, each in services.items() if each.mark == mark}


def _stops(services: Services) -> tuple[Action, ...]:
    """Those that depend on others first."""
    order = dependencies_first([services[name].spec for name in sorted(services)])
    return tuple(Stop(spec.name, services[spec.name].version) for spec in reversed(order))


def _in_the_way(names: Iterable[str], services: Services) -> Conflict:
    name = min(names)
    owner = services[name].mark
    whose = f"deployment {deployment_of_mark(owner)}" if owner else "an operator"
    return Conflict(
        f"There is a service {name} already, declared by {whose}. Stop it, or choose other names.",
        service=name,
    )
