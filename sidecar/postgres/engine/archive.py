"""Every byte of WAL of this host's server, kept in a folder of the operator's, for a restore to any moment.

    DIR/SYSTEM_IDENTIFIER/HOST/000001/    segments, whole ones and the present one as `.partial`, and
                                          histories, as pg_receivewal writes them
    DIR/SYSTEM_IDENTIFIER/HOST/000002/    begun where the first could not be continued

pg_receivewal takes it from the host's own server, primary or standby, through a slot. Not
`archive_command`: its programs live and die with the server, and one that hangs on a disk would
keep the server's process tree from being seen to be gone, on which every failover rests.

Invariant: a folder or disk that hangs, fails or is full holds up nothing but this. The server keeps WAL
for the slot up to `max_slot_wal_keep_size`; what it throws away then is missing here, and `problem` says so.
Invariant: no file of an earlier number is written again once a later one was begun.
"""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from mesh.errors import DatabaseFailed, DiskFull, NotInTime, TrellisError
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.config import (
    REPLICATION_ROLE,
    ServerConfig,
    Upstream,
    connection_text,
    copying_name,
)
from sidecar.postgres.engine.connection import Session
from sidecar.postgres.engine.tool import Tools

LOG = structlog.get_logger(__name__)

#: Not with the prefix of the standbys' slots, which are dropped with their hosts.
SLOT: Final = "archive_of_trellis"
LOOK_S: Final = 5.0
QUERY_S: Final = 2.0
_AGAIN_S_MIN, _AGAIN_S_MAX = 0.5, 30.0
#: So many failures in a row are told.
_TOLD_AFTER: Final = 3
_FOR_EVER_S: Final = 10 * 365 * 86_400.0
#: The newest folder cannot be continued from this server.
_BREAK: Final = re.compile(
    r"not in this server's history|has already been removed|is ahead of the WAL flush position"
    r"|can no longer be|has been invalidated|requested timeline"
)


