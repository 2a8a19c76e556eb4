"""Deployments and operations, as the lifecycle manager thinks of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from mesh.state.service import ServiceSpec

NAME_CHARS_MAX: Final = 31
WORKLOADS_MAX: Final = 16
LABELS_MAX: Final = 32
LABEL_CHARS_MAX: Final = 63
DEPLOYMENTS_MAX: Final = 5_000
PAGE_MAX: Final = 1_000
PAGE_DEFAULT: Final = 100
#: Names of variables that the reconciler sets in a workload's environment.
RESERVED_VARIABLES: Final = "LCM_"


class DeploymentState(Enum):
    """Where a deployment is on its way."""

    REQUESTED = "requested"
    DEPLOYING = "deploying"
    RUNNING = "running"
    DEGRADED = "degraded"
    FAILED = "failed"
    DELETING = "deleting"


class OperationKind(Enum):
    """What an operation does."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class OperationState(Enum):
    """How far an operation is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_done(self) -> bool:
        return self not in (OperationState.PENDING, OperationState.RUNNING)


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """What a caller asks for.

    Invariant: the names of `workloads` and those in their `depends_on` are names
    within the deployment; `service_name` makes the mesh's names of them.
    """

    name: str
    workloads: tuple[ServiceSpec, ...]
    #: Sorted by key.
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadStatus:
    """How one workload is."""

    name: str
    service: str
    declared_version: int = 0
    ready: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment.

    Invariant: `version` rises with the specification only, `revision` with every change.
    """

    spec: DeploymentSpec
    uid: str
    version: int
    state: DeploymentState
    operation_id: str
    revision: int
    created: datetime
    updated: datetime
    reason: str = ""
    workloads: tuple[WorkloadStatus, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Operation:
    """What is being done to a deployment.

    Invariant: one deployment has at most one operation that is not done.
    """

    id: str
    kind: OperationKind
    deployment: str
    deployment_version: int
    state: OperationState
    steps_done: int
    steps_all: int
    message: str
    revision: int
    created: datetime
    updated: datetime
    reason: str = ""
    #: When something was first done for it.
    begun: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a request changes, and is answered with.

    `deployment` None: there is none any more; `last` is then how it was last.
    """

    deployment: Deployment | None
    operations: tuple[Operation, ...] = ()
    last: Deployment | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """What a decision needs and may not make up: the moment, and the revision that is being written."""

    at: datetime
    revision: int
    uid: str = ""
    operation_id: str = ""


def service_name(deployment: str, workload: str) -> str:
    """Name of a workload in the mesh."""
    return f"{deployment}-{workload}"


def is_selected(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Has each of the labels wanted."""
    return all(labels.get(key) == value for key, value in wanted.items())
