"""This host's PostgreSQL, put together: the one object that a driver holds.

`start` is the only way to a running server, so that whatever a clone, a rewind or a hand has
left in the data directory is never what the server reads.
"""

import asyncio
from dataclasses import replace
from typing import Final

from mesh.adapters.cgroup import Hierarchies, Leaf
from mesh.errors import Conflict, DatabaseFailed, NotInTime
from sidecar.postgres.engine.binaries import Binaries
from sidecar.postgres.engine.config import ConfigFiles, ServerConfig
from sidecar.postgres.engine.control import Control
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.local_data import take_back_left_out
from sidecar.postgres.engine.observe import ServerView
from sidecar.postgres.engine.process import Postmaster, Running
from sidecar.postgres.engine.tool import Tools
from sidecar.postgres.model import SyncNames

#: The server's own group, and the one of the programs that make or mend its data.
SERVER_LEAF: Final = "postgres"
TOOLS_LEAF: Final = "postgres-tools"
#: And of backups, which go on while data are made or mended.
BACKUP_LEAF: Final = "postgres-backup"
ARCHIVE_LEAF: Final = "postgres-archive"
#: A standby that hangs must not hold up a failover for longer.
SEAL_S: Final = 1.0
KILL_S: Final = 5.0


class LocalPostgres:
    """The parts of one host's database. Folders are there after `prepare`."""

    def __init__(
        self, binaries: Binaries, layout: Layout, hierarchies: Hierarchies, config: ServerConfig
    ) -> None:
        """*hierarchies*: of a folder of our own, no other's leaves are in it."""
        layout.prepare()
        self.binaries = binaries
        self.layout = layout
        self.tools = Tools(binaries, layout, Leaf(hierarchies, TOOLS_LEAF))
        self.backup_tools = Tools(binaries, layout, Leaf(hierarchies, BACKUP_LEAF))
        self.archive_tools = Tools(binaries, layout, Leaf(hierarchies, ARCHIVE_LEAF))
        self.files = ConfigFiles(layout, binaries.major)
        self.postmaster = Postmaster(binaries, layout, Leaf(hierarchies, SERVER_LEAF))
        self.control = Control(layout, self.files, self.postmaster, config)

    async def recover(self) -> Running | None:
        """After a start of the sidecar: end programs that were left, finish or undo a change of directories.

        A server that still runs is adopted and returned. What is left of one without its
        postmaster is killed. Fails: as `Postmaster.kill_tree`.
        """
        await self.tools.clear()
        adopted = self.postmaster.adopt()
        if adopted is None:
            await self.postmaster.kill_tree(10.0)
            await asyncio.to_thread(self.layout.resume)
        return adopted

    def start(self, *, as_standby: bool, config: ServerConfig | None = None) -> Running:
        """Start the server closed to clients; `postmaster.wait_ready` says when it is up.

        Fails: as `Postmaster.start`. `Conflict` too when a standby's data is to be started as primary:
        it would go on with its primary's timeline, beside that; promote it instead.
        """
        if not as_standby and (self.layout.data / "standby.signal").exists():
            raise Conflict(f"{self.layout.data} is a standby's: start it as that, seal it and promote it.")
        self.control.close()
        self.control.write(replace(config or self.control.config, is_open=False))
        if self.layout.data.is_dir() and not self.layout.is_partial:
            self.files.point(self.layout.data)
            self.files.mark_standby(self.layout.data, is_standby=as_standby)
            if as_standby:
                take_back_left_out(self.layout.data / "pg_wal")
        return self.postmaster.start()

    async def seal(
        self, deadline_s: float = SEAL_S, kill_s: float = KILL_S, sync: SyncNames | None = None
    ) -> ServerView | None:
        """Receive WAL from nobody any more, whatever state the server is in.

        One that lets nobody in (frozen, or not consistent yet) is killed: what it has is then read
        after a start, and None is returned. Durable in either case, until `Control.follow`.
        Fails: as `Postmaster.kill_tree`; then it must not be said to be sealed. `DiskFull`.
        """
        if self.postmaster.running is not None:
            try:
                return await self.control.seal(deadline_s, sync)
            except (DatabaseFailed, NotInTime):
                self.control.close()
        self.control.write(replace(self.control.config, upstream=None, sync=sync or self.control.config.sync))
        await self.postmaster.kill_tree(kill_s)
        return None
