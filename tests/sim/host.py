"""One life of a sidecar on a simulated machine, made of the real parts.

A life is what a process holds in memory; it is never repaired, only dropped.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from opentelemetry.trace import NoOpTracer

from mesh.consensus import Consensus
from mesh.driver import RaftDriver
from mesh.errors import TrellisError
from mesh.ids import PRIMARY, VIP, FencingTerm, HostId, Index, MemberId, OwnedName, Term
from mesh.raft.model import Entry, Membership, Role, SoftState
from mesh.replica import OutcomeCodec, Replica
from mesh.state import checkpoint
from mesh.state.model import ChangeKind
from mesh.state.watch import ChangeSet
from mesh.surroundings import Surroundings
from mesh.telemetry.traces import Traces
from sidecar.app.core import Clocks, Core
from sidecar.app.handover import HandOver
from sidecar.app.hands import Hands
from sidecar.app.transitions import Transitions
from sidecar.app.vip_hold import VipHold
from tests.sim.calls import LeaderServer, SimBeatStream, SimLeaderClient
from tests.sim.disk import Disk, SimStore, SimWriter
from tests.sim.fence import SimFence
from tests.sim.hands import SimInstances, SimRoutes, SimVip
from tests.sim.loop import SimLoop
from tests.sim.machine import Machine
from tests.sim.observed import Founded, Observed
from tests.sim.postgres.on_host import HostDatabase
from tests.sim.queue_lengths import follow
from tests.sim.trace import (
    Applied,
    Committed,
    LeaseExtended,
    MembershipCommitted,
    Owned,
    Removed,
    Restored,
    RoleChanged,
    Start,
)
from tests.sim.transport import SimTransport

STOP_S = 30.0
ADDRESS = "10.0.0.100"


class _Watched:
    """The replica's state machine, with a record of each step."""

    def __init__(self, life: "Life") -> None:
        self._life = life
        self._machine = life.replica.machine

    def apply(self, index: Index, data: bytes) -> object:
        life, machine = self._life, self._machine
        outcome = machine.apply(index, data)
        state_hash = machine.hash if machine.hash_index == index else b""
        life.world.emit(Applied(life.world.now, life.host, life.member, index, state_hash))
        return outcome

    def check(self, data: bytes) -> None:
        self._machine.check(data)

    def snapshot(self) -> Callable[[], bytes]:
        return self._machine.snapshot()

    def restore(self, data: bytes) -> None:
        life, machine = self._life, self._machine
        machine.restore(data)
        state = machine.state
        life.world.emit(Restored(life.world.now, life.host, life.member, state.applied, checkpoint(state)))


