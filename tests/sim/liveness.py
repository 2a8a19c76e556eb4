"""A random majority is healed for good: it has to get on, whatever became of it before.

The others go dark, or deaf. Within ten election timeouts the healed hosts must have one leader, each must
be able to write, what is exclusive must be acted for once, the virtual IP by the leader, and all must have
applied the same.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Final

from mesh.errors import TrellisError
from mesh.ids import VIP, HostId, MemberId, OwnedName
from mesh.raft.model import EntryKind, Membership, Role
from mesh.state import checkpoint
from mesh.state.commands import DrainHost
from tests.sim.clients import Answer, Clients
from tests.sim.clock import NS
from tests.sim.disk import Disk
from tests.sim.faults import Faults
from tests.sim.host import Life
from tests.sim.trace import Phase, Violation
from tests.sim.whole_state import check_states
from tests.sim.world import World

#: So many of the longest election timeouts.
TIMEOUTS: Final = 10
LOOK_NS: Final = NS // 4
EXCLUSIVE: Final = (VIP, OwnedName("service/reporter"))
#: Share of the runs in which the others are not dark, but deaf: a leader that hears nobody must let go.
DEAF: Final = 0.3
#: Draws before every host that can run is healed.
DRAWS: Final = 20
NOTHING: Final = Answer()


class Liveness:
    """The end of a run. Fails: `Violation`, of liveness unless states differ."""

    def __init__(
        self,
        world: World,
        clients: Clients,
        faults: Faults,
        leaving: HostId | None,
        deaf: float = DEAF,
        everybody: bool = False,
    ) -> None:
        """*leaving*: a host whose removal may be under way; nobody may count on it.

        *everybody*: all that can run are healed, and not just a majority.
        """
        self._leaving = leaving
        self._everybody = everybody
        self._deaf = deaf
        self._world = world
        self._clients = clients
        self._faults = faults
        self._names: list[HostId] = []
        self._written: set[HostId] = set()
        self._asked: dict[HostId, Answer | None] = {}

    def run(self) -> None:
        """Heal, and look until all is well or the time is over."""
        self._heal()
        world = self._world
        end = world.now + TIMEOUTS * world.plan.timing.election_ns_max
        problem: str | None = "not looked at"
        while problem is not None and world.now < end:
            world.run_until(world.now + LOOK_NS)
            for name in self._names:  # what was told to end just before has ended by now
                world.start(world.machines[name])
            self._write()
            self._undrain()
            problem = self._problem()
        self._clients.is_on = False
        if problem is not None:
            views = "; ".join(_view(life) for life in self._lives())
            text = f"ten election timeouts after healing: {problem} ({views})"
            raise Violation("liveness", text, is_liveness=True)

    def _heal(self) -> None:
        world, faults = self._world, self._faults
        self._names = self._majority(world.chance("liveness"))
        faults.spared = set(self._names)
        faults.stop()
        faults.heal()
        are_deaf = world.chance("liveness/others").random() < self._deaf
        for machine in world.machines.values():
            if machine.name not in self._names and not are_deaf:
                world.power_off(machine)
        if are_deaf:
            self._deafen()
        world.emit(Phase(world.now, HostId(""), "liveness", tuple(self._names)))
        for name in self._names:
            world.start(world.machines[name])

    def _deafen(self) -> None:
        """The others go on, and are heard; they hear none of the healed ones."""
        for (source, to), link in self._world.network.links.items():
            if source in self._names and to not in self._names:
                link.is_cut = True
                link.settle()

    # ---- who is healed ----------------------------------------------------------------

    def _majority(self, chance: Random) -> list[HostId]:
        """Hosts that are a quorum of every membership that some disk holds as its newest.

        Without those that were removed, though Raft may still count them: nobody listens to them.
        """
        machines = self._world.machines
        present = [m for m in (newest(each.disk) for each in machines.values() if each.disk) if m]
        disks = [each.disk for each in machines.values() if each.disk]
        latest = newest(max(disks, key=lambda each: (each.last.term, each.last.index)))
        members = {each for each in latest.members if each not in self._world.removed} if latest else set()
        able = [
            name
            for name, each in machines.items()
            if each.disk and each.disk.member in members and name != self._leaving
        ]
        if self._everybody or any(each.is_witness for each in machines.values()):
            return able  # without the data of all voters with data, a witness may have to wait
        for _ in range(DRAWS):
            names = sorted(chance.sample(able, chance.randint(1, len(able))))
            healed = {machines[name].member for name in names}
            if all(_has_quorum(membership, healed) for membership in present):
                return names
        return able

    # ---- what they must do ------------------------------------------------------------

    def _lives(self) -> list[Life]:
        machines = self._world.machines
        return [life for name in self._names if (life := machines[name].life) is not None]

    def _write(self) -> None:
        """Each healed host is asked to write until it has, one request at a time."""
        for life in self._lives():
            host = life.host
            if life.machine.is_witness:  # it holds no state, so clients do not ask it
                self._written.add(host)
            elif host not in self._written and self._asked.get(host, NOTHING) is not None:
                self._asked[host] = None
                self._clients.probe(life, "put", partial(self._told, host))

    def _told(self, host: HostId, answer: Answer) -> None:
        self._asked[host] = answer
        if answer.result == "ok":
            self._written.add(host)

    def _undrain(self) -> None:
        """Operators take back what they drained: somebody must be able to own."""
        leader = self._world.leader()
        if leader is None:
            return
        for record in leader.replica.state.hosts.values():
            if record.draining:
                leader.loop.create_task(_undrain(leader, record.host))

    def _problem(self) -> str | None:
        lives = self._lives()
        if len(lives) < len(self._names):
            return f"only {len(lives)} of {len(self._names)} run"
        leaders = [life.member for life in lives if life.driver.role is Role.LEADER]
        if len(leaders) != 1:
            return f"{len(leaders)} leaders"
        for name in self._names:
            if name not in self._written:
                return f"{name} could not write: {self._asked.get(name)}"
        acting = [name for life in lives for name in life.machine.acting]
        for owned in EXCLUSIVE:
            if acting.count(owned) != 1:
                return f"{acting.count(owned)} hosts act for {owned}"
        if not any(life.member in leaders and VIP in life.machine.acting for life in lives):
            return "the leader does not hold the virtual IP"
        if len({life.driver.applied for life in lives}) != 1:
            return "they have not applied the same"
        holding = [life for life in lives if not life.machine.is_witness]
        if len({checkpoint(life.replica.state) for life in holding}) != 1:
            raise Violation("state-machine", "equal indexes, different states")
        check_states((life.host, life.replica.state) for life in holding)
        return None


async def _undrain(leader: Life, host: HostId) -> None:
    with contextlib.suppress(TrellisError):
        await leader.replica.propose(DrainHost(host, False), timeout_s=1.0)


def newest(disk: Disk) -> Membership | None:
    """The membership that this disk would start with."""
    for entry in reversed(disk.entries):
        if entry.kind is EntryKind.MEMBERSHIP:
            return Membership.decode(entry.data)
    return disk.snapshot.meta.membership if disk.snapshot else None


def _has_quorum(membership: Membership, disks: set[MemberId | None]) -> bool:
    return all(sum(voter in disks for voter in voters) > len(voters) // 2 for voters in _halves(membership))


def _halves(membership: Membership) -> Iterator[tuple[MemberId, ...]]:
    yield membership.voters
    if membership.outgoing:
        yield membership.outgoing


def _view(life: Life) -> str:
    status = life.driver.status()
    return (
        f"{life.member} {status.role.value} term={status.term} leader={status.leader}"
        f" commit={status.commit} applied={status.applied} last={status.last.term}.{status.last.index}"
    )
