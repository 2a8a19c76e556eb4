"""What operators do while everything fails: transfer, drain, restart, remove, rebuild, change services.

They work as operators do: a request at some host, an answer or none, another try later. A host whose disk
is lost comes back as its next incarnation, one such host at a time; that bound is an assumption of the
design (a majority of disks is never lost at once), and no fault breaks it.
"""

from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING

from mesh.errors import InvariantBroken, TrellisError
from mesh.ids import HostId, Incarnation, MemberId, ServiceName, member_id
from mesh.raft.model import Role
from mesh.state.commands import (
    AdmitMember,
    ApplyService,
    Command,
    DrainHost,
    RemoveMember,
    RestartService,
    StopService,
)
from mesh.state.model import HostStatus, MemberRole
from mesh.state.service import ServiceMode
from sidecar.membership.standing import is_removed
from tests.sim.clock import NS
from tests.sim.cluster import member_row, service
from tests.sim.directed_operations import DIRECTED
from tests.sim.disk import Disk
from tests.sim.faults import CALM
from tests.sim.trace import Fault

if TYPE_CHECKING:
    from tests.sim.host import Life
    from tests.sim.machine import Machine
    from tests.sim.world import World

LOOK_NS = NS // 2
PROPOSE_S = 4.0

Work = Callable[["Life"], Awaitable[None]]


class Operations:
    """The operators of one run."""

    def __init__(self, world: "World", chance: Random) -> None:
        self.world = world
        self.chance = chance
        self.is_on = False
        #: What the time is multiplied by after which new hosts come.
        self.haste = 1.0
        #: The host that is not what it was: removed, or on its way back. One at a time.
        self.rebuilding: HostId | None = None
        share, calm = chance.choice((0.2, 0.5, 0.8)), chance.choice(CALM)
        self.kinds = {
            name: chance.choice((8.0, 20.0, 60.0)) * calm * (3 if name == "roll" else 1)
            for name in KINDS
            if chance.random() < share
        }

    def start(self) -> None:
        """Begin; hosts that are not of the cluster yet come first."""
        self.is_on = True
        for name in self.kinds:
            self._later(name)
        for machine in self.world.machines.values():
            if machine.disk is None:
                self._join_soon(machine)

    def _join_soon(self, machine: "Machine") -> None:
        after = int(self.chance.uniform(1, 20) * self.haste * NS)
        self.world.scheduler.at(self.world.now + after, self._rejoin, machine, Incarnation(0))

    def _later(self, name: str) -> None:
        pause = self.chance.expovariate(1 / self.kinds[name])
        self.world.scheduler.at(self.world.now + int(pause * NS) + 1, self._act, name)

    def _act(self, name: str) -> None:
        if self.is_on:
            (KINDS.get(name) or DIRECTED[name])(self)
            self._later(name)

    # ---- what operations use ----------------------------------------------------------

    def told(self, host: str, kind: str, detail: str = "") -> None:
        """Write it down and count it."""
        self.world.count(kind)
        self.world.emit(Fault(self.world.now, HostId(host), kind, detail))

    def life(self) -> "Life | None":
        """A host to ask: any that runs and holds the state."""
        able = [each for each in self.world.lives() if not each.is_ending and not each.machine.is_witness]
        return able[int(self.chance.random() * len(able))] if able else None

    def ask(self, life: "Life", work: Work, name: str) -> None:
        """Have *work* done at *life*; a refusal is an answer like another."""
        life.loop.create_task(_answered(life, work), name=f"operator:{name}")

    def propose(self, command: Command, name: str) -> None:
        """Have *command* proposed somewhere."""
        life = self.life()
        if life is not None:
            self.ask(life, lambda at: _propose(at, command), name)

    def machine(self) -> "Machine":
        """Any."""
        machines = list(self.world.machines.values())
        return machines[int(self.chance.random() * len(machines))]

    # ---- a host comes back as another member --------------------------------------------

    def rebuild(self, machine: "Machine") -> bool:
        """Its disk is of no use any more: admit it anew. False while another one is being rebuilt."""
        if self.rebuilding is not None or machine.disk is None or not self._may_lose(machine):
            return False
        self.rebuilding = machine.name
        before = Incarnation(int(machine.disk.member.rpartition(".")[2]))
        self.world.scheduler.at(self.world.now + NS, self._rejoin, machine, before)
        return True

    def remove(self, machine: "Machine") -> bool:
        """Remove it and admit it anew. False while another one is being rebuilt."""
        disk = machine.disk
        if self.rebuilding is not None or disk is None or not self._may_lose(machine):
            return False
        self.rebuilding = machine.name
        self.world.scheduler.at(self.world.now + 4 * NS, self._remove, machine, disk.member, 0)
        return True

    def _remove(self, machine: "Machine", member: MemberId, tries: int) -> None:
        """Until some host no longer knows it; then whatever runs of it ends, and it joins anew.

        With the end of the operations it is left as it is: a healed majority may need its vote.
        """
        world = self.world
        if not self.is_on:
            return
        if any(is_removed(life.replica.state, member) for life in world.lives()):
            after = int(self.chance.uniform(0.1, 20) * NS)
            world.scheduler.at(world.now + after, self._wipe, machine, member)
            return
        if tries > 60:  # it owns something that nobody else takes: give up, it stays
            self.rebuilding = None
            self.propose(DrainHost(machine.name, False), "undrain")
            world.start(machine)
            return
        self.propose(RemoveMember(member), "remove")
        world.scheduler.at(world.now + LOOK_NS, self._remove, machine, member, tries + 1)

    def _wipe(self, machine: "Machine", member: MemberId) -> None:
        if not self.is_on:
            return
        self.world.kill(machine, "kill")
        machine.disk = None
        before = Incarnation(int(member.rpartition(".")[2]))
        self.world.scheduler.at(self.world.now + NS, self._rejoin, machine, before)

    def _may_lose(self, machine: "Machine") -> bool:
        """Nothing else is missing of the membership, and without this disk all that was promised is there.

        Beside a witness, what the leader and the witness hold is on one disk only.
        """
        leader = self.world.leader()
        if leader is None:
            return False
        membership = leader.driver.status().membership
        disks = {each.disk.member for each in self.world.machines.values() if each.disk is not None}
        if (
            membership.is_joint
            or len(membership.voters) < 3
            or (membership.witnesses and not machine.is_witness)
        ):
            return False
        return all(member in disks for member in membership.voters)

    def _rejoin(self, machine: "Machine", before: Incarnation) -> None:
        """Until some host knows it under a later incarnation than *before*."""
        member = self._admitted(machine.name, before)
        if member is not None:
            self._begin(machine, member)
            return
        life = self.life()
        if life is not None:
            is_witness = machine.is_witness
            self.ask(life, lambda at: _admit(at, machine.name, before, is_witness), "admit")
        self.world.scheduler.at(self.world.now + LOOK_NS, self._rejoin, machine, before)

    def _admitted(self, host: HostId, before: Incarnation) -> MemberId | None:
        for life in self.world.lives():
            row = life.replica.state.member_of(host)
            if row is not None and row.incarnation > before:
                return row.member
        return None

    def _begin(self, machine: "Machine", member: MemberId) -> None:
        """What the answer to a join gives a host: its name, and where the others are."""
        world = self.world
        known = [life.replica.state for life in world.lives() if life.replica.state.members.get(member)]
        rows = known[0].members.values() if known else ()
        machine.seeds = {row.member: row.address for row in rows}
        machine.disk = Disk(member)
        self.told(machine.name, "op-joined", member)
        world.start(machine)
        world.scheduler.at(world.now + LOOK_NS, self._look, machine, member)

    def _look(self, machine: "Machine", member: MemberId) -> None:
        """The rebuilding ends when the member is one of the committed membership, and no old one is."""
        leader = self.world.leader()
        if leader is not None and self.rebuilding == machine.name:
            membership = leader.driver.status().membership
            others = {each for each in membership.members if each.startswith(f"{machine.name}.")}
            if others == {member} and not membership.is_joint:
                self.rebuilding = None
        if self.rebuilding == machine.name:
            self.world.scheduler.at(self.world.now + LOOK_NS, self._look, machine, member)


