"""Faults of directed worlds, beside those of `strikes.KINDS`: each sets the scene for one kind of guard."""

from typing import TYPE_CHECKING, Final

from mesh.ids import HostId
from tests.sim.clock import MS
from tests.sim.strikes import Strike, cut

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.network import Link

#: A process that was killed is back so soon: before anybody has waited for long.
BACK_NS: Final = (5 * MS, 60 * MS)
#: What a link takes when nothing is wrong with it.
DELAY_NS: Final = 300_000


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
    """One host no longer hears the leader, and asks for votes; meanwhile others are killed and born again."""
    chance, world = faults.chance, faults.world
    leader = _leader_or_any(faults)
    others = [name for name in world.machines if name != leader]
    chance.shuffle(others)
    orphan, *rest = others
    election_ns = world.facts.election_ns[0]
    faults.told(orphan, "net-orphan", leader)
    cut(faults, faults.links(lambda a, b: (a, b) == (leader, orphan)), int(3 * election_ns))
    for _ in range(chance.randint(1, 4)):
        after = int(chance.uniform(0.9, 2.8) * election_ns)
        world.scheduler.at(world.now + after, _bounce_later, faults, rest)


def _bounce_later(faults: "Faults", hosts: list[HostId]) -> None:
    if faults.is_on:
        bounce(faults, faults.chance.choice(hosts))


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


DIRECTED: Final[dict[str, Strike]] = {"lag": _lag, "orphan": _orphan, "reset": _reset}
