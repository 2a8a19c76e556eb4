"""Writers: each commits one numbered record after the other, through the server that a host's routes lead to.

Some ask the routes of a random host each time; they may be old, or those of a host whose sidecar is gone.
Others stay connected to the server that they found, whatever the routes say, until it refuses.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from mesh.errors import TrellisError
from mesh.ids import HostId
from mesh.state.database_commands import DeclareDatabase
from mesh.state.database_model import DatabaseSpec
from tests.sim.clock import MS, NS
from tests.sim.postgres.server import Server

if TYPE_CHECKING:
    from tests.sim.host import Life
    from tests.sim.world import World

PATIENCE_NS: Final = 2 * NS
DECLARE_AGAIN_NS: Final = NS // 2
SPEC: Final = DatabaseSpec()


class Writer:
    """One client, on one host."""

    def __init__(self, writers: "Writers", host: HostId, *, stays: bool) -> None:
        self._writers = writers
        self._host = host
        self._stays = stays
        self._connected: tuple[Server, int] | None = None
        self._open = 0

    def step(self) -> None:
        """Commit one more, or look again later."""
        writers = self._writers
        if not writers.is_on:
            return
        found = self._find()
        if found is None:
            writers.later(self.step)
            return
        server, _ = self._connected = found
        number = self._open = writers.databases.next_number()
        world = writers.world
        world.scheduler.at(world.now + self._way(server), self._arrive, server, number)
        world.scheduler.at(world.now + PATIENCE_NS, self._give_up, number)

    def _find(self) -> tuple[Server, int] | None:
        connected = self._connected if self._stays else None
        if connected is not None and connected[0].generation == connected[1] and connected[0].is_open:
            server = connected[0]
        else:
            found = self._writers.routed(self._host if self._stays else None)
            if found is None:
                return None
            server = found
        network = self._writers.world.network
        is_cut = server.host != self._host and (
            network.is_cut(self._host, server.host) or network.is_cut(server.host, self._host)
        )
        return None if is_cut else (server, server.generation)

    def _way(self, server: Server) -> int:
        if server.host == self._host:
            return 50_000
        return self._writers.world.network.delay(self._host, server.host)

    def _arrive(self, server: Server, number: int) -> None:
        if server.machine.is_frozen or not server.commit(number, lambda is_ok: self._told(number, is_ok)):
            self._told(number, False)

    def _told(self, number: int, is_ok: bool) -> None:
        if self._open != number:
            return
        self._open = 0
        if not is_ok:
            self._connected = None
        self._writers.later(self.step)

    def _give_up(self, number: int) -> None:
        if self._open == number:
            self._told(number, False)


class Writers:
    """All of them, and whoever declares the database."""

    def __init__(self, world: "World", chance: Random, count: int, pause_ms: float) -> None:
        assert world.databases is not None
        self.world, self.databases = world, world.databases
        self.is_on = False
        self._chance = chance
        self._pause_ns = int(pause_ms * MS)
        hosts = list(world.machines)
        self._writers = [
            Writer(self, hosts[number % len(hosts)], stays=number % 2 == 1) for number in range(count)
        ]

    def start(self) -> None:
        """Declare the database, and begin to write to it."""
        self.is_on = True
        self.world.scheduler.at(self.world.now + NS, self._declare)
        for writer in self._writers:
            self.later(writer.step)

    def later(self, act: Callable[[], None]) -> None:
        """After a drawn pause."""
        pause = int(self._chance.expovariate(1 / self._pause_ns)) + 1
        self.world.scheduler.at(self.world.now + pause, act)

    def routed(self, host: HostId | None) -> Server | None:
        """The server that this host's routes lead to; None: a random host's."""
        machines = self.world.machines
        at = machines[host or list(machines)[int(self._chance.random() * len(machines))]]
        if not at.is_up or at.is_frozen or at.routes is None or at.routes.view is None:
            return None
        name = HostId(at.routes.view.database_primary.partition(":")[0])
        return self.databases.servers.get(name)

    # ---- the declaration --------------------------------------------------------------

    def _declare(self) -> None:
        """Until some host has applied it."""
        world = self.world
        lives = [each for each in world.lives() if not each.is_ending and not each.machine.is_witness]
        if any(each.replica.state.database is not None for each in lives):
            return
        for life in lives[:1]:
            life.loop.create_task(_declare(life), name="operator:declare")
        world.scheduler.at(world.now + DECLARE_AGAIN_NS, self._declare)


async def _declare(life: "Life") -> None:
    try:
        await life.replica.propose(DeclareDatabase(SPEC, 0), timeout_s=2.0, at_ns=life.clock.wall_ns())
    except TrellisError:
        return
