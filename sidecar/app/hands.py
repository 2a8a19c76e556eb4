"""What the host's loop acts with, as protocols: instances, routes, the fence, an interface.

The features implement them for real; a simulated host brings its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.ids import FencingTerm
from mesh.state.database_model import DatabaseStatus
from mesh.state.service import InstanceStatus
from sidecar.routing.model import RoutingView
from sidecar.routing.process import ProcessHandle
from sidecar.supervisor.model import Assignment


class Instances(Protocol):
    """The processes of this host."""

    def assign(self, assignments: Sequence[Assignment]) -> None:
        """These should run, and no others."""

    def statuses(self) -> tuple[InstanceStatus, ...]:
        """Every instance there is."""

    async def kill_exclusive(self) -> None:
        """Kill every exclusive instance; returns when their process trees are gone."""


class Routes(Protocol):
    """The Envoy of this host."""

    @property
    def vip_listening(self) -> bool: ...

    def publish(self, view: RoutingView) -> None:
        """Route so from now on."""

    def envoy_handle(self) -> ProcessHandle | None:
        """The process, if it runs."""


class Fence(Protocol):
    """The process that clears what must not outlive the lease."""

    def set_deadline(self, deadline_ns: int) -> None:
        """Clear everything registered at this moment of CLOCK_BOOTTIME."""

    async def register_tree(self, name: str, pid: int, start_time: int, cgroup: str | None) -> None:
        """Kill this process tree when clearing. Fails: `TrellisError`; then it is not held."""

    async def register_address(self, name: str, ifindex: int, address: str, prefix: int) -> None:
        """Remove this address when clearing. Fails: as above."""

    async def unregister(self, name: str) -> None:
        """Hold it no longer."""


class Database(Protocol):
    """The PostgreSQL of this host."""

    def wake(self) -> None:
        """The state, or the lease, is another."""

    async def give_way(self) -> None:
        """End what acts as primary; returns when nothing of it is left."""

    def has_given_up(self, fencing_term: FencingTerm) -> bool:
        """Nothing acts, and under this number nothing will again."""

    @property
    def status(self) -> DatabaseStatus | None:
        """What it is, as the cluster is told; None before it was looked at."""


class Interface(Protocol):
    """The interface that carries the virtual IP."""

    @property
    def ifindex(self) -> int: ...
    @property
    def prefix(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Hands:
    """One host's."""

    instances: Instances
    routes: Routes
    fence: Fence
    #: None: this host carries none.
    database: Database | None = None
