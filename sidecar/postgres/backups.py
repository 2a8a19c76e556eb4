"""Backups of this host's choosing: which server is copied, and one at a time.

Order: this host's own server where it is primary or receives from one; else the primary over the network.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mesh.errors import Conflict, Unavailable
from mesh.ids import HostId
from sidecar.postgres.engine.backup import BackupProgress, Made, back_up
from sidecar.postgres.engine.backup_store import BackupStore
from sidecar.postgres.engine.config import Upstream
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.model import ProcessKind
from sidecar.postgres.port import Sight, Source


class Backups:
    """Makes backups on one host that carries data."""

    def __init__(
        self,
        host: HostId,
        local: LocalPostgres,
        sight: Callable[[], Sight],
        primary: Callable[[], Source | None],
        on_made: Callable[[], None],
    ) -> None:
        """*sight*: the last look at the own server; *primary*: where clients are let in now."""
        self._host = host
        self._local = local
        self._sight = sight
        self._primary = primary
        self._on_made = on_made
        self._is_busy = False

    async def make(self, folder: Path, keep: int, kib_per_s: int) -> AsyncIterator[BackupProgress | Made]:
        """Make one, and tell how far it is; what was made comes last.

        Cancellation: it is broken off, and nothing of it is left. Fails: as `back_up`; `Conflict` while
        another one is made here, `Unavailable` when there is no server to copy.
        """
        if self._is_busy:
            raise Conflict(f"A backup is being made on {self._host} already; wait for it.")
        self._is_busy = True
        try:
            async for each in self._make(folder, keep, kib_per_s):
                yield each
        finally:
            self._is_busy = False

    async def _make(self, folder: Path, keep: int, kib_per_s: int) -> AsyncIterator[BackupProgress | Made]:
        source = self._source()
        news = asyncio.Event()
        latest = BackupProgress(f"copying from {source.host}")

        def told(progress: BackupProgress) -> None:
            nonlocal latest
            latest = progress
            news.set()

        local = self._local
        store = BackupStore(local.layout, folder, self._host)
        work = back_up(
            local.backup_tools, local.control.config, source, store,
            keep=keep, kib_per_s=kib_per_s, on_progress=told,
        )  # fmt: skip
        task = asyncio.get_running_loop().create_task(work, name="database:backup")
        task.add_done_callback(lambda _: news.set())
        try:
            yield latest
            while not task.done():
                await news.wait()
                news.clear()
                if not task.done():
                    yield latest
            made = await task
            self._on_made()
            yield made
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _source(self) -> Upstream:
        process, config = self._sight().local.process, self._local.control.config
        is_fit = process.kind is ProcessKind.PRIMARY and process.is_open
        if is_fit or (process.kind is ProcessKind.STANDBY and process.receives_from is not None):
            return Upstream(self._host, config.listen[0], config.port)
        primary = self._primary()
        if primary is None or primary.host == self._host:
            raise Unavailable(
                f"The server of {self._host} neither leads nor follows, and no host takes writes;"
                " see trellis db status."
            )
        return upstream_of(primary)


def upstream_of(source: Source) -> Upstream:
    """Where a host's server is reached."""
    address, _, port = source.address.rpartition(":")
    return Upstream(source.host, address.strip("[]"), int(port))
