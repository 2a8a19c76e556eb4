"""What the simulator found, one story each: the shortest schedule that shows it.

Each world has no faults but those of its story.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh.ids import VIP, OwnedName
from tests.sim.checkers import ALL_CHECKERS
from tests.sim.clients import Answer, Clients
from tests.sim.clock import MS, NS
from tests.sim.main import Quiet
from tests.sim.network import Link
from tests.sim.world import Plan, World


@contextmanager
def world_of(hosts: int = 3, seed: int = 1, age_ns: int = 5 * NS) -> Iterator[World]:
    """A founded cluster that has had some time."""
    with Quiet():
        world = World(seed, Plan(voters=hosts), ALL_CHECKERS)
        world.found()
        try:
            world.run_until(age_ns)
            yield world
            world.finish()
        finally:
            world.close()


def cut(world: World, name: str, *, is_cut: bool = True) -> None:
    """Nothing gets to or from one host, or everything again."""
    links: list[Link] = [link for pair, link in world.network.links.items() if name in pair]
    for link in links:
        link.is_cut = is_cut
        link.settle()


def test_a_write_of_unknown_fate_is_not_called_refused_when_its_host_ends() -> None:
    """Goal: `refused` means certainly not done. Method: a leader that is cut off appends a write, loses
    leadership and so calls its fate unknown, waits for a leader to repeat it, and is told to end."""
    with world_of() as world:
        clients = Clients(world, world.chance("clients"), count=0, documents=1, pause_ns=NS)
        leader = world.leader()
        assert leader is not None
        cut(world, leader.host)
        answers: list[Answer] = []
        clients.probe(leader, "put", answers.append)
        world.run_until(world.now + int(3.7 * NS))
        assert leader.driver.leader is None
        assert not answers
        leader.end()
        world.run_until(world.now + 6 * NS)
        assert [each.result for each in answers] == ["unknown"]


def stand_still(world: World, name: OwnedName) -> None:
    """Whoever something exclusive was given to stands still, before it acts, until its lease is over."""
    holder = next(
        row.holder for each in world.lives() for row in each.replica.state.owners.values() if row.name == name
    )
    assert holder is not None
    machine = world.machines[holder]
    assert name not in machine.acting
    machine.freeze()
    world.run_until(world.now + 10 * NS)
    machine.thaw()
    world.run_until(world.now + 5 * NS)


def test_what_was_about_to_begin_does_not_begin_after_the_lease() -> None:
    """Goal: whoever waited (address probed, process to start) asks again whether it may act. Method:
    the first owner of everything stands still between its assignment and its acts; the checkers judge."""
    with world_of(age_ns=0) as world:
        while not any(VIP in each.replica.state.owners for each in world.lives()):
            world.run_until(world.now + 5 * MS)
        stand_still(world, VIP)
        assert world.failure is None
