"""A data directory made from a backup, and led by archived WAL to the moment that is asked for.

It is made beside `data`, by a server that lets nobody in: `postgres --single` replays, ends on a timeline
of its own, and stops. Nothing of the backup and of the archive is changed.

Invariant: the new timeline has a number above every one that the archive knows: what was written
on those after the moment restored to is never taken for its future.
"""

import asyncio
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from mesh.errors import Conflict, DatabaseFailed, DataDamaged, DiskFull, InvalidRequest, NotFound, Problem
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.backup import BackupProgress
from sidecar.postgres.engine.backup_store import Backup
from sidecar.postgres.engine.config import ConfigFiles
from sidecar.postgres.engine.control_data import read_control_data
from sidecar.postgres.engine.layout import Layout, sync_folder
from sidecar.postgres.engine.local_data import LEFT_OUT
from sidecar.postgres.engine.origin import made_here
from sidecar.postgres.engine.tool import Tools
from sidecar.postgres.engine.tree_copy import TreeCopy
from sidecar.postgres.history import end_on, parse_history
from sidecar.postgres.model import Lsn, Timeline, TimelineHistory, format_lsn, parse_lsn

REPLAY_S: Final = 7 * 24 * 3600.0
VERIFY_S: Final = 6 * 3600.0
SYNC_S: Final = 3600.0
_LSN: Final = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_SEGMENT: Final = re.compile(r"[0-9A-F]{24}(\.partial)?")
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")
_EXAMPLE: Final = "2026-11-22T07:20:00Z, or 0/5000148"
#: For the archive's programs: any other code means that there is no such file, and ends the replay there.
_FATAL: Final = 255


@dataclass(frozen=True, slots=True)
class Until:
    """Where the replay ends: a moment or a position; with neither, where the WAL ends."""

    moment: datetime | None = None
    lsn: Lsn | None = None

    @classmethod
    def parse(cls, text: str) -> "Until":
        """Fails: `InvalidRequest`."""
        if not text:
            return cls()
        if _LSN.fullmatch(text):
            return cls(lsn=parse_lsn(text))
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise _unusable(f"{text!r} is neither a time nor a position in the WAL") from None
        if moment.tzinfo is None:
            raise _unusable(f"{text!r} does not say in which time zone (Z, +02:00)")
        return cls(moment=moment)

    def is_after(self, backup: Backup) -> bool:
        """The backup can be led there."""
        if self.lsn is not None:
            return self.lsn >= backup.end
        return self.moment is None or datetime.fromisoformat(backup.ended) <= self.moment


@dataclass(frozen=True, slots=True)
class Restored:
    """Data that wait to be put in place."""

    folder: Path
    backup: Backup
    timeline: Timeline
    #: What the replay said of its end.
    ended_at: str


async def restore(
    tools: Tools,
    files: ConfigFiles,
    backup_folder: Path,
    backup: Backup,
    archive: Path | None,
    until: Until,
    *,
    on_progress: Callable[[BackupProgress], None],
) -> Restored:
    """Make `data.restored` from the backup and the archives of all hosts under *archive*.

    *tools*: of a leaf that nothing else uses. `put_restored_in_place` is the next step.
    Cancellation: nothing is left. Fails: `Conflict` for another major version, or when the moment is not
    reached or lies before the backup; `DataDamaged` when the backup does not verify; `DiskFull`,
    `DatabaseFailed`, `NotInTime`. Nothing is left then.
    """
    layout = tools.layout
    if int(backup.version.split(".")[0]) != tools.binaries.major:
        raise Conflict(
            f"The backup is of PostgreSQL {backup.version}, and {tools.binaries.version} runs here:"
            " only the same major version can read it."
        )
    await tools.clear()
    fresh = layout.restored
    await asyncio.to_thread(_remove, fresh)
    try:
        await _copy(layout, backup_folder / "data", fresh, backup.size_bytes, on_progress)
        on_progress(BackupProgress("verifying it"))
        await _verify(tools, fresh)
        folders = await asyncio.to_thread(archive_folders, archive, backup.system_identifier)
        target = await asyncio.to_thread(_prepare, layout, fresh, backup, folders, until)
        on_progress(BackupProgress(f"replaying the WAL of timeline {target}"))
        ended_at = await _replay(tools, fresh, on_progress)
        on_progress(BackupProgress("making it durable"))
        await tools.run("initdb", "--sync-only", "--pgdata", str(fresh), deadline_s=SYNC_S)
        found = await read_control_data(fresh)
        if found.state != "shut down" or found.timeline <= target:
            raise DatabaseFailed(f"The replay ended as {found.state!r} on timeline {found.timeline}.")
        await asyncio.to_thread(files.point, fresh)
    except BaseException:
        await asyncio.to_thread(_remove, fresh)
        raise
    return Restored(fresh, backup, found.timeline, ended_at)


