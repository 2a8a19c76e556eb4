"""What the simulator found, one story each: the shortest schedule that shows it.

Each world has no faults but those of its story.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from mesh.ids import VIP, HostId, OwnedName
from mesh.state.commands import DrainHost
from tests.sim.calls import Connection
from tests.sim.checkers import ALL_CHECKERS
from tests.sim.clients import Answer, Clients
from tests.sim.clock import MS, NS
from tests.sim.main import Quiet
from tests.sim.network import Link
from tests.sim.operations import Operations
from tests.sim.world import Plan, World

THREE: Final = Plan(voters=3)
REPORTER: Final = OwnedName("service/reporter")


@contextmanager
def world_of(plan: Plan = THREE, seed: int = 1, age_ns: int = 5 * NS) -> Iterator[World]:
    """A founded cluster that has had some time."""
    with Quiet():
        world = World(seed, plan, ALL_CHECKERS)
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


def test_a_witness_is_taken_in_and_survives_a_start_before_its_log_says_so() -> None:
    """Goal: two hosts and a witness are three votes. Method: a calm cluster of one founder that two hosts
    join; the witness dies as soon as its log holds something, which is before its own admission."""
    plan = Plan(voters=1, learners=1, has_witness=True)
    one_by_one = replace(plan, raft=replace(plan.raft, append_bytes_max=1, inflight_max=2))
    with world_of(one_by_one, age_ns=0) as world:
        run = Operations(world, world.chance("operations"))
        run.kinds = {}
        world.scheduler.at(4 * NS, run.start)
        witness = world.machines[HostId("host3")]
        while witness.life is None or not witness.life.store.load().entries:
            assert world.now < 60 * NS, "it is never sent anything"
            world.run_until(world.now + MS // 5)
        assert not witness.life.driver.status().membership.is_member(witness.life.member)
        world.kill(witness, "kill")
        world.run_until(world.now + NS)
        world.start(witness)
        world.run_until(world.now + 30 * NS)
        leader = world.leader()
        assert leader is not None
        assert witness.life is not None
        assert leader.driver.status().membership.witnesses == (witness.life.member,)
        assert len(leader.driver.status().membership.voters) == 3


def test_a_host_without_a_quorum_does_not_end_because_of_what_it_cannot_tell() -> None:
    """Goal: after an outage of all, the first host that is back stays until the others are. Method: whoever
    runs the reporter is drained and has been asked to give it up when the power fails everywhere; it comes
    back alone, longer than the patience with hands that do not let go; the checkers judge."""
    with world_of(age_ns=10 * NS) as world:
        leader = world.leader()
        assert leader is not None
        rows = leader.replica.state.owners
        holder = rows[REPORTER].holder
        assert holder is not None
        machine = world.machines[holder]
        assert machine.life is not None
        leader.loop.create_task(leader.replica.propose(DrainHost(holder, True), timeout_s=1.0))
        while (row := machine.life.replica.state.owners[REPORTER]).successor in (None, holder):
            assert world.now < 20 * NS, f"nobody asks for it: {row}"
            world.run_until(world.now + MS // 5)
        for each in world.machines.values():
            world.power_off(each)
        world.run_until(world.now + NS)
        machine.is_up = True
        world.start(machine)
        life = machine.life
        assert life is not None
        world.run_until(world.now + 25 * NS)
        assert machine.life is life


def test_a_connection_opens_only_once_both_ends_hear_each_other() -> None:
    """Goal: as with TCP, nothing reaches a host by a connection that it cannot answer: else a host that hears
    nobody would go on beating. Method: one way cut, and healed again; then cut under an open connection."""
    with world_of() as world:
        client, server = world.machines[HostId("host1")].life, world.machines[HostId("host2")].life
        assert client is not None
        assert server is not None
        back = world.network.links[HostId("host2"), HostId("host1")]
        arrived: list[str] = []
        connection = Connection(client, server, lambda: None)
        for text, is_cut, expected in (
            ("cannot open", True, []),
            ("opens", False, ["cannot open", "opens"]),
            ("is open", True, ["cannot open", "opens", "is open"]),
        ):
            back.is_cut = is_cut
            back.settle()
            connection.out.put(arrived.append, text)
            world.run_until(world.now + NS)
            assert arrived == expected
        back.is_cut = False
        back.settle()