class Life:
    """One sidecar process. Fails: `Corruption` when its disk is damaged; then it never was."""

    core: Core

    def __init__(self, machine: Machine, disk: Disk, chance: Random) -> None:
        world = self.world = machine.world
        self.machine, self.host, self.member, self.clock = machine, machine.name, disk.member, machine.clock
        self.number = machine.lives
        self.chance = chance
        self.loop = SimLoop(world.scheduler, machine.clock, world.bug)  # type: ignore[abstract]
        self.loop.life = self
        self.incoming: list[Any] = []
        self.codec = OutcomeCodec()
        self.store = SimStore(disk, machine.name, world)
        self.writers: list[SimWriter] = []
        self.replica = Replica(disk.member, nonce=f"{machine.lives}", is_witness=machine.is_witness)
        self.is_ending = False
        #: What ends it, if that was not asked for.
        self._fatal = ""
        self._sources = 0
        self._owned: dict[OwnedName, tuple[HostId | None, FencingTerm]] = {}
        self._members: frozenset[MemberId] = frozenset()
        self._begin_record(disk)
        self.driver = RaftDriver(
            raft=world.raft_settings(disk.member),
            store=self.store,
            machine=_Watched(self),
            settings=world.driver_settings(),
            around=Surroundings(machine.clock.boottime_ns, chance, self._make_writer),
            observers=[self],
        )
        self.services = LeaderServer(self)
        self.transport = SimTransport(self)
        self.consensus = Consensus(
            driver=self.driver,
            codec=self.codec,
            transport=self.transport,
            client=SimLeaderClient(self),
        )
        self.consensus.on_failed = self.fail
        self.replica.attach(self.consensus)
        self._make_hands()

    def _begin_record(self, disk: Disk) -> None:
        world = self.world
        is_new = self.number == 1 or disk.is_new
        disk.is_new = False
        world.emit(
            Start(
                world.now,
                self.host,
                self.member,
                self.number,
                is_new,
                disk.hard_state,
                disk.first_index,
                disk.last,
            )
        )

    def _make_writer(self, name: str) -> SimWriter:
        writer = SimWriter(
            loop=self.loop,
            store=self.store,
            faults=self.machine.disk_faults,
            chance=self.chance,
            now=lambda: self.world.scheduler.now,
            count=self.world.count,
        )
        self.writers.append(writer)
        return writer

    def _make_hands(self) -> None:
        world, machine = self.world, self.machine
        self.instances = SimInstances(
            machine,
            self.loop,
            self.chance,
            on_change=lambda: self.core.instance_changed(),
            on_exclusive=lambda instance, handle: self.core.host.exclusive_changed(instance, handle),
            may_act=lambda: self.core.host.is_live(),
        )
        self.fence = SimFence(
            machine,
            self.loop,
            self.chance,
            told=self._lease_extended,
            cleared=self._cleared,
            fenced=lambda report: self.core.host.fenced(report),
            late_ns_max=world.timers.release_bound_ns * 8 // 10,
        )
        self.observed = Observed(self)
        server = machine.postgres
        self.database = HostDatabase(self, server) if server is not None else None
        driver = self.database.driver if self.database is not None else None
        routes = machine.routes = SimRoutes()
        self.core = Core(
            replica=self.replica,
            consensus=self.consensus,
            timers=world.timers,
            margin_ns=world.margin_ns,
            clocks=Clocks(machine.clock.boottime_ns, machine.clock.wall_ns),
            hands=Hands(self.instances, routes, self.fence, driver),
            observed=self.observed,
            founded=Founded(machine),
            open_beats=lambda leader: SimBeatStream(self, leader),
            transitions=Transitions(
                traces=Traces(NoOpTracer(), world.cluster), host=self.host, wall_ns=machine.clock.wall_ns
            ),
            surrounding=self,
            plan_database=self.database.plan if self.database is not None else None,
        )
        self.vip = SimVip(machine, self.chance, self.core.host.is_live)
        self.core.vip = VipHold(
            vip=self.vip, fence=self.fence, routing=routes, address=ADDRESS, netlink=self.vip
        )
        self.hand_over = HandOver(self.core, self._ask_to_transfer)
        self.replica.subscribe(self._state_changed)
        self._state_changed(ChangeSet(Index(0), ()))

    async def _ask_to_transfer(self, to: HostId | None, timeout_s: float) -> HostId:
        raise TrellisError("operators of a simulation ask the leader themselves")

    # ---- life -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run."""
        self.members_changed()
        loops: dict[str, Coroutine[Any, Any, None]] = {
            "consensus": self.consensus.run(),
            "node": self.core.node.run(),
            "host": self.core.host.run(),
            "beats": self.core.beats.run(),
        }
        if self.database is not None:
            loops["database"] = self.database.driver.run()
        if self.core.vip is not None:
            loops["vip"] = self.core.vip.run(self.core.host.is_live)
        self.running = [self.loop.create_task(self._guard(work), name=name) for name, work in loops.items()]
        follow(self)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the sidecar must not go on
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Something fatal: give everything up and end, as `Sidecar` does. A bug ends the run."""
        if self.loop.is_dropped:
            return
        if not isinstance(_first(error), TrellisError):
            self.world.bug(error)
        self.end(type(_first(error)).__name__)

    def end(self, error: str = "") -> None:
        """End in order; *error* names what was fatal."""
        self._fatal = self._fatal or error
        if not self.is_ending:
            self.is_ending = True
            self.ending = self.loop.create_task(self._end(), name="end")

    async def _end(self) -> None:
        """As `Sidecar._end`."""
        self.observed.leaving = self.core.host.leaving = True
        try:
            async with asyncio.timeout(STOP_S):
                if not self._fatal:
                    await self.hand_over.leave()
                    if self.database is not None:
                        await self.database.driver.stop()
                await self.core.host.give_way()
                await self.instances.stop_all()
        except TimeoutError:
            self.world.count("stop-overrun")
        except Exception as bug:  # noqa: BLE001 - a bug in ending is a bug
            self.world.bug(bug)
        if not self._fatal:
            self.consensus.stop()
            for task in reversed(self.running):
                task.cancel()
            await asyncio.gather(*self.running, return_exceptions=True)
        self.fence.strike("fence")
        self.world.ended(self, self._fatal)

    def next_source(self) -> int:
        """The number of a new beat stream to this host."""
        self._sources += 1
        return self._sources

    def reach(self, member: MemberId) -> "Life | None":
        """The life behind a known address, if the right member runs there."""
        return self.world.life_of(member) if self.transport.knows(member) else None

    # ---- Surrounding ------------------------------------------------------------------

    def members_changed(self) -> None:
        """See Surrounding."""
        known = {row.member: row.address for row in self.replica.state.members.values()}
        self.consensus.set_peers(known or self.machine.seeds)

    def certificates_revoked(self) -> None:
        """See Surrounding."""

    def membership_due(self) -> None:
        """See Surrounding."""

    def diverged(self) -> None:
        """See Surrounding."""
        self.world.violated("state-machine", f"{self.host} is told that its state has diverged")

    # ---- what is written down ----------------------------------------------------------

    def role_changed(self, soft: SoftState) -> None:
        """See DriverObserver."""
        status = self.driver.status()
        world = self.world
        world.emit(
            RoleChanged(
                world.now,
                self.host,
                self.member,
                soft.role,
                soft.term,
                soft.leader,
                status.last,
                status.commit,
                self.driver.stood_for,
            )
        )
        world.role_changed(self, soft.role is Role.LEADER)

    def entries_committed(self, entries: Sequence[Entry]) -> None:
        """See DriverObserver."""
        self.world.emit(
            Committed(self.world.now, self.host, self.member, Term(self.driver.term), tuple(entries))
        )

    def membership_changed(self, membership: Membership) -> None:
        """See DriverObserver."""
        self.world.emit(MembershipCommitted(self.world.now, self.host, self.member, membership))

    def crash_proven(self, member: MemberId) -> None:
        """See DriverObserver."""

    def _lease_extended(self, until_ns: int) -> None:
        world = self.world
        left = until_ns - self.clock.boottime_ns()
        world.emit(LeaseExtended(world.now, self.host, self.member, until_ns, left))

    def _cleared(self, owned: OwnedName) -> None:
        if owned == PRIMARY:
            self.machine.end_postgres("fence")
        elif owned != VIP:
            self.instances.killed(owned)

    def _state_changed(self, changes: ChangeSet) -> None:
        kinds = {change.kind for change in changes.changes}
        if not kinds or ChangeKind.OWNERSHIP in kinds:
            self._tell_owners(changes.index)
        if not kinds or ChangeKind.MEMBER in kinds:
            self._tell_members(changes.index)
        if self.world.databases is not None and (not kinds or ChangeKind.DATABASE in kinds):
            self.world.databases.applied(self)

    def _tell_owners(self, index: Index) -> None:
        world = self.world
        for name, row in self.replica.state.owners.rows.items():
            owned = (row.holder, row.fencing_term)
            if self._owned.get(name) != owned:
                self._owned[name] = owned
                world.emit(
                    Owned(world.now, self.host, self.member, index, name, row.holder, row.fencing_term)
                )

    def _tell_members(self, index: Index) -> None:
        world = self.world
        members = frozenset(row.member for row in self.replica.state.members.values())
        for gone in sorted(self._members - members):
            world.removed.add(gone)
            world.emit(Removed(world.now, self.host, self.member, index, gone))
        self._members = members


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
