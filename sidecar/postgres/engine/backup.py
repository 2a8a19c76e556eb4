"""A verified copy of the database, outside of it, that can be started by itself.

Invariant: what bears a backup's name was verified after it was written; one that was interrupted
bears another, and the next backup of this host deletes it.
Absent here: from which server, and when (`sidecar.postgres.backups`).
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mesh.errors import DatabaseFailed, DataDamaged, DiskFull
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.backup_store import Backup, BackupStore, name_at, size_of
from sidecar.postgres.engine.config import (
    REPLICATION_ROLE,
    ServerConfig,
    Upstream,
    connection_text,
    copying_name,
)
from sidecar.postgres.engine.control_data import read_control_data
from sidecar.postgres.engine.tool import Tools
from sidecar.postgres.model import Lsn, Timeline, parse_lsn

BACKUP_S: Final = 24 * 3600.0
IDLE_S: Final = 60.0
VERIFY_S: Final = 6 * 3600.0
_PROGRESS: Final = re.compile(r"(\d+)/(\d+) kB \((\d+)%\)")


@dataclass(frozen=True, slots=True)
class BackupProgress:
    """How far it is; the total is the server's estimate, 0 when there is none."""

    doing: str
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup run has made, and which older ones it has deleted."""

    backup: Backup
    path: Path
    deleted: tuple[str, ...] = ()


async def back_up(
    tools: Tools,
    config: ServerConfig,
    source: Upstream,
    store: BackupStore,
    *,
    keep: int = 0,
    kib_per_s: int = 0,
    on_progress: Callable[[BackupProgress], None],
) -> Made:
    """Copy *source* into *store* and verify it; only then are older ones deleted, until *keep* are left.

    *tools*: of a leaf that nothing else uses. *kib_per_s*: how fast the server may send; 0: as it can.
    *keep* 0 deletes none. Cancellation: nothing of it is left.
    Fails: as `BackupStore.prepare`; `DatabaseFailed` (unreachable, refused, promoted meanwhile),
    `DataDamaged` when the copy does not verify, `NotInTime`; nothing is left.
    """
    await tools.clear()
    began = datetime.now(UTC)
    name = name_at(began)
    try:
        data = await asyncio.to_thread(store.prepare, name)
        await _copy(tools, config, source, data, kib_per_s, on_progress)
        on_progress(BackupProgress("verifying it"))
        await _verify(tools, data)
        backup = await _describe(tools, config, source, name, began, data)
        path = await asyncio.to_thread(store.finish, backup)
    except BaseException:
        await asyncio.to_thread(store.drop_partial, name)
        raise
    if keep <= 0:
        return Made(backup, path)
    on_progress(BackupProgress("deleting older ones"))
    return Made(backup, path, tuple(await asyncio.to_thread(store.keep, keep, config.cluster_id)))


async def _copy(
    tools: Tools,
    config: ServerConfig,
    source: Upstream,
    data: Path,
    kib_per_s: int,
    on_progress: Callable[[BackupProgress], None],
) -> None:
    def on_line(line: str) -> None:
        found = _PROGRESS.search(line)
        if found:
            on_progress(BackupProgress("copying", int(found[1]) << 10, int(found[2]) << 10))
        elif "checkpoint" in line:
            on_progress(BackupProgress("waiting for a checkpoint"))

    arguments = ["--pgdata", str(data), "--wal-method", "stream", "--checkpoint", "fast", "--verbose"]
    arguments += ["--progress", "--no-password", "--manifest-checksums", "CRC32C"]
    if kib_per_s:
        arguments += ["--max-rate", f"{kib_per_s}k"]
    text = connection_text(tools.layout, config, source, REPLICATION_ROLE, name=copying_name(config.host))
    try:
        await tools.run(
            "pg_basebackup", *arguments, "--dbname", text, deadline_s=BACKUP_S, idle_s=IDLE_S, on_line=on_line
        )
    except DiskFull as error:
        raise full_disk.full(data) from error
    except DatabaseFailed as error:
        raise DatabaseFailed(
            f"No backup could be made from {source.host}: {error}", said=error.metadata.get("said", "")
        ) from error


async def _verify(tools: Tools, data: Path) -> None:
    try:
        await tools.run("pg_verifybackup", "--quiet", str(data), deadline_s=VERIFY_S)
    except DatabaseFailed as error:
        raise DataDamaged(f"The backup does not verify ({error}); it is not kept.", where=data) from error


async def _describe(
    tools: Tools, config: ServerConfig, source: Upstream, name: str, began: datetime, data: Path
) -> Backup:
    found = await read_control_data(data)
    ranges = await asyncio.to_thread(wal_ranges, data)
    return Backup(
        name=name,
        cluster_id=config.cluster_id,
        host=source.host,
        system_identifier=found.system_identifier,
        timeline=ranges[-1][0],
        start=ranges[0][1],
        end=ranges[-1][2],
        version=tools.binaries.version,
        began=began.isoformat(timespec="seconds"),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        size_bytes=await asyncio.to_thread(size_of, data),
    )


def wal_ranges(data: Path) -> list[tuple[Timeline, Lsn, Lsn]]:
    """The WAL that a copy needs to be consistent, oldest first. Fails: `DataDamaged`."""
    path = data / "backup_manifest"
    try:
        listed: Any = json.loads(path.read_bytes())["WAL-Ranges"]
        found = [
            (Timeline(int(each["Timeline"])), parse_lsn(each["Start-LSN"]), parse_lsn(each["End-LSN"]))
            for each in listed
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataDamaged(f"{path} cannot be read ({error}).", where=path) from error
    if not found:
        raise DataDamaged(f"{path} names no WAL.", where=path)
    return sorted(found)
