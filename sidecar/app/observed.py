"""What this host says about itself in its heartbeats and to operators."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import psutil
from trellis.heartbeat.v1 import heartbeat_pb2

from mesh.errors import Problem
from mesh.ids import HostId, Index, InstanceId, ServiceName
from mesh.replica import Replica
from mesh.state.database_model import DatabaseStatus
from mesh.state.service import InstanceStatus, ServiceSpec
from sidecar.supervisor.driver import Supervisor
from sidecar.supervisor.process import check_command

LINES_QUEUED_MAX = 1_000


class Observed:
    """The host as it is now."""

    def __init__(self, *, host: HostId, data_dir: Path, replica: Replica, supervisor: Supervisor) -> None:
        self._host = host
        self._data_dir = data_dir
        self._replica = replica
        self._supervisor = supervisor
        self.fsync_s = 0.0
        #: Set once the database of this host is made.
        self.database_status: Callable[[], DatabaseStatus | None] = lambda: None
        self.leaving = False

    def instances(self) -> tuple[InstanceStatus, ...]:
        """Every instance of this host."""
        return self._supervisor.statuses()

    def state_hash(self) -> tuple[Index, bytes]:
        """The newest checkpoint of the replicated state here."""
        return self._replica.machine.hash_index, self._replica.machine.hash

    def is_draining(self) -> bool:
        """This sidecar is about to stop."""
        return self.leaving

    def database(self) -> DatabaseStatus | None:
        """The database of this host; None: it carries none, or was not looked at yet."""
        return self.database_status()

    def capacity(self) -> heartbeat_pb2.Capacity:
        """Room on this host."""
        memory = psutil.virtual_memory()
        capacity = heartbeat_pb2.Capacity(
            memory_available_bytes=memory.available,
            memory_total_bytes=memory.total,
            disk_available_bytes=psutil.disk_usage(str(self._data_dir)).free,
            cpus=psutil.cpu_count() or 1,
            load_centi=round(psutil.getloadavg()[0] * 100),
        )
        capacity.fsync.FromNanoseconds(int(self.fsync_s * 1e9))
        return capacity


class LocalInstances:
    """The supervisor as the admin servers want it."""

    def __init__(self, supervisor: Supervisor, observed: Observed) -> None:
        self._supervisor = supervisor
        self._observed = observed

    def pushed(self, instance: InstanceId, ok: bool) -> None:
        """A service says how it is. Fails: NotFound for a stranger."""
        self._supervisor.pushed(instance, ok)

    def is_draining(self, instance: InstanceId) -> bool:
        """The instance should finish what it has in hand."""
        return self._observed.is_draining() or all(
            status.instance != instance for status in self._supervisor.statuses()
        )

    def check_command(self, spec: ServiceSpec) -> Problem | None:
        """What is wrong with the program as seen from this host."""
        return check_command(spec)

    def _of(self, service: ServiceName) -> list[InstanceId]:
        return [status.instance for status in self._supervisor.statuses() if status.service == service]

    def tail(self, service: ServiceName, lines: int) -> Sequence[tuple[InstanceId, bytes]]:
        """The newest lines of each instance of a service here."""
        return [
            (instance, line.encode())
            for instance in self._of(service)
            for line in self._supervisor.tail(instance, lines)
        ]

    async def follow(self, service: ServiceName) -> AsyncIterator[tuple[InstanceId, bytes]]:
        """What the instances that run here now print from now on."""
        queue: asyncio.Queue[tuple[InstanceId, bytes]] = asyncio.Queue(LINES_QUEUED_MAX)

        async def read(instance: InstanceId) -> None:
            async for line in self._supervisor.follow(instance):
                await queue.put((instance, line.encode()))

        async with asyncio.TaskGroup() as tasks:
            for instance in self._of(service):
                tasks.create_task(read(instance), name=f"follow:{instance}")
            while True:
                yield await queue.get()