def put_restored_in_place(layout: Layout) -> None:
    """`data.restored` becomes `data`, in one step, without the promises of what was there before.

    Fails: `Conflict` when there are data.
    """
    if layout.data.exists() or layout.clone_note.exists():
        raise Conflict(f"{layout.data} exists: a database is restored only where there is none.")
    made_here(layout)
    # What was promised for data that are gone says nothing of these.
    layout.drop_note(layout.root / "standing.json")
    layout.restored.rename(layout.data)
    sync_folder(layout.root)


async def _copy(
    layout: Layout, source: Path, fresh: Path, total: int, on_progress: Callable[[BackupProgress], None]
) -> None:
    copy = TreeCopy(source, fresh, layout)
    task = asyncio.get_running_loop().create_task(asyncio.to_thread(copy.run), name="database:restore-copy")
    try:
        while not task.done():
            on_progress(BackupProgress("copying", copy.done_bytes, total))
            await asyncio.wait({task}, timeout=1.0)
        await task
    finally:
        copy.stop()
        if not task.done():
            await asyncio.wait({task})


async def _verify(tools: Tools, fresh: Path) -> None:
    try:
        await tools.run("pg_verifybackup", "--quiet", str(fresh), deadline_s=VERIFY_S)
    except DatabaseFailed as error:
        raise DataDamaged(f"The backup is damaged ({error}); restore from another.", where=fresh) from error


# ---- what the replay is told -----------------------------------------------------------


def archive_folders(archive: Path | None, system_identifier: str) -> list[Path]:
    """All folders with WAL of that database, of all hosts. Fails: `NotFound` when there is none."""
    if archive is None:
        return []
    hosts = sorted(each for each in (archive / system_identifier).glob("*") if each.is_dir())
    found = [each for host in hosts for each in sorted(host.iterdir()) if each.name.isdigit()]
    if not found:
        raise NotFound(f"There is no WAL of database {system_identifier} in {archive}.", folder=archive)
    return found


def _prepare(layout: Layout, fresh: Path, backup: Backup, folders: list[Path], until: Until) -> Timeline:
    """Tell the server what to replay; the timeline that it follows. Blocks."""
    histories = read_histories([*folders, fresh / "pg_wal"])
    target = furthest_line(backup, histories, folders)
    above = max((each.timeline for each in histories), default=target)
    for number in range(target + 1, above + 1):
        path = fresh / "pg_wal" / f"{number:08X}.history"
        if not path.exists():  # the new timeline takes the next number without a history
            layout.write(path, LEFT_OUT, mode=0o600, own=True)
    for name in ("standby.signal", "backup_manifest"):
        (fresh / name).unlink(missing_ok=True)
    layout.write(fresh / "postgresql.auto.conf", b"", mode=0o600, own=True)
    layout.write(fresh / "recovery.signal", b"", mode=0o600, own=True)
    layout.write(layout.conf / "fetch.sh", fetch_script(folders).encode())
    layout.write(layout.conf / "restore.conf", _settings(layout, target, until).encode())
    return target


def read_histories(folders: Iterable[Path]) -> list[TimelineHistory]:
    """Of every timeline that a history file tells of; one that was left out tells of none."""
    found = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            named = _HISTORY.fullmatch(path.name)
            if named is None:
                continue
            timeline = Timeline(int(named[1], 16))
            try:
                history = parse_history(timeline, path.read_text())
            except ValueError as error:
                raise DataDamaged(f"{path} is not understood ({error}).", where=path) from error
            if history.ancestors or timeline not in found:
                found[timeline] = history
    return [found[each] for each in sorted(found)]


