"""`sidecar.postgres.port.Engine` with a simulated PostgreSQL. What it does is `engine.hands`, in short."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from mesh import failpoints
from mesh.errors import CannotRewind, Conflict, DatabaseFailed, InvariantBroken, NotInTime
from mesh.ids import FencingTerm, HostId
from sidecar.postgres.history import common_end
from sidecar.postgres.model import (
    DataKind,
    LocalData,
    LocalProcess,
    LocalState,
    Lsn,
    ProcessKind,
    SyncNames,
    Timeline,
    TimelineHistory,
)
from sidecar.postgres.port import ReceiverSight, ServerProcess, ServerSettings, Sight, Source
from tests.sim.postgres.server import LENGTH, RUNNING, Server
from tests.sim.postgres.wal import FIRST, NO_NUMBER, Data

VERSION: Final = "15.18"
STEP_S: Final = 0.002
KILL_S: Final = 5.0
PROMOTE_S: Final = 60.0
RELOAD_S: Final = 5.0
CONFIRM_S: Final = 0.5


class SimPostgres:
    """The hands of one life of a sidecar on its machine's server."""

    def __init__(self, server: Server, chance: Random, on_end: Callable[[], None]) -> None:
        self._server = server
        self._disk = server.disk
        self._chance = chance
        self._wanted: ServerSettings | None = None
        self._rewind_refused = ""
        #: What was found before it was started; None: another life has started it.
        self._data: LocalData | None = None
        server.on_end = on_end

    @property
    def process(self) -> ServerProcess | None:
        """See Engine."""
        server = self._server
        return None if server.kind is ProcessKind.DOWN else ServerProcess(server.pid, 1, "cgroup")

    async def _takes(self, low_ms: float, high_ms: float) -> None:
        await asyncio.sleep((low_ms + (high_ms - low_ms) * self._chance.random() ** 2) / 1e3)
        server = self._server
        if server.fails and self._chance.random() < server.fails:
            server.machine.world.count("database-error")
            if self._chance.random() < 0.5:
                raise NotInTime("no answer in time (simulated)")
            raise DatabaseFailed("it did not do that (simulated)")

    async def _until(self, holds: Callable[[], bool], deadline_s: float) -> None:
        """Fails: `NotInTime`."""
        left = int(deadline_s / STEP_S)
        while not holds():
            left -= 1
            if left < 0:
                raise NotInTime("it is not done in time")
            await asyncio.sleep(STEP_S)

    def _check_ready(self) -> None:
        if self._server.kind not in RUNNING:
            raise DatabaseFailed("the server lets nobody in")

    async def recover(self) -> None:
        """See Engine."""
        server = self._server
        if server.kind is not ProcessKind.DOWN and not server.as_standby:
            server.machine.world.count("database-primary-outlived")
            await self.kill_all()

    # ---- looking --------------------------------------------------------------------

    async def look(self, system_identifier: str) -> Sight:
        """See Engine."""
        await self._takes(0.1, 1.5)
        server = self._server
        if server.kind is ProcessKind.DOWN:
            self._data = self._found(system_identifier)
            return Sight(self._state(self._data, LocalProcess()), version=VERSION)
        if server.kind not in RUNNING or server.is_stopping:
            source = self._disk.source
            process = LocalProcess(
                ProcessKind.RECOVERING,
                as_standby=server.as_standby,
                told=(source.host, source.address) if source is not None else None,
                progress="redo",
            )
            data = replace(self._data or LocalData(DataKind.PRESENT), was_primary=not server.as_standby)
            return Sight(self._state(data, process), version=VERSION, problem="it starts")
        return self._look_at_server()

    def _state(self, data: LocalData, process: LocalProcess) -> LocalState:
        disk = self._disk
        data = replace(data, rewind_refused=self._rewind_refused, primary_term=disk.primary_term)
        if data.kind is not DataKind.PRESENT:
            data = LocalData(data.kind)
        return LocalState(data, process, disk.sealed_under, disk.slots)

    def _found(self, system_identifier: str) -> LocalData:
        """What the control file and the others say."""
        disk = self._disk
        if disk.is_partial:
            return LocalData(DataKind.PARTIAL)
        data = disk.data
        if data is None:
            return LocalData()
        if data.system_identifier == disk.made and system_identifier not in (disk.made, ""):
            return LocalData(DataKind.PRESENT, damaged="the cluster's database was made elsewhere since")
        return LocalData(
            DataKind.PRESENT,
            data.system_identifier,
            data.history,
            was_primary=not data.has_standby_mark,
            is_clean=data.is_clean,
            end=data.flushed if data.is_clean else data.consistent_at,
        )

    def _look_at_server(self) -> Sight:
        server, data = self._server, self._server.data
        self._data = None
        is_standby = server.kind is ProcessKind.STANDBY
        local = LocalData(DataKind.PRESENT, data.system_identifier, data.history, was_primary=not is_standby)
        sending = server.receiving.sending
        process = LocalProcess(
            server.kind,
            as_standby=is_standby,
            receives_from=sending.server.host if sending is not None and is_standby else None,
            flushed=data.flushed,
            is_open=server.is_open,
            has_other_names=server.is_overridden,
        )
        receivers = tuple(
            ReceiverSight(
                each.to.host, "streaming" if each.is_streaming else "catchup", each.flushed, each.is_streaming
            )
            for each in server.sending
        )
        return Sight(
            self._state(local, process),
            receivers,
            started=str(server.generation),
            is_catching_up=is_standby and server.is_catching_up,
            version=VERSION,
        )

    async def configure(self, wanted: ServerSettings) -> None:
        """See Engine."""
        self._wanted = wanted

    # ---- its life -------------------------------------------------------------------

    async def make(self) -> None:
        """See Engine."""
        disk = self._disk
        disk.is_partial = True
        await self._takes(50, 300)
        identifier = self._server.databases.next_identifier()
        data = Data(identifier, TimelineHistory(Timeline(1)), is_clean=True)
        data.write(NO_NUMBER, LENGTH)
        data.flush(1)
        disk.data, disk.is_partial, disk.made = data, False, identifier
        assert data.end > FIRST

    def start(self, *, names: SyncNames | None, source: Source | None) -> None:
        """See Engine. Fails: `Conflict`: a standby's data are started as a standby."""
        disk, server = self._disk, self._server
        if server.kind is not ProcessKind.DOWN:
            raise Conflict("a server runs already")
        if disk.data is None or disk.is_partial:
            raise Conflict("there are no whole data")
        if names is not None and disk.data.has_standby_mark:
            raise Conflict("it is a standby's: start it as that, seal it and promote it")
        disk.names, disk.source = names or disk.names, source
        disk.data.has_standby_mark = names is None
        if names is None:
            disk.data.take_back_left_out()
        server.start(as_standby=names is None)

    async def stop(self, deadline_s: float) -> None:
        """See Engine."""
        self._server.stop()
        try:
            await self._until(lambda: self._server.kind is ProcessKind.DOWN, deadline_s)
        except NotInTime:
            await self.kill_all()

    def kill_now(self) -> None:
        """See Engine."""
        self._server.kill()

    async def kill_all(self) -> None:
        """See Engine."""
        self._server.kill()
        await self._until(lambda: self._server.kind is ProcessKind.DOWN, KILL_S)
        if self._server.is_read_only:
            raise DatabaseFailed("it is gone, and a note of it cannot be deleted (simulated)")

    # ---- whose it is ----------------------------------------------------------------

    async def seal(self, fencing_term: FencingTerm, names: SyncNames | None) -> None:
        """See Engine."""
        del names  # a promotion sets them
        await self._end_receiver()
        await self._takes(0.5, 4)
        failpoints.hit("database.seal.receiver-gone")
        self._disk.sealed_under = max(self._disk.sealed_under, fencing_term)

    async def _end_receiver(self) -> None:
        server = self._server
        await self._takes(0.5, 4)
        self._disk.source = None
        if server.kind is ProcessKind.DOWN:
            return
        if server.kind not in RUNNING:
            await self.kill_all()
            return
        await self._takes(1, 15)
        if server.kind in RUNNING:
            server.receiving.end()
            server.data.flush(len(server.data.wal))

    def note_acting(self, fencing_term: FencingTerm) -> None:
        """See Engine."""
        self._disk.primary_term = max(self._disk.primary_term, fencing_term)
        self._server.act(fencing_term)

    async def follow(self, source: Source) -> None:
        """See Engine."""
        if self._disk.source == source:
            return
        await self._takes(1, 10)
        # Together: a sidecar that dies before has told the server nothing, and its successor tells it anew.
        self._disk.source = source
        self._server.receiving.end()
        if self._server.kind is ProcessKind.STANDBY:
            self._server.receiving.begin()

    async def promote(self, names: SyncNames, timeline_above: Timeline) -> Lsn:
        """See Engine."""
        server = self._server
        self._check_ready()
        if self._disk.names != names:
            await self.set_sync(names)
        failpoints.hit("database.promote.names-set")
        await self._takes(0.2, 2)
        self._check_ready()
        if server.kind is ProcessKind.STANDBY:
            if server.receiving.is_wanted or server.receiving.sending is not None:
                raise Conflict("this standby still receives WAL")
            data = server.data
            present = data.newest_known()
            data.taken |= {Timeline(each) for each in range(present + 1, timeline_above + 1)}
            failpoints.hit("database.promote.left-out")
            await self._takes(0.2, 2)
        generation = server.generation
        failpoints.hit("database.promote.file-written")  # of which a server that was not told knows nothing
        server.promote()
        failpoints.hit("database.promote.signalled")
        is_over = lambda: server.kind is ProcessKind.PRIMARY or server.generation != generation  # noqa: E731
        await self._until(is_over, PROMOTE_S)
        self._check_ready()
        return server.data.flushed

    async def copy(self, source: Source) -> None:
        """See Engine."""
        disk = self._disk
        disk.is_partial = disk.is_partial or disk.data is None
        failpoints.hit("database.copy.begun")
        fresh = (await self._read(source, 200, 2_500)).copy()
        failpoints.hit("database.copy.copied")
        await self._takes(5, 100)
        failpoints.hit("database.copy.verified")
        failpoints.hit("database.copy.complete")
        if self._server.kind is not ProcessKind.DOWN:
            raise Conflict("a server runs on the data that the copy is to replace")
        disk.data, disk.is_partial, self._rewind_refused = fresh, False, ""
        # A life that finds the first moved aside puts the complete copy in its place.
        failpoints.hit("database.copy.moved-aside")
        failpoints.hit("database.copy.in-place")

    async def _read(self, source: Source, low_ms: float, high_ms: float) -> Data:
        """The source's data after a while in which it was there all the time. Fails: `DatabaseFailed`."""
        world = self._server.machine.world
        other = self._server.databases.servers[source.host]
        here, generation = self._server.host, other.generation
        for _ in range(10):
            await self._takes(low_ms / 10, high_ms / 10)
            is_cut = world.network.is_cut(here, source.host) or world.network.is_cut(source.host, here)
            if is_cut or other.machine.is_frozen or other.generation != generation:
                raise DatabaseFailed(f"the connection to {source.host} broke")
            if other.kind is not ProcessKind.PRIMARY or other.is_stopping:
                raise DatabaseFailed(f"{source.host} lets nobody in")
        return other.data

    async def rewind(self, source: Source, system_identifier: str) -> None:
        """See Engine."""
        disk, server = self._disk, self._server
        data = disk.data
        if data is None or disk.is_partial or server.kind is not ProcessKind.DOWN:
            raise CannotRewind("there are no whole data")
        if data.flushed < data.consistent_at:
            self._rewind_refused = "it was rewound and has not become consistent since"
            raise CannotRewind(self._rewind_refused)
        other = self._server.databases.servers[source.host]
        was_standby = data.has_standby_mark
        disk.is_partial = True
        failpoints.hit("database.rewind.begun")
        try:
            await self._read(source, 20, 100)
        except (DatabaseFailed, NotInTime) as error:
            disk.is_partial = False
            raise Conflict(f"nothing was rewound: {error}") from error
        data.flush(len(data.wal))  # its own recovery, if it was killed
        data.control_timeline = data.history.timeline
        if other.data.control_timeline == data.control_timeline:
            disk.is_partial, data.has_standby_mark = False, was_standby
            if other.data.history != data.history:
                raise Conflict(f"{source.host} has written no checkpoint since its promotion")
            data.has_standby_mark, data.is_clean = True, False
            return
        try:
            found = await self._read(source, 50, 800)
        except (DatabaseFailed, NotInTime) as error:
            self._rewind_refused = "the rewind did not come to its end"
            raise CannotRewind(f"{self._rewind_refused}: {error}") from error
        shared = common_end(data.history, found.history)
        lost = data.wind_back(data.end if shared is None else shared, found)
        data.lack(int(self._chance.random() ** 2 * 12))  # written while it was wound back: not in the copy
        server.machine.world.count("database-rewound" if lost else "database-rewound-nothing")
        failpoints.hit("database.rewind.ran")
        failpoints.hit("database.rewind.marked")
        disk.is_partial = False

    def distrust(self) -> None:
        """See Engine. Simulated pages are whole, and simulated parameters need no restart."""
        raise InvariantBroken("a look never told of damage")

    async def drop_former(self) -> None:
        """See Engine."""
        await asyncio.sleep(self._server.drops_s)

    # ---- as primary -----------------------------------------------------------------

    async def make_roles(self, password: str) -> None:
        """See Engine."""
        self._check_ready()
        await self._takes(5, 30)

    async def set_sync(self, names: SyncNames) -> Lsn:
        """See Engine."""
        self._check_ready()
        await self._takes(0.1, 1)
        server = self._server
        if server.is_overridden:
            raise Conflict("something overrides the names")
        generation = server.generation
        server.set_names(names)
        await self._until(lambda: server.in_force == (names,) or server.generation != generation, RELOAD_S)
        self._check_ready()
        if server.kind is not ProcessKind.PRIMARY:
            return server.data.flushed
        return server.write_barrier()

    async def set_slots(self, hosts: tuple[HostId, ...]) -> None:
        """See Engine."""
        self._check_ready()
        await self._takes(0.5, 4)
        self._disk.slots = tuple(sorted(hosts))

    async def checkpoint(self) -> None:
        """See Engine."""
        self._check_ready()
        await self._takes(2, 60)
        self._check_ready()
        self._server.checkpoint()

    async def open(self) -> None:
        """See Engine."""
        self._check_ready()
        await self._takes(0.3, 4)
        self._check_ready()
        self._server.open()

    async def tidy(self) -> None:
        """See Engine."""
        await self._takes(0.1, 2)
