"""The fence process beside a simulated sidecar, and its client."""

import asyncio
from collections.abc import Callable
from random import Random

from mesh.ids import PRIMARY, VIP, OwnedName
from sidecar.fence.client import FenceReport
from sidecar.postgres.acts import HELD_AS
from tests.sim.hands import Machine
from tests.sim.loop import Handle, SimLoop


class SimFence:
    """The fence process and its client: clears what is registered once the deadline has passed.

    It is a process of its own: it goes on while the sidecar is stopped, and clears when that ends.
    """

    def __init__(
        self,
        machine: Machine,
        loop: SimLoop,
        chance: Random,
        told: Callable[[int], None],
        cleared: Callable[[OwnedName], None],
        fenced: Callable[[FenceReport], None],
        late_ns_max: int,
    ) -> None:
        """*late_ns_max*: how long after its deadline it may take, at most."""
        self._machine = machine
        self._loop = loop
        self._chance = chance
        self._told = told
        self._cleared = cleared
        self._fenced = fenced
        self._late_ns_max = late_ns_max
        self._guarded: dict[str, OwnedName] = {}
        self._deadline = 0
        self._timer: Handle | None = None

    def set_deadline(self, deadline_ns: int) -> None:
        """See Fence."""
        self._deadline = deadline_ns
        self._told(deadline_ns)
        self._arm()

    def _arm(self) -> None:
        if self._guarded and (self._timer is None or self._timer.is_cancelled):
            scheduler = self._machine.scheduler
            at = max(scheduler.now, self._machine.clock.true_at(self._deadline))
            self._timer = self._machine.at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        if not self._guarded:
            return
        if self._machine.clock.boottime_ns() < self._deadline:
            self._arm()
            return
        scheduler = self._machine.scheduler
        late = int(self._chance.random() ** 4 * self._late_ns_max)
        self._timer = self._machine.at(scheduler.now + late, self._clear, self._deadline)

    def _clear(self, deadline: int) -> None:
        self._timer = None
        if self._deadline > deadline:  # a new one came meanwhile
            self._arm()
            return
        self.clear()

    def clear(self) -> None:
        """Clear everything now, and tell the sidecar."""
        names = self.strike("fence")
        if names:
            self._loop.call_soon(self._fenced, FenceReport(tuple(names), (), 1.0))

    def is_late(self) -> bool:
        """The deadline has passed."""
        return self._machine.clock.boottime_ns() >= self._deadline

    def strike(self, by: str) -> list[str]:
        """Clear everything that is registered; what it was."""
        names, owned = list(self._guarded), list(self._guarded.values())
        self._guarded.clear()
        for each in owned:
            self._machine.end(each, by)
            self._cleared(each)
        return names

    async def register_tree(self, name: str, pid: int, start_time: int, cgroup: str | None) -> None:
        """See Fence."""
        await self._register(name, owned_service_of(name))

    async def register_address(self, name: str, ifindex: int, address: str, prefix: int) -> None:
        """See Fence."""
        await self._register(name, VIP)

    async def _register(self, name: str, owned: OwnedName) -> None:
        self._guarded[name] = owned
        self._arm()
        await asyncio.sleep(0.0002 + self._chance.random() * 0.001)

    async def unregister(self, name: str) -> None:
        """See Fence."""
        self._guarded.pop(name, None)


def owned_service_of(instance: str) -> OwnedName:
    """The owned name of an exclusive instance, or of the database's server."""
    if instance == HELD_AS:
        return PRIMARY
    return OwnedName(f"service/{instance.partition('@')[0]}")
