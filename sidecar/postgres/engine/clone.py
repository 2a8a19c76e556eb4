"""A verified copy of the primary in `data.new`, to be put in place of what is here.

A clone that was interrupted is started over: what is unfinished has no name under which
it could be started, and is deleted before anything else is tried.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mesh import failpoints
from mesh.errors import DatabaseFailed, DataDamaged
from sidecar.postgres.engine.config import (
    REPLICATION_ROLE,
    ConfigFiles,
    ServerConfig,
    Upstream,
    connection_text,
    copying_name,
    slot_name,
)
from sidecar.postgres.engine.control_data import ControlData, read_control_data
from sidecar.postgres.engine.tool import Tools

#: Whole copy, and the longest without a byte.
CLONE_S: Final = 24 * 3600.0
IDLE_S: Final = 60.0
VERIFY_S: Final = 6 * 3600.0
_PROGRESS: Final = re.compile(r"(\d+)/(\d+) kB \((\d+)%\)")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a clone is, in KiB; the total is the server's estimate."""

    done_kib: int
    total_kib: int


async def clone(
    tools: Tools,
    files: ConfigFiles,
    config: ServerConfig,
    source: Upstream,
    *,
    has_slot: bool = True,
    deadline_s: float = CLONE_S,
    idle_s: float = IDLE_S,
    on_progress: Callable[[Progress], None] | None = None,
) -> ControlData:
    """Copy *source* into `data.new` and verify it; `Layout.put_in_place` makes it the data directory.

    *has_slot*: the primary has this host's slot, so that no WAL is missed after the copy.
    The copy receives from nobody until it is told whom to follow. What is in `data` stays untouched.
    Cancellation: nothing is left. Fails: `DiskFull`, `DatabaseFailed` (unreachable, refused),
    `DataDamaged` when the copy does not verify, `NotInTime`; nothing is left.
    """
    layout = tools.layout
    await tools.clear()
    await tools.drop_fresh()
    layout.note(layout.clone_note, complete=False, source=source.host)
    layout.make_empty(layout.fresh)
    failpoints.hit("database.copy.begun")
    try:
        await _copy(tools, config, source, has_slot, deadline_s, idle_s, on_progress)
        failpoints.hit("database.copy.copied")
        found = await _verify(tools)
        files.point(layout.fresh)
        files.mark_standby(layout.fresh, is_standby=True)
    except BaseException:
        await tools.drop_fresh()
        raise
    failpoints.hit("database.copy.verified")
    layout.note(layout.clone_note, complete=True, source=source.host)
    failpoints.hit("database.copy.complete")
    return found


async def _copy(
    tools: Tools,
    config: ServerConfig,
    source: Upstream,
    has_slot: bool,
    deadline_s: float,
    idle_s: float,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    def on_line(line: str) -> None:
        found = _PROGRESS.search(line)
        if found and on_progress is not None:
            on_progress(Progress(int(found[1]), int(found[2])))

    layout = tools.layout
    arguments = ["--pgdata", str(layout.fresh), "--wal-method", "stream", "--checkpoint", "fast"]
    arguments += ["--progress", "--no-password", "--manifest-checksums", "CRC32C"]
    if has_slot:
        arguments += ["--slot", slot_name(config.host)]
    name = copying_name(config.host)
    arguments += ["--dbname", connection_text(layout, config, source, REPLICATION_ROLE, name=name)]
    try:
        await tools.run("pg_basebackup", *arguments, deadline_s=deadline_s, idle_s=idle_s, on_line=on_line)
    except DatabaseFailed as error:
        raise DatabaseFailed(
            f"The database cannot be copied from {source.host} ({source.address}:{source.port}): {error}",
            said=error.metadata.get("said", ""),
        ) from error


async def _verify(tools: Tools) -> ControlData:
    fresh = tools.layout.fresh
    try:
        await tools.run("pg_verifybackup", "--quiet", str(fresh), deadline_s=VERIFY_S)
    except DatabaseFailed as error:
        raise DataDamaged(f"The copy does not verify ({error}); it is not used.", where=fresh) from error
    return await read_control_data(fresh)
