"""What a request makes of a deployment: pure functions of what is there.

Each takes what the database holds, locked, and returns the `Change` that is
written as a whole, or raises the refusal. None of them reads a clock or draws an id:
both come in `Now`.
"""

from dataclasses import replace
from typing import Final

from mesh.errors import Conflict, NotFound, VersionConflict
from services.lcm.model import (
    DEPLOYMENTS_MAX,
    Change,
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Now,
    Operation,
    OperationKind,
    OperationState,
    WorkloadStatus,
    service_name,
)

REQUESTED: Final = "Requested; the reconciler has not begun."


def create(present: Deployment | None, count: int, spec: DeploymentSpec, now: Now) -> Change:
    """A new deployment and the operation that brings it about."""
    if present is not None:
        leaving = " It is being deleted; wait for that." if present.state is DeploymentState.DELETING else ""
        raise Conflict(
            f"There is a deployment {spec.name} already, at version {present.version}.{leaving}"
            " Update it, or choose another name.",
            name=spec.name,
        )
    if count >= DEPLOYMENTS_MAX:
        raise Conflict(f"There are {count} deployments, the most there may be: delete one first.")
    operation = _begin(OperationKind.CREATE, spec, 1, now)
    deployment = Deployment(
        spec=spec,
        uid=now.uid,
        version=1,
        state=DeploymentState.REQUESTED,
        operation_id=operation.id,
        revision=now.revision,
        created=now.at,
        updated=now.at,
        workloads=_undeclared(spec),
    )
    return Change(deployment, (operation,))


def update(
    present: Deployment | None, open_operation: Operation | None, spec: DeploymentSpec, expected: int | None,
    now: Now,
) -> Change:  # fmt: skip
    """Other workloads. An operation that is not done is overtaken."""
    found = _expected(present, spec.name, expected)
    if found.state is DeploymentState.DELETING:
        raise Conflict(f"{spec.name} is being deleted. Create it anew when that is done.", name=spec.name)
    version = found.version + 1
    operation = _begin(OperationKind.UPDATE, spec, version, now)
    known = {status.name: status for status in found.workloads}
    deployment = replace(
        found,
        spec=spec,
        version=version,
        state=DeploymentState.REQUESTED,
        reason="",
        operation_id=operation.id,
        revision=now.revision,
        updated=now.at,
        workloads=tuple(known.get(status.name, status) for status in _undeclared(spec)),
    )
    return Change(deployment, (operation, *_overtaken(open_operation, f"version {version}", now)))


def delete(
    present: Deployment | None, open_operation: Operation | None, name: str, expected: int | None, now: Now
) -> Change:
    """Being deleted from now on. Deleting what is being deleted joins the operation under way."""
    found = _expected(present, name, expected)
    if found.state is DeploymentState.DELETING and open_operation is not None:
        return Change(found, (open_operation,))
    operation = _begin(OperationKind.DELETE, found.spec, found.version, now)
    deployment = replace(
        found,
        state=DeploymentState.DELETING,
        reason="",
        operation_id=operation.id,
        revision=now.revision,
        updated=now.at,
    )
    return Change(deployment, (operation, *_overtaken(open_operation, "its deletion", now)))


def cancel(present: Deployment | None, operation: Operation | None, operation_id: str, now: Now) -> Change:
    """Only what nothing has been done for can be undone by saying so."""
    if operation is None:
        raise NotFound(f"There is no operation {operation_id}.", id=operation_id)
    if operation.state is not OperationState.PENDING:
        how = "has begun" if operation.state is OperationState.RUNNING else "is done"
        raise Conflict(
            f"The operation {how}, and cancelling it would not undo it:"
            " update or delete the deployment instead.",
            id=operation_id,
        )
    if operation.kind is OperationKind.UPDATE:
        raise Conflict(
            "The former workloads are not kept: update the deployment to what you want.", id=operation_id
        )
    cancelled = _end(operation, OperationState.CANCELLED, "Cancelled before anything was done.", now)
    if present is None or present.operation_id != operation.id:
        return Change(present, (cancelled,))
    if operation.kind is OperationKind.CREATE:
        return Change(None, (cancelled,), last=replace(present, revision=now.revision, updated=now.at))
    kept = replace(
        present,
        state=DeploymentState.REQUESTED,
        reason="Its deletion was cancelled.",
        revision=now.revision,
        updated=now.at,
    )
    return Change(kept, (cancelled,))


def _expected(present: Deployment | None, name: str, expected: int | None) -> Deployment:
    if present is None:
        raise NotFound(f"There is no deployment {name}.", name=name)
    if expected is not None and expected != present.version:
        raise VersionConflict(
            f"{name} is at version {present.version}, not {expected}: read it again and decide anew.",
            version=present.version,
        )
    return present


def _begin(kind: OperationKind, spec: DeploymentSpec, version: int, now: Now) -> Operation:
    return Operation(
        id=now.operation_id,
        kind=kind,
        deployment=spec.name,
        deployment_version=version,
        state=OperationState.PENDING,
        steps_done=0,
        # a deletion: each service, and the deployment itself; else each service declared, and ready
        steps_all=len(spec.workloads) + 1 if kind is OperationKind.DELETE else 2 * len(spec.workloads),
        message=REQUESTED,
        revision=now.revision,
        created=now.at,
        updated=now.at,
    )


def _overtaken(operation: Operation | None, by: str, now: Now) -> tuple[Operation, ...]:
    if operation is None:
        return ()
    return (_end(operation, OperationState.CANCELLED, f"Overtaken by {by}.", now),)


def _end(operation: Operation, state: OperationState, message: str, now: Now) -> Operation:
    return replace(operation, state=state, message=message, revision=now.revision, updated=now.at)


def _undeclared(spec: DeploymentSpec) -> tuple[WorkloadStatus, ...]:
    return tuple(WorkloadStatus(each.name, service_name(spec.name, each.name)) for each in spec.workloads)
