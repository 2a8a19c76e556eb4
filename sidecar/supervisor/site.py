"""What all instances of a host share: its places, its limits, and whom to tell."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh.adapters.cgroup import Hierarchies
from mesh.ids import InstanceId
from sidecar.supervisor.logs import Logs
from sidecar.supervisor.model import ExclusiveHandle, SupervisorSettings
from sidecar.supervisor.ports import PortAllocator
from sidecar.supervisor.records import Records

if TYPE_CHECKING:
    from sidecar.supervisor.instance import Instance


@dataclass(frozen=True, slots=True)
class Site:
    """What all instances of a host share."""

    settings: SupervisorSettings
    hierarchies: Hierarchies
    ports: PortAllocator
    logs: Logs
    records: Records
    boot: str
    tasks: asyncio.TaskGroup
    jitter: Callable[[], float]
    on_change: Callable[["Instance"], None]
    on_exclusive: Callable[[InstanceId, ExclusiveHandle | None], None]
    #: This host may act for something exclusive at this moment.
    may_act: Callable[[], bool]