class WalArchive:
    """Archives one host's WAL, or sees that nothing is kept for that. `run` until cancelled."""

    def __init__(
        self,
        tools: Tools,
        folder: Path | None,
        config: Callable[[], ServerConfig],
        is_ready: Callable[[], bool],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        """*tools*: of a leaf of its own. *folder* None: no archive. *is_ready*: the server answers."""
        self._tools = tools
        self._folder = folder
        self._config = config
        self._is_ready = is_ready
        self._look_s = look_s
        self._failures = 0
        self._trouble = ""
        self._gap = ""
        #: Nothing is left to do.
        self._is_idle = False

    @property
    def problem(self) -> str:
        """What is not well, as a sentence; empty when all is."""
        return self._trouble or self._gap

    def backed_up(self) -> None:
        """A backup was made: what is missing before it is missed no more."""
        self._gap = ""

    async def run(self) -> None:
        """Archive while there is a server; without a folder, drop what an earlier setting has left, once."""
        while not self._is_idle:
            try:
                if self._is_ready():
                    await self._turn()
            except (TrellisError, OSError) as error:
                self._failed(error)
            await asyncio.sleep(min(_AGAIN_S_MIN * 2**self._failures, _AGAIN_S_MAX))
        await asyncio.Event().wait()

    def _failed(self, error: TrellisError | OSError) -> None:
        if not self._is_ready():
            return
        self._failures = min(self._failures + 1, 10)
        if self._failures == 1 or str(error) not in self._trouble:
            LOG.warning("database-archive", error=str(error), failures=self._failures)
        if self._failures >= _TOLD_AFTER or isinstance(error, DiskFull | NotInTime):
            self._trouble = (
                f"WAL is not archived to {self._folder} ({error}); it is kept here up to"
                " max_slot_wal_keep_size, and then thrown away"
            )

    async def _turn(self) -> None:
        session = await Session.open(self._tools.layout, self._config().port, deadline_s=QUERY_S)
        try:
            if self._folder is None:
                await self._drop_slot(session)
                self._is_idle = True
                return
            folder = await self._begin(session, self._folder)
        finally:
            session.drop()
        task = asyncio.get_running_loop().create_task(self._receive(folder), name="database:archive")
        try:
            await self._watch(task)
        except DatabaseFailed as error:
            if _BREAK.search(f"{error} {error.metadata.get('said', '')}"):
                await self._break_off(str(error), folder)
            raise
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    # ---- where it goes on -------------------------------------------------------------

    async def _begin(self, session: Session, folder: Path) -> Path:
        """The folder to go on in, a new one where the slot that kept the WAL for the last is gone.

        Order: the folder first; a slot without one would let the last be continued after a gap.
        """
        rows = await session.query(
            "SELECT system_identifier::text,"
            "       (SELECT COALESCE(wal_status, '') FROM pg_replication_slots WHERE slot_name = %s)"
            "  FROM pg_control_system()",
            (SLOT,),
            deadline_s=QUERY_S,
        )
        identifier, status = rows[0]
        own = folder / identifier / self._config().host
        if status == "lost":
            await self._drop_slot(session)
            self._tell_gap(own, "it fell behind by more than max_slot_wal_keep_size")
        is_new = status in (None, "lost")
        found = await asyncio.to_thread(self._prepare, own, is_new=is_new)
        if is_new:
            await session.query(
                "SELECT pg_create_physical_replication_slot(%s, true)", (SLOT,), deadline_s=QUERY_S
            )
        return found

    def _prepare(self, own: Path, *, is_new: bool) -> Path:
        """Blocks. Fails: `DiskFull`, OSError, `SettingsError`."""
        with full_disk.told(own):
            for each in (own.parent, own):
                each.mkdir(mode=0o755, exist_ok=True)
            last = last_number(own)
            folder = own / f"{max(last, 1):06}"
            if is_new and folder.is_dir() and any(folder.iterdir()):
                folder = own / f"{last + 1:06}"
            if not folder.is_dir():
                self._tools.layout.make_empty(folder)
        self._tools.layout.check_way(folder, "database.archive_dir")
        return folder

    async def _drop_slot(self, session: Session) -> None:
        await session.query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
            (SLOT,),
            deadline_s=QUERY_S,
        )

    async def _break_off(self, why: str, folder: Path) -> None:
        """Nothing follows on what is in *folder*: begin another."""
        session = await Session.open(self._tools.layout, self._config().port, deadline_s=QUERY_S)
        try:
            await self._drop_slot(session)
        finally:
            session.drop()
        self._tell_gap(folder.parent, why)

    def _tell_gap(self, own: Path, why: str) -> None:
        LOG.warning("database-archive-gap", folder=str(own), reason=why)
        self._gap = (
            f"WAL may be missing in the archive {own} ({why}): make a backup, a restore from an older one"
            " may end there"
        )

    # ---- receiving --------------------------------------------------------------------

    async def _receive(self, folder: Path) -> None:
        await self._tools.clear()
        config = self._config()
        own = Upstream(config.host, config.listen[0], config.port)
        text = connection_text(
            self._tools.layout, config, own, REPLICATION_ROLE, name=copying_name(config.host)
        )
        arguments = ["--directory", str(folder), "--slot", SLOT, "--no-loop", "--no-password"]
        arguments += ["--status-interval", "1", "--dbname", text]
        try:
            await self._tools.run("pg_receivewal", *arguments, deadline_s=_FOR_EVER_S)
        except DiskFull as error:
            raise full_disk.full(folder) from error

    async def _watch(self, task: "asyncio.Task[None]") -> None:
        """Until it ends. Fails: as it did; `NotInTime` when it lives and takes nothing any more."""
        idle = 0
        while True:
            done, _ = await asyncio.wait({task}, timeout=self._look_s)
            if done:
                return await task
            active = await self._is_active()
            if active:
                self._failures, self._trouble = 0, ""
            idle = 0 if active or active is None else idle + 1
            if idle == 2:  # the server ends a receiver that is silent for wal_sender_timeout
                raise NotInTime("it takes no WAL; look for a hanging disk")

    async def _is_active(self) -> bool | None:
        """Somebody receives through the slot; None: not known."""
        try:
            session = await Session.open(self._tools.layout, self._config().port, deadline_s=QUERY_S)
        except TrellisError:
            return None
        try:
            text = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
            rows = await session.query(text, (SLOT,), deadline_s=QUERY_S)
        except TrellisError:
            return None
        finally:
            session.drop()
        return bool(rows and rows[0][0])


def last_number(own: Path) -> int:
    """Of the newest folder of one host's archive; 0: none."""
    return max((int(each.name) for each in own.iterdir() if each.name.isdigit()), default=0)
