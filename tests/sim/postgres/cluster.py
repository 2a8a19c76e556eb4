"""One world's database as a whole: every machine's server, what was published, and who holds what.

Sees what no host sees, for the checkers alone.
"""

from random import Random
from typing import TYPE_CHECKING

from mesh.ids import PRIMARY, HostId
from mesh.state.database_model import SyncSet
from tests.sim.postgres.events import Acknowledged, Branched, Held, Opened, Published
from tests.sim.postgres.server import Server
from tests.sim.postgres.wal import Data

if TYPE_CHECKING:
    from tests.sim.host import Life
    from tests.sim.world import World


class Databases:
    """The servers of one world."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._pids = 10_000
        self._made = 7_000_000_000
        self._numbers = 0
        #: The newest that any host has applied.
        self.published = SyncSet()
        self.servers: dict[HostId, Server] = {}
        #: Commits that were acknowledged.
        self.acknowledgements = 0
        for machine in world.machines.values():
            if not machine.is_witness:
                server = Server(machine, self, Random(f"{world.seed}/postgres/{machine.name}"))
                machine.postgres = self.servers[machine.name] = server

    def next_pid(self) -> int:
        """Of a new process."""
        self._pids += 1
        return self._pids

    def next_identifier(self) -> str:
        """Of a new database."""
        self._made += 1
        return str(self._made)

    def next_number(self) -> int:
        """Of a new commit."""
        self._numbers += 1
        return self._numbers

    # ---- what happens -----------------------------------------------------------------

    def branched(self, host: HostId, data: Data) -> None:
        """A promotion has begun a timeline."""
        world = self.world
        world.count("database-promotion")
        world.emit(Branched(world.now, host, data.system_identifier, data.history.timeline, data.flushed))

    def opened(self, server: Server) -> None:
        """It lets clients in."""
        world = self.world
        held = Held(server.data.numbers)
        world.emit(Opened(world.now, server.host, server.timeline, server.acting_term, held))

    def acknowledged(self, server: Server, number: int) -> None:
        """A client is told that its commit is safe."""
        world = self.world
        self.acknowledgements += 1
        lacking = tuple(
            host
            for host in self.published.voters
            if (data := self.whole(host)) is not None and number not in data.numbers
        )
        term = server.acting_term
        world.emit(
            Acknowledged(
                world.now, server.host, server.timeline, term, number, lacking, self.published.quorum
            )
        )

    def applied(self, life: "Life") -> None:
        """A host has applied something about the database."""
        record = life.replica.state.database
        if record is None or record.published.version <= self.published.version:
            return
        self.published = record.published
        world = self.world
        held = tuple(
            (host, Held(data.numbers)) for host in self.published.voters if (data := self.whole(host))
        )
        world.emit(Published(world.now, life.host, self.published.version, held, self.published.quorum))

    def whole(self, host: HostId) -> Data | None:
        """What a host can answer with; None: it has no whole data."""
        server = self.servers.get(host)
        return None if server is None or server.disk.is_partial else server.disk.data

    # ---- looking ----------------------------------------------------------------------

    def primary(self) -> Server | None:
        """The one that takes writes, if there is one."""
        opened = [each for each in self.servers.values() if each.is_open and PRIMARY in each.machine.acting]
        return opened[0] if len(opened) == 1 else None
