"""What was found in the database, one story each: a calm world, and what its story does to one server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from mesh.ids import PRIMARY, HostId
from sidecar.postgres.driver import SEAL_ANSWER_S
from sidecar.postgres.model import ProcessKind, SealReport, SyncNames
from tests.sim.checkers import ALL_CHECKERS
from tests.sim.clock import MS, NS
from tests.sim.main import Quiet
from tests.sim.postgres.clients import Writers
from tests.sim.postgres.cluster import Databases
from tests.sim.postgres.server import Server
from tests.sim.test_found import cut
from tests.sim.world import Plan, World

PLAN: Final = Plan(voters=3, has_database=True)
WHOLE_S: Final = 60


@contextmanager
def database(seed: int = 1) -> Iterator[Databases]:
    """Three hosts with a database that is whole and that somebody writes to."""
    with Quiet():
        world = World(seed, PLAN, ALL_CHECKERS)
        world.found()
        assert world.databases is not None
        try:
            writers = Writers(world, world.chance("writers"), 2, 20.0)
            writers.start()
            wait_whole(world.databases)
            yield world.databases
            assert world.failure is None
            wait_whole(world.databases)
            writers.is_on = False
            world.finish()
        finally:
            world.close()


def wait(databases: Databases, holds: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
    """Until it holds. Fails: when it never does in time."""
    world = databases.world
    end = world.now + int(within_s * NS)
    while not holds():
        assert world.now < end, f"not within {within_s:g} s: {what}"
        world.run_until(world.now + MS)


def wait_whole(databases: Databases) -> None:
    """Until one host is primary and both others stream from it and count."""

    def is_whole() -> bool:
        primary = databases.primary()
        if primary is None or databases.acknowledgements == 0:
            return False
        others = [each for each in databases.servers.values() if each is not primary]
        is_streaming = all(each.receiving.sending is not None for each in others)
        return is_streaming and databases.published.voters == tuple(sorted(each.host for each in others))

    wait(databases, is_whole, "the database is whole", WHOLE_S)


def the_primary(databases: Databases) -> Server:
    found = databases.primary()
    assert found is not None
    return found


def standbys(databases: Databases) -> list[Server]:
    return [each for each in databases.servers.values() if each.kind is ProcessKind.STANDBY]


def test_a_primary_whose_names_stay_overridden_does_not_stay_open() -> None:
    """Goal: what acknowledges by other names than a promotion asks for ends soon. Method: a hand has it wait
    for a host that is none, and a reload does not take that back."""
    with database() as databases:
        primary = the_primary(databases)
        generation = primary.generation
        primary.override(SyncNames(1, (HostId("nobody"),)))
        wait(databases, lambda: primary.generation != generation, "it ends", 2.0)
        assert not primary.is_open


def test_a_promotion_that_outlived_its_sidecar_is_ended() -> None:
    """Goal: a host whose server became primary by nobody's doing does not stand still. Method: a primary's
    sidecar forgets what it knew of it, as the next one does that adopted it while it was a standby."""
    with database() as databases:
        primary = the_primary(databases)
        life, generation = primary.machine.life, primary.generation
        assert life is not None
        assert life.database is not None
        life.database.driver._acts.ship = None
        wait(databases, lambda: primary.generation != generation, "it is ended")


def test_a_standby_that_was_not_consistent_when_its_primary_died_follows_the_next() -> None:
    """Goal: who needs WAL to come up gets it from whoever is primary then. Method: a standby comes up with
    pages that are newer than its WAL, as after a rewind, and its primary loses power before it sends that."""
    with database() as databases:
        world, primary = databases.world, the_primary(databases)
        late, other = standbys(databases)

        def counts_no_more() -> bool:
            late.kill("kill")
            return databases.published.voters == (other.host,)

        wait(databases, counts_no_more, "nobody waits for it")
        wait(databases, lambda: late.kind is not ProcessKind.DOWN, "it is there once more")
        generation = late.generation  # it may be down for less than a step
        late.kill("kill")
        wait(databases, lambda: late.generation != generation, "it is gone")
        wait(databases, lambda: late.kind is ProcessKind.STARTING, "it starts")
        late.data.consistent_at = min(primary.data.flushed, other.data.flushed)
        assert late.data.end < late.data.consistent_at
        world.power_off(primary.machine)
        wait(databases, lambda: databases.primary() is other, "the other takes over")
        wait(databases, lambda: late.kind is ProcessKind.STANDBY, "it comes up")
        assert world.faults["database-inconsistent"] > 0
        primary.machine.is_up = True
        world.start(primary.machine)


def ask_to_seal(databases: Databases, server: Server) -> SealReport:
    """What a host answers the leader. Fails: as `DatabaseDriver.seal`."""
    life = server.machine.life
    assert life is not None
    assert life.database is not None
    owner = life.replica.state.owners[PRIMARY]
    asked = life.loop.create_task(life.database.driver.seal(owner.fencing_term))
    wait(databases, asked.done, "it answers", 2 * SEAL_ANSWER_S)
    report: SealReport = asked.result()
    return report


def test_a_host_that_copies_says_that_it_is_sealed() -> None:
    """Goal: a failover does not wait for a copy. Method: a standby without data copies, and is asked."""
    with database() as databases:
        late = standbys(databases)[0]
        late.kill("kill")
        wait(databases, lambda: late.kind is ProcessKind.DOWN, "it is gone")
        late.disk.data = None
        assert late.machine.life is not None
        hands = late.machine.life.database
        assert hands is not None
        wait(databases, lambda: hands.driver._pace.is_copying, "it copies")
        assert "no whole data" in ask_to_seal(databases, late).damaged
        assert hands.driver._pace.is_copying


def test_a_host_that_deletes_an_old_copy_answers_meanwhile() -> None:
    """Goal: nothing large holds up a failover. Method: the deletion takes half a minute, and it is asked."""
    with database() as databases:
        late = standbys(databases)[0]
        late.drops_s = 30.0
        databases.world.kill(late.machine, "kill")
        databases.world.run_until(databases.world.now + NS)
        databases.world.start(late.machine)
        wait_whole(databases)
        databases.world.run_until(databases.world.now + NS)
        assert not ask_to_seal(databases, late).catching_up


def test_a_primary_on_a_read_only_disk_gives_way_and_its_sidecar_lives() -> None:
    """Goal: what cannot be noted after the end of a primary ends no sidecar. Method: it is cut off from the
    others until its lease is over, and its disk takes nothing."""
    with database() as databases:
        world, primary = databases.world, the_primary(databases)
        machine, life = primary.machine, primary.machine.life
        primary.is_read_only = True
        cut(world, machine.name)
        wait(databases, lambda: databases.primary() not in (None, primary), "another host takes over")
        assert not primary.is_open
        primary.is_read_only = False
        cut(world, machine.name, is_cut=False)
        wait_whole(databases)
        assert machine.life is life
