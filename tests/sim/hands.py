"""What a simulated host acts with: processes, an address, the fence beside them.

They belong to the machine, not to the sidecar: they outlive its crash for the moment that kernel and
fence process need, and a frozen sidecar does not freeze them. `Machine.begin` and `end` say when
something acts, which is what the checkers judge.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from mesh.ids import VIP, FencingTerm, HostId, InstanceId, OwnedName, owned_service
from mesh.state.service import InstanceState, InstanceStatus
from mesh.waiting import wake_or_wait
from sidecar.routing.model import RoutingView
from sidecar.routing.process import ProcessHandle
from sidecar.supervisor.model import Assignment, ExclusiveHandle
from sidecar.vip import decide as vip_decide
from sidecar.vip.port import VipUnavailable
from tests.sim.clock import MS, NS, Clock
from tests.sim.loop import Handle, Scheduler, SimLoop

#: What the kernel takes at most to answer for an address.
KERNEL_NS = 2 * MS
ENDED = (InstanceState.STOPPED, InstanceState.EXITED)


class Machine(Protocol):
    """What hands need of the machine they are on."""

    name: HostId
    clock: Clock
    scheduler: Scheduler
    kernel_ns: int

    def at(self, when: int, act: Callable[..., None], *given: object) -> Handle:
        """Do it at a true time, or when the machine thaws."""

    def begin(self, name: OwnedName, fencing_term: FencingTerm) -> None: ...
    def end(self, name: OwnedName, by: str) -> None: ...


@dataclass(slots=True)
class Running:
    """One process, or the place where it will be."""

    assignment: Assignment
    state: InstanceState
    generation: int
    #: It is to end, whatever else happens.
    is_unwanted: bool = False
    #: It was killed: nothing ends it sooner.
    is_killed: bool = False
    started_as: Assignment | None = None


class SimInstances:
    """The supervisor: starts take a moment, stops as long as the grace allows."""

    def __init__(
        self,
        machine: Machine,
        loop: SimLoop,
        chance: Random,
        on_change: Callable[[], None],
        on_exclusive: Callable[[InstanceId, ExclusiveHandle | None], None],
        may_act: Callable[[], bool],
    ) -> None:
        self._machine = machine
        self._loop = loop
        self._chance = chance
        self._on_change = on_change
        self._on_exclusive = on_exclusive
        self._may_act = may_act
        self._present: dict[InstanceId, Running] = {}
        self._wanted: dict[InstanceId, Assignment] = {}
        self._gone = asyncio.Event()
        self._pids = 1_000
        self._statuses: tuple[InstanceStatus, ...] | None = ()

    # ---- what HostDriver calls --------------------------------------------------------

    def assign(self, assignments: Sequence[Assignment]) -> None:
        """See Instances."""
        wanted = {each.instance: each for each in assignments}
        if wanted == self._wanted and not self._differs(wanted):
            return
        self._wanted = wanted
        self._advance()

    def _differs(self, wanted: dict[InstanceId, Assignment]) -> bool:
        return len(wanted) != len(self._present) or any(each.is_unwanted for each in self._present.values())

    def statuses(self) -> tuple[InstanceStatus, ...]:
        """See Instances."""
        if self._statuses is None:
            self._statuses = tuple(self._status(each) for each in self._present.values())
        return self._statuses

    def _status(self, running: Running) -> InstanceStatus:
        told = running.started_as or running.assignment
        return InstanceStatus(
            instance=told.instance,
            service=told.spec.name,
            host=self._machine.name,
            generation=running.generation,
            state=running.state,
            ready=running.state is InstanceState.RUNNING,
            spec_version=told.spec_version,
            restart_nonce=told.restart_nonce,
        )

    async def kill_exclusive(self) -> None:
        """See Instances."""
        names = [name for name, each in self._present.items() if each.assignment.exclusive]
        for name in names:
            self._wanted.pop(name, None)
            self._stop(self._present[name], is_urgent=True)
        while any(name in self._present for name in names):
            self._gone.clear()
            await self._gone.wait()

    async def stop_all(self) -> None:
        """Stop everything, within grace."""
        self._wanted = {}
        self._advance()
        while self._present:
            self._gone.clear()
            await self._gone.wait()

    # ---- processes --------------------------------------------------------------------

    def _draw(self, low: int, high: int) -> int:
        return low + int(self._chance.random() * (high - low))

    def _advance(self) -> None:
        for name, running in list(self._present.items()):
            wanted = self._wanted.get(name)
            if wanted is None or wanted != running.assignment:
                is_urgent = wanted is not None and wanted.fencing_term != running.assignment.fencing_term
                self._stop(running, is_urgent=is_urgent)
        for name, assignment in self._wanted.items():
            if name not in self._present:
                self._present[name] = running = Running(assignment, InstanceState.STARTING, 1)
                self._later(self._draw(2 * MS, 8 * MS), self._spawned, running)
                self._changed()

    def _later(self, delay_ns: int, act: Callable[[Running], None], running: Running) -> None:
        self._loop.call_later(delay_ns / NS, act, running)

    def _spawned(self, running: Running) -> None:
        assignment = running.assignment
        if running.is_unwanted or self._present.get(assignment.instance) is not running:
            return
        if assignment.exclusive and not self._may_act():
            self._found_gone(assignment.instance, running)
            return
        running.started_as = assignment
        if assignment.exclusive:
            self._pids += 1
            fencing_term = FencingTerm(assignment.fencing_term or 0)
            self._machine.begin(owned_service(assignment.spec.name), fencing_term)
            self._on_exclusive(assignment.instance, ExclusiveHandle(self._pids, 1, "cgroup"))
        self._later(self._draw(5 * MS, 100 * MS), self._is_ready, running)

    def _is_ready(self, running: Running) -> None:
        if not running.is_unwanted and self._present.get(running.assignment.instance) is running:
            running.state = InstanceState.RUNNING
            self._changed()

    def _stop(self, running: Running, *, is_urgent: bool) -> None:
        if running.is_killed or (running.is_unwanted and not is_urgent):
            return  # it is being stopped already
        running.is_unwanted, running.is_killed = True, is_urgent
        running.state = InstanceState.STOPPING
        grace_ns = max(2 * MS, running.assignment.spec.grace_ms * MS)
        self._later(self._draw(1 * MS, 15 * MS if is_urgent else grace_ns), self._ended, running)
        self._changed()

    def _ended(self, running: Running) -> None:
        name = running.assignment.instance
        if self._present.get(name) is not running:
            return
        del self._present[name]
        if running.started_as is not None and running.assignment.exclusive:
            self._machine.end(owned_service(running.assignment.spec.name), "sidecar")
            self._on_exclusive(name, None)
        self._gone.set()
        self._advance()
        self._changed()

    def killed(self, owned: OwnedName) -> None:
        """Somebody else has killed what acted for *owned*: the supervisor finds it gone."""
        for name, running in list(self._present.items()):
            if running.assignment.exclusive and owned_service(running.assignment.spec.name) == owned:
                running.is_unwanted = running.is_killed = True
                self._loop.call_soon(self._found_gone, name, running)

    def _found_gone(self, name: InstanceId, running: Running) -> None:
        if self._present.get(name) is not running:
            return
        del self._present[name]
        self._on_exclusive(name, None)
        self._gone.set()
        self._loop.call_later(1.0, self._advance)  # back-off
        self._changed()

    def _changed(self) -> None:
        self._statuses = None
        self._loop.call_soon(self._on_change)


class SimRoutes:
    """The Envoy of a host: takes views and does nothing else."""

    vip_listening = False

    def __init__(self) -> None:
        self.view: RoutingView | None = None

    def publish(self, view: RoutingView) -> None:
        """See Routes."""
        self.view = view

    def envoy_handle(self) -> ProcessHandle | None:
        """See Routes."""
        return None


class SimVip:
    """An address on an interface, with the kernel's lifetime."""

    ifindex = 2
    prefix = 32

    def __init__(self, machine: Machine, chance: Random, may_act: Callable[[], bool]) -> None:
        self._machine = machine
        self._chance = chance
        self._may_act = may_act
        self._held: vip_decide.Held | None = None
        self._changed = asyncio.Event()
        self._kernel = asyncio.Lock()
        self._lapse: Handle | None = None
        self._term = FencingTerm(0)

    def _now(self) -> int:
        return self._machine.clock.boottime_ns()

    async def _ask_kernel(self) -> None:
        await asyncio.sleep(0.0002 + self._chance.random() * self._machine.kernel_ns / NS)

    async def claim(self, fencing_term: FencingTerm, *, probe: bool = True) -> None:
        """See VipDriver."""
        if probe and not self.is_held():
            await asyncio.sleep(vip_decide.PROBES * vip_decide.PROBE_S)
        now = self._now()
        async with self._kernel:
            if not self._may_act():
                raise VipUnavailable("the lease ended before the address was added")
            self._term = fencing_term
            self._renew()
            try:
                await self._ask_kernel()
            except asyncio.CancelledError:
                self._remove()
                raise
            if not self._may_act():
                self._remove()
                raise VipUnavailable("the lease ended while the address was added")
            self._held = vip_decide.Held(announce_from=now, refreshed_at=now, announced_at=now)
        self._changed.set()

    def _keep(self) -> None:
        """The kernel drops it by itself if nobody renews this."""
        if self._lapse is not None:
            self._lapse.cancel()
        machine = self._machine
        after = machine.clock.true_ns(vip_decide.VALID_S * NS)
        self._lapse = machine.at(machine.scheduler.now + after, machine.end, VIP, "kernel")

    def _remove(self) -> None:
        if self._lapse is not None:
            self._lapse.cancel()
        self._machine.end(VIP, "sidecar")

    async def refresh(self) -> None:
        """See VipDriver."""
        held = self._held
        if held is None:
            return
        now = self._now()
        held = self._held = replace(held, announced_at=now)
        if now >= vip_decide.next_refresh(held):
            async with self._kernel:
                await self._renew_held()

    async def _renew_held(self) -> None:
        if self._held is not None and self._may_act():
            now = self._now()
            self._renew()
            await self._ask_kernel()
            self._refreshed(now)

    def _renew(self) -> None:
        """As the real one, this puts the address up again if it had lapsed meanwhile."""
        self._machine.begin(VIP, self._term)
        self._keep()

    def _refreshed(self, now: int) -> None:
        if self._held is not None:
            self._held = replace(self._held, refreshed_at=now)

    async def release(self) -> None:
        """See VipDriver."""
        self._held = None
        self._changed.set()
        async with self._kernel:
            self._held = None
            self._remove()
            await self._ask_kernel()

    def is_held(self) -> bool:
        """See VipDriver."""
        return self._held is not None and vip_decide.is_kept_by_kernel(self._held, self._now())

    async def wait_due(self) -> None:
        """See VipDriver."""
        while True:
            self._changed.clear()
            held = self._held
            wait_s = None if held is None else (vip_decide.next_refresh(held) - self._now()) / NS
            if wait_s is not None and wait_s <= 0:
                return
            await wake_or_wait(self._changed, wait_s)
