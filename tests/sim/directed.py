"""Faults of directed worlds, beside those of `strikes.KINDS`: each sets the scene for one kind of guard."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mesh.errors import TrellisError
from mesh.failpoints.arming import Arming
from mesh.ids import VIP, HostId, OwnedName
from mesh.state.commands import DrainHost
from tests.sim.clock import MS, NS
from tests.sim.disk import DiskFaults
from tests.sim.hands import KERNEL_NS
from tests.sim.postgres.strikes import POSTGRES
from tests.sim.strikes import Strike, arm, cut, stall_ms, stop_sidecar

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.host import Life
    from tests.sim.network import Link

#: A process that was killed is back so soon: before anybody has waited for long.
BACK_NS: Final = (5 * MS, 60 * MS)
#: What a link takes when nothing is wrong with it.
DELAY_NS: Final = 300_000
#: How often a former leader is looked at.
LOOK_NS: Final = 5 * MS
REPORTER: Final = OwnedName("service/reporter")


def bounce(faults: "Faults", host: HostId) -> None:
    """A process is killed, and its next life begins at once."""
    world, machine = faults.world, faults.world.machines[host]
    if machine.life is None or machine.is_frozen or host in faults.spared:
        return
    world.kill(machine, "kill")
    low, high = BACK_NS
    faults.after(low + int(faults.chance.random() * (high - low)), lambda: world.start(machine))


def _leader_or_any(faults: "Faults") -> HostId:
    leader = faults.world.leader()
    return leader.host if leader is not None else faults.chance.choice(list(faults.world.machines))


def _lag(faults: "Faults") -> None:
    """What is sent to one host is under way for as long as others wait: it hears of things that are over."""
    chance = faults.chance
    host = _leader_or_any(faults) if chance.random() < 0.7 else chance.choice(list(faults.world.machines))
    takes = int(chance.uniform(0.05, 0.9) * faults.world.facts.election_ns[0])
    links = faults.links(lambda a, b: b == host)
    for link in links:
        link.delay_ns = takes
    faults.told(host, "net-lag", str(takes))

    def catch_up() -> None:
        for link in links:
            link.delay_ns = DELAY_NS

    faults.after(faults.seconds(1, 12), catch_up)


def _orphan(faults: "Faults") -> None:
    """One host no longer hears the leader, and asks for votes as soon as it may.

    Just before, another host is killed and born again, and nobody hears the leader any more; or else the
    host hears the leader again just after it has asked.
    """
    chance, world = faults.chance, faults.world
    leader, election_ns = _leader_or_any(faults), world.facts.election_ns[0]
    orphan, *rest = _shuffled(faults, [name for name in world.machines if name != leader])
    faults.told(orphan, "net-orphan", leader)
    is_short = chance.random() < 0.4
    lasts = chance.uniform(0.95, 1.7) if is_short else 3.0
    cut(faults, faults.links(lambda a, b: (a, b) == (leader, orphan)), int(lasts * election_ns))
    if not is_short:
        after = int(chance.uniform(0.8, 1.5) * election_ns)
        world.scheduler.at(world.now + after, _bereave, faults, leader, rest)


def _bereave(faults: "Faults", leader: HostId, hosts: list[HostId]) -> None:
    if faults.is_on:
        election_ns = faults.world.facts.election_ns[0]
        bounce(faults, faults.chance.choice(hosts))
        cut(faults, faults.links(lambda a, b: a == leader), int(0.7 * election_ns))


def _shuffled(faults: "Faults", names: list[HostId]) -> list[HostId]:
    faults.chance.shuffle(names)
    return names


def _reset(faults: "Faults") -> None:
    """Somebody in between forgets connections: they break, and both ends live. Then the leader is cut off."""
    chance, world = faults.chance, faults.world
    leader = world.leader()
    if leader is None:
        return
    faults.told(leader.host, "net-reset")
    for life in world.lives():
        if life is not leader and chance.random() < 0.8:
            life.loop.call_true(world.now, life.transport.broken, leader.member)
            leader.loop.call_true(world.now, leader.transport.broken, life.member)
    if chance.random() < 0.6:
        host = leader.host
        links = faults.links(lambda a, b: (a == host) != (b == host))
        world.scheduler.at(world.now + int(chance.random() * 20 * MS), _cut_later, faults, links)


def _cut_later(faults: "Faults", links: list["Link"]) -> None:
    if faults.is_on:
        cut(faults, links, faults.seconds(0.3, 8))


def _lonely(faults: "Faults") -> None:
    """The leader reaches nobody, for about as long as it may go on leading."""
    leader = _leader_or_any(faults)
    faults.told(leader, "net-lonely")
    lasts = int(faults.chance.uniform(0.7, 2.4) * faults.world.facts.election_ns[0])
    cut(faults, faults.links(lambda a, b: (a == leader) != (b == leader)), lasts)


def _usurp(faults: "Faults") -> None:
    """The leader is cut off with many writes that nobody else gets, and comes back as its successor goes."""
    world, leader = faults.world, faults.world.leader()
    if leader is None:
        return
    host, election_ns = leader.host, world.facts.election_ns[0]
    faults.told(host, "net-usurp")
    lasts = int(faults.chance.uniform(1.5, 3.0) * election_ns)
    cut(faults, faults.links(lambda a, b: (a == host) != (b == host)), lasts)
    for _ in range(faults.chance.randint(10, 40)):
        leader.loop.create_task(_write(leader), name="usurper")
    world.scheduler.at(world.now + lasts, _depose, faults, host)


async def _write(life: "Life") -> None:
    with contextlib.suppress(TrellisError):
        await life.replica.propose(DrainHost(life.host, False), timeout_s=0.5, at_ns=life.clock.wall_ns())


def _depose(faults: "Faults", former: HostId) -> None:
    leader = _leader_or_any(faults)
    if faults.is_on and leader != former:
        lasts = int(2.5 * faults.world.facts.election_ns[0])
        cut(faults, faults.links(lambda a, b: (a == leader) != (b == leader)), lasts)


def _numb(faults: "Faults") -> None:
    """A write at the leader takes longer than an election, so it is told late that it leads no more.

    Until then its loop may decide from leases of its own term. Whoever has the reporter is cut off
    about when that loop takes it for lost, though its successor has granted it.
    """
    world, leader = faults.world, faults.world.leader()
    if leader is None:
        return
    row = leader.replica.state.owners.get(REPORTER)
    if row is None or row.holder in (None, leader.host):
        return
    machine, election_ns = leader.machine, world.facts.election_ns[0]
    takes = int(faults.chance.uniform(1.8, 3.4) * election_ns)
    machine.disk_faults.fsync_ns = (takes, takes)
    faults.told(leader.host, "disk-numb", str(takes))
    leader.loop.create_task(_write(leader), name="numb")

    def recover() -> None:
        machine.disk_faults.fsync_ns = DiskFaults().fsync_ns

    faults.after(election_ns // 2, recover)
    world.scheduler.at(world.now + election_ns, _look_for_another, faults, leader, row.holder, election_ns)


def _look_for_another(faults: "Faults", former: "Life", owner: HostId, left_ns: int) -> None:
    """Once the leader that was has heard of another one, its owner has beaten to it for the last time."""
    world = faults.world
    if not faults.is_on or former.loop.is_dropped or left_ns <= 0:
        return
    if former.driver.leader in (None, former.member):
        world.scheduler.at(world.now + LOOK_NS, _look_for_another, faults, former, owner, left_ns - LOOK_NS)
        return
    after = int(faults.chance.uniform(0.7, 1.0) * world.timers.cleared_ns)
    links = faults.links(lambda a, b: (a == owner) != (b == owner))
    world.scheduler.at(world.now + after, cut, faults, links, 2 * world.timers.cleared_ns)


def _sticky(faults: "Faults") -> None:
    """A kernel takes its time to answer for an address, though not to do what it is asked."""
    machine = faults.machine()
    if machine is None:
        return
    machine.kernel_ns = int(faults.chance.uniform(0.1, 1.2) * faults.world.timers.lease_ns)
    faults.told(machine.name, "host-sticky", str(machine.kernel_ns))

    def free() -> None:
        machine.kernel_ns = KERNEL_NS

    faults.after(faults.seconds(1, 10), free)


def _lapse(faults: "Faults") -> None:
    """A leader's lease lapses for a moment while its kernel takes its time to put the address up.

    The fence acts then, and lets go of the address. Later that sidecar is stopped.
    """
    world = faults.world
    for machine in world.machines.values():
        machine.kernel_ns = 2 * world.timers.lease_ns
    faults.told("", "host-lapse")

    def free() -> None:
        for machine in world.machines.values():
            machine.kernel_ns = KERNEL_NS

    faults.after(faults.seconds(4, 6), free)
    _look_for_claim(faults, free, world.now + 3 * NS)


def _look_for_claim(faults: "Faults", free: Callable[[], None], until_ns: int) -> None:
    world, leader = faults.world, faults.world.leader()
    hold = leader.core.vip if leader is not None else None
    if not faults.is_on or world.now > until_ns:
        return
    if leader is None or hold is None or hold.term is not None or VIP not in leader.machine.acting:
        world.scheduler.at(world.now + LOOK_NS, _look_for_claim, faults, free, until_ns)
        return
    host, election_ns = leader.host, world.facts.election_ns[0]
    lasts = int(faults.chance.uniform(0.75, 1.0) * election_ns)
    cut(faults, faults.links(lambda a, b: (a == host) != (b == host)), lasts)
    world.scheduler.at(world.now + lasts, free)
    after = election_ns + int(faults.chance.uniform(0.2, 1.0) * NS)
    world.scheduler.at(world.now + after, stop_sidecar, faults, leader, 4 * election_ns)


def _places(faults: "Faults") -> None:
    """One place after the other: something happens to whoever comes by next."""
    world = faults.world
    for name, action in world.failpoints.fresh(faults.chance):
        skip = faults.chance.choice((0, 0, 0, 5))
        arm(faults, Arming(name, action, stall_ms(faults, action), 1, skip), set(world.machines), 600 * NS)


DIRECTED: Final[dict[str, Strike]] = {
    "lag": _lag,
    "orphan": _orphan,
    "reset": _reset,
    "lonely": _lonely,
    "usurp": _usurp,
    "lapse": _lapse,
    "numb": _numb,
    "sticky": _sticky,
    "places": _places,
    **POSTGRES,
}