def furthest_line(backup: Backup, histories: Iterable[TimelineHistory], folders: Iterable[Path]) -> Timeline:
    """The timeline on whose line the backup is and that nothing left; of several, the one with the most WAL.

    Blocks. Fails: `Conflict` when several end at the same position: nothing tells which was the database.
    """
    fitting = [
        each
        for each in histories
        if (left := end_on(each, backup.timeline)) is not None and left >= backup.end
    ]
    left_behind = {each.timeline for history in fitting for each in history.ancestors}
    branches = [each for each in fitting if each.timeline not in left_behind]
    if len(branches) < 2:
        return branches[0].timeline if branches else backup.timeline
    listed = list(folders)
    ends = {each.timeline: archived_end(each, listed) for each in branches}
    furthest = [each for each, end in ends.items() if end == max(ends.values())]
    if len(furthest) > 1:
        named = ", ".join(f"{each} (to {format_lsn(end)})" for each, end in sorted(ends.items()))
        raise Conflict(
            f"The history forks after the backup, and timelines {named} go equally far: move the .history"
            " files of those that are not wanted out of the archive."
        )
    return furthest[0]


def archived_end(history: TimelineHistory, folders: Iterable[Path]) -> Lsn:
    """Where the archived WAL of that timeline ends, by its last byte above zero; else where it begins."""
    end = max((each.end for each in history.ancestors), default=Lsn(0))
    found = [path for each in folders for path in each.iterdir() if _SEGMENT.fullmatch(path.name)]
    own = [path for path in found if path.name.startswith(f"{history.timeline:08X}")]
    last = max((path.name[:24] for path in own), default="")
    for path in own:
        if path.name[:24] == last:
            content = path.read_bytes()
            start = int(last[8:16], 16) * (1 << 32) + int(last[16:], 16) * len(content)
            end = max(end, Lsn(start + len(content.rstrip(b"\0"))))
    return end


def fetch_script(folders: Iterable[Path]) -> str:
    """Gets one file of the archive: a whole segment from anywhere, else the part with the most WAL.

    What is not received yet is zero: the part with the most other bytes goes furthest.
    What cannot be read must not look like the end of the archive.
    """
    listed = " ".join(shlex.quote(str(each)) for each in folders)
    return f"""# Written by Trellis: restore_command, with the name of a file and where to put it.
furthest= most=-1
for folder in {listed}; do
  if [ -e "$folder/$1" ]; then cp "$folder/$1" "$2" && exit 0; exit {_FATAL}; fi
  part="$folder/$1.partial"
  [ -e "$part" ] || continue
  [ -r "$part" ] || exit {_FATAL}
  bytes=$(LC_ALL=C tr -d '\\000' <"$part" | wc -c) || exit {_FATAL}
  if [ "$bytes" -gt "$most" ]; then furthest="$part" most="$bytes"; fi
done
[ -n "$furthest" ] || exit 1
cp "$furthest" "$2" || exit {_FATAL}
"""


def _settings(layout: Layout, target: Timeline, until: Until) -> str:
    script = shlex.quote(str(layout.conf / "fetch.sh"))
    settings = {
        "hot_standby": "off",
        "lc_messages": "C",
        "log_destination": "stderr",
        "recovery_target_action": "promote",
        "recovery_target_timeline": str(target),
        "restore_command": f'sh {script} "%f" "%p"',
    }
    if until.moment is not None:
        settings["recovery_target_time"] = until.moment.isoformat(sep=" ")
    if until.lsn is not None:
        settings["recovery_target_lsn"] = f"{until.lsn >> 32:X}/{until.lsn & 0xFFFFFFFF:X}"
    return "".join(f"{name} = '{value.replace(chr(39), 2 * chr(39))}'\n" for name, value in settings.items())


async def _replay(tools: Tools, fresh: Path, on_progress: Callable[[BackupProgress], None]) -> str:
    ended_at = ""

    def on_line(line: str) -> None:
        nonlocal ended_at
        if found := re.search(r'restored log file "(\w+)"', line):
            on_progress(BackupProgress(f"replaying {found[1]}"))
        elif found := re.search(r"(recovery stopping .*|last completed transaction .*)", line):
            ended_at = ended_at or found[1]

    arguments = ["--single", "-D", str(fresh), "-c", f"config_file={tools.layout.conf / 'restore.conf'}"]
    try:
        await tools.run("postgres", *arguments, "postgres", deadline_s=REPLAY_S, on_line=on_line)
    except DiskFull as error:
        raise full_disk.full(fresh) from error
    except DatabaseFailed as error:
        words = str(error)
        if "before configured recovery target" in words:
            raise Conflict("The archived WAL ends before the moment that is asked for.") from error
        if "before consistent recovery point" in words:
            raise Conflict("The moment lies before the end of the backup; restore an older one.") from error
        raise
    return ended_at


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _unusable(problem: str) -> InvalidRequest:
    return InvalidRequest("It cannot be restored to there.", [Problem("--until", problem, _EXAMPLE)])