async def _answered(life: "Life", work: Work) -> None:
    try:
        await work(life)
    except TrellisError:
        return
    except InvariantBroken as bug:
        life.world.bug(bug)


async def _propose(life: "Life", command: Command) -> None:
    await life.replica.propose(command, timeout_s=PROPOSE_S, at_ns=life.clock.wall_ns())


async def _admit(life: "Life", host: HostId, before: Incarnation, is_witness: bool) -> None:
    """As `Admission.admit`: only a lost host's name may be used again."""
    await life.replica.barrier(timeout_s=PROPOSE_S)
    state = life.replica.state
    if state.info is None:  # whoever joins has a token, and there is none before the cluster is founded
        return
    row, record = state.member_of(host), state.hosts.get(host)
    if row is not None and row.incarnation > before:
        return
    if record is not None and record.status is not HostStatus.LOST:
        return
    member = member_id(host, Incarnation(state.counters.get(f"incarnation/{host}", 0) + 1))
    role = MemberRole.WITNESS if is_witness else MemberRole.LEARNER
    await _propose(life, AdmitMember(member_row(member, role)))


# ---- kinds ------------------------------------------------------------------------------


def _transfer(operations: Operations) -> None:
    leader = operations.world.leader()
    if leader is None or leader.is_ending:
        return
    names = [None, *operations.world.machines]
    to = operations.chance.choice(names)
    operations.told(leader.host, "op-transfer", to or "")

    async def transfer(life: "Life") -> None:
        if life.driver.role is Role.LEADER:
            await life.hand_over.transfer(to, timeout_s=PROPOSE_S)

    operations.ask(leader, transfer, "transfer")


