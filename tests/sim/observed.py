"""What a simulated host says of itself, and what its disk has of the founding."""

from typing import TYPE_CHECKING, Final

from trellis.heartbeat.v1 import heartbeat_pb2

from mesh.ids import Index
from mesh.state.commands import Batch
from mesh.state.database_model import DatabaseStatus
from mesh.state.service import InstanceStatus
from tests.sim.machine import Machine

if TYPE_CHECKING:
    from tests.sim.host import Life

NO_CAPACITY: Final = heartbeat_pb2.Capacity()


class Observed:
    """What this host says of itself in its beats."""

    def __init__(self, life: "Life") -> None:
        self._life = life
        self.leaving = False

    def instances(self) -> tuple[InstanceStatus, ...]:
        return self._life.instances.statuses()

    def state_hash(self) -> tuple[Index, bytes]:
        machine = self._life.replica.machine
        return machine.hash_index, machine.hash

    def database(self) -> DatabaseStatus | None:
        """None: it carries none, or has not looked yet."""
        database = self._life.database
        return database.driver.status if database is not None else None

    def capacity(self) -> heartbeat_pb2.Capacity:
        return NO_CAPACITY

    def is_draining(self) -> bool:
        return self.leaving


class Founded:
    """The founding, on the machine's disk."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def command(self) -> Batch | None:
        return self._machine.founding

    def forget(self) -> None:
        self._machine.founding = None
