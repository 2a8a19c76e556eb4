"""Backups and restores on this host: from which server and which backup, and one at a time.

Order of sources: this host's own server where it is primary or receives from one; else the primary over
the network.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mesh.errors import Conflict, Unavailable
from mesh.ids import HostId
from sidecar.postgres.engine.backup import BackupProgress, Made, back_up
from sidecar.postgres.engine.backup_store import BackupStore, read_backup
from sidecar.postgres.engine.config import Upstream
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.engine.restore import Restored, Until, restore
from sidecar.postgres.model import ProcessKind
from sidecar.postgres.port import Sight, Source

_Told = Callable[[BackupProgress], None]
_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a host's backups and restores know of the rest of it."""

    #: The last look at the own server.
    sight: Callable[[], Sight]
    #: Where clients are let in now.
    primary: Callable[[], Source | None]
    #: Why no data may be restored here now, as a sentence; empty: they may.
    why_no_restore: Callable[[], str]
    #: Where this host's WAL is archived.
    archive: Path | None
    on_backup: Callable[[], None]
    #: Makes the restored data those of this host.
    put_in_place: Callable[[], None]


class Backups:
    """Makes backups, and data from them, on one host that carries PostgreSQL."""

    def __init__(self, host: HostId, local: LocalPostgres, around: Surroundings) -> None:
        self._host = host
        self._local = local
        self._around = around
        self._is_busy = False

    async def make(self, folder: Path, keep: int, kib_per_s: int) -> AsyncIterator[BackupProgress | Made]:
        """Make one, and tell how far it is; what was made comes last.

        Cancellation: it is broken off, and nothing of it is left. Fails: as `back_up`; `Conflict` while
        another one is made here, `Unavailable` when there is no server to copy.
        """
        source, local = self._source(), self._local
        store = BackupStore(local.layout, folder, self._host)

        async def work(told: _Told) -> Made:
            config = local.control.config
            made = await back_up(
                local.backup_tools, config, source, store,
                keep=keep, kib_per_s=kib_per_s, on_progress=told,
            )  # fmt: skip
            self._around.on_backup()
            return made

        async for each in self._one_at_a_time(f"copying from {source.host}", work):
            yield each

    async def restore(
        self, folder: Path, archive: Path | None, until: Until
    ) -> AsyncIterator[BackupProgress | Restored]:
        """Make this host's data from the newest backup in *folder* that fits, and put them in place.

        *archive*: None means this host's own, where it has something of that database.
        Cancellation: nothing is left. Fails: as `restore`; `Conflict` where a database is declared, or
        there are data already; `NotFound` without a backup.
        """
        local = self._local
        self._check_may_restore()

        async def work(told: _Told) -> Restored:
            path, backup = await asyncio.to_thread(read_backup, folder, until.is_after)
            found = archive
            if archive is None and self._around.archive is not None:
                own = self._around.archive / backup.system_identifier
                found = self._around.archive if await asyncio.to_thread(own.is_dir) else None
            made = await restore(
                local.backup_tools, local.files, path, backup, found, until, on_progress=told
            )
            self._check_may_restore()
            self._around.put_in_place()
            return made

        async for each in self._one_at_a_time("reading the backup", work):
            yield each

    def _check_may_restore(self) -> None:
        why, data = self._around.why_no_restore(), self._local.layout.data
        if why:
            raise Conflict(why)
        if data.exists():
            raise Conflict(
                f"{data} exists: data are restored only where there are none. Move it away first"
                " (it is of a database that this cluster does not know)."
            )

    async def _one_at_a_time(
        self, first: str, work: Callable[[_Told], Coroutine[Any, Any, _Done]]
    ) -> AsyncIterator[BackupProgress | _Done]:
        if self._is_busy:
            raise Conflict(f"A backup or a restore is under way on {self._host} already; wait for it.")
        self._is_busy = True
        news, latest = asyncio.Event(), BackupProgress(first)

        def told(progress: BackupProgress) -> None:
            nonlocal latest
            latest = progress
            news.set()

        task = asyncio.get_running_loop().create_task(work(told), name="database:backup")
        task.add_done_callback(lambda _: news.set())
        try:
            yield latest
            while not task.done():
                await news.wait()
                news.clear()
                if not task.done():
                    yield latest
            yield await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            self._is_busy = False

    def _source(self) -> Upstream:
        process, config = self._around.sight().local.process, self._local.control.config
        is_fit = process.kind is ProcessKind.PRIMARY and process.is_open
        if is_fit or (process.kind is ProcessKind.STANDBY and process.receives_from is not None):
            return Upstream(self._host, config.listen[0], config.port)
        primary = self._around.primary()
        if primary is None or primary.host == self._host:
            raise Unavailable(
                f"The server of {self._host} neither leads nor follows, and no host takes writes;"
                " see trellis db status."
            )
        address, _, port = primary.address.rpartition(":")
        return Upstream(primary.host, address.strip("[]"), int(port))