def _drain(operations: Operations) -> None:
    host = operations.machine().name
    operations.told(host, "op-drain")
    operations.propose(DrainHost(host, True), "drain")
    after = int(operations.chance.uniform(0.5, 15) * NS)
    world = operations.world
    world.scheduler.at(world.now + after, operations.propose, DrainHost(host, False), "undrain")


def _restart(operations: Operations) -> None:
    """A sidecar is told to end, and started again."""
    life = operations.life()
    if life is None or life.loop.is_paused:
        return
    operations.told(life.host, "op-restart")
    _restart_life(operations, life.machine)


def _restart_life(operations: Operations, machine: "Machine") -> None:
    world = operations.world
    if machine.life is not None:
        machine.life.end()
    _start_again(operations, machine, world.now + 60 * NS)


def _start_again(operations: Operations, machine: "Machine", until: int) -> None:
    """Once it has ended."""
    world = operations.world
    if machine.life is None or not machine.life.is_ending:
        world.start(machine)
    elif world.now < until:
        after = int(operations.chance.uniform(0.1, 1.5) * NS)
        world.scheduler.at(world.now + after, _start_again, operations, machine, until)


def _roll(operations: Operations) -> None:
    """Every sidecar in turn, as for a new version; in between, both versions run."""
    world = operations.world
    operations.told("", "op-rolling-restart")
    versions = operations.chance.random() < 0.6
    for number, machine in enumerate(world.machines.values()):
        if versions:
            machine.is_previous = world.has_previous = True
        world.scheduler.at(world.now + (2 + 8 * number) * NS, _upgrade, operations, machine)


def _upgrade(operations: Operations, machine: "Machine") -> None:
    machine.is_previous = False
    if operations.is_on:
        _restart_life(operations, machine)


def _reformat(operations: Operations) -> None:
    """A machine loses its disk, and joins again with an empty one."""
    machine = operations.machine()
    if machine.disk is not None and operations.rebuild(machine):
        operations.told(machine.name, "op-reformat")
        operations.world.power_off(machine)
        machine.disk, machine.is_up = None, True


def _damage(operations: Operations) -> None:
    """Bits on a disk flip: the next start finds that, and the host has to be rebuilt."""
    machine = operations.machine()
    disk = machine.disk
    if disk is not None and not disk.damaged and operations.rebuild(machine):
        operations.told(machine.name, "disk-bit-flip")
        disk.damaged = "entry 7: its checksum does not match (simulated)"
        operations.world.kill(machine, "kill")
        operations.world.start(machine)  # it refuses
        machine.disk = None


def _remove(operations: Operations) -> None:
    """A host is removed, sometimes while it still runs, and joins again later."""
    machine, world = operations.machine(), operations.world
    disk, runs_on = machine.disk, operations.chance.random() < 0.4
    if disk is None or machine.life is None or not operations.remove(machine):
        return
    operations.told(machine.name, "op-remove", "runs on" if runs_on else "")
    operations.propose(DrainHost(machine.name, True), "drain")
    if not runs_on:
        world.scheduler.at(world.now + 2 * NS, _end, operations, machine, disk.member)


def _end(operations: Operations, machine: "Machine", member: MemberId) -> None:
    if operations.is_on and machine.life is not None and machine.life.member == member:
        machine.life.end()


def _services(operations: Operations) -> None:
    """Services are declared, changed, restarted and stopped."""
    chance = operations.chance
    kind = chance.choice(("apply", "change", "restart", "stop", "exclusive"))
    operations.told("", f"op-service-{kind}")
    if kind == "apply":
        spec = service(f"extra{chance.randint(1, 2)}", ServiceMode.ACTIVE_ACTIVE, chance.randint(1, 3))
        operations.propose(ApplyService(spec), kind)
    elif kind == "change":
        spec = service("echo", ServiceMode.ACTIVE_ACTIVE, chance.randint(1, 4))
        operations.propose(ApplyService(spec), kind)
    elif kind == "exclusive":
        operations.propose(ApplyService(service("second", ServiceMode.ACTIVE_STANDBY)), kind)
    elif kind == "restart":
        name = chance.choice(("echo", "reporter", "extra1"))
        operations.propose(RestartService(ServiceName(name)), kind)
    else:
        name = chance.choice(("extra1", "extra2", "second"))
        operations.propose(StopService(ServiceName(name), keep=chance.random() < 0.5), kind)


KINDS: dict[str, Callable[[Operations], None]] = {
    "transfer": _transfer,
    "drain": _drain,
    "restart": _restart,
    "roll": _roll,
    "reformat": _reformat,
    "damage": _damage,
    "remove": _remove,
    "services": _services,
}
