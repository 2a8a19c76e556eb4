"""What the instances print, in bounded files that rotate.

An instance writes straight into its file, opened for appending: no pipe, no
copying, no memory, nothing that blocks it, and it can go on printing while the
sidecar restarts. The supervisor looks at the sizes once a second and cuts a
file that is full: its newest part is copied to `.1` and the file emptied; an
appending writer goes on at the start.

Bound: LOG_FILES_MAX files of LOG_BYTES_MAX each, plus what is printed between
two looks; a flooding instance is looked at every 25 ms. What is printed during
the last microseconds of a cut may be lost. Where the disk takes no copy (it is
full, say), a full file is emptied without one: the bound holds, the lines go.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import structlog

from mesh import limits
from mesh.ids import InstanceId
from sidecar.supervisor.records import file_stem

LOG = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
BUSY_LOOK_S: Final = 0.025
_FLOOD_BYTES: Final = limits.LOG_BYTES_MAX // 8
_FOLLOW_S: Final = 0.1


class Logs:
    """The log files of this host's instances, newest first: NAME.log, NAME.log.1 …"""

    def __init__(self, log_dir: str, bytes_max: int = limits.LOG_BYTES_MAX) -> None:
        self._folder = Path(log_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._bytes_max = bytes_max
        self._sizes: dict[Path, int] = {}
        #: Files that could not be cut as they should, and have been told of.
        self._told: set[Path] = set()

    def path(self, instance: InstanceId) -> Path:
        """The file that the instance prints into now."""
        return self._folder / f"{file_stem(instance)}.log"

    def open(self, instance: InstanceId) -> int:
        """A descriptor for the instance's output; the caller closes it after the start."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        path = self.path(instance)
        descriptor = os.open(path, flags, 0o640)
        self._sizes.setdefault(path, os.fstat(descriptor).st_size)
        return descriptor

    def forget(self, instance: InstanceId) -> None:
        """Look at it no more; the files stay for the operator."""
        self._sizes.pop(self.path(instance), None)
        self._told.discard(self.path(instance))

    async def cut_full(self) -> bool:
        """Cut every file that is full; return whether something floods.

        A disk that does not do as it should is told in the log, once for each file, and fails nobody.
        """
        flood, full = self._look()
        for path in full:
            # Some megabytes are copied: not on the loop.
            try:
                await asyncio.to_thread(self._cut, path)
            except OSError as error:
                if path not in self._told:
                    self._told.add(path)
                    LOG.warning("output-not-kept", file=str(path), error=str(error))
            else:
                self._told.discard(path)
            if path in self._sizes:
                self._sizes[path] = 0
        return flood

    def _look(self) -> tuple[bool, list[Path]]:
        flood, full = False, []
        for path, before in self._sizes.items():
            try:
                size = os.stat(path).st_size
            except OSError:  # deleted by hand, or a disk that cannot be read
                size = 0
            flood = flood or size - before > _FLOOD_BYTES
            self._sizes[path] = size
            if size > self._bytes_max:
                full.append(path)
        return flood, full

    def _cut(self, path: Path) -> None:
        """Fails: OSError when no copy could be made; the file is empty all the same, if it can be."""
        try:
            self._copy(path)
        except OSError:
            with contextlib.suppress(OSError):
                path.with_name(path.name + ".1").unlink()  # half a copy fills the disk, too
            raise
        finally:
            os.truncate(path, 0)

    def _copy(self, path: Path) -> None:
        newest = path.with_name(path.name + ".1")
        for age in range(limits.LOG_FILES_MAX - 2, 0, -1):
            older = path.with_name(f"{path.name}.{age}")
            if older.exists():
                os.replace(older, path.with_name(f"{path.name}.{age + 1}"))
        with open(path, "rb", buffering=0) as source, open(newest, "wb", buffering=0) as target:
            position = max(0, os.fstat(source.fileno()).st_size - self._bytes_max)
            end = position + 2 * self._bytes_max
            while position < end:
                sent = os.sendfile(
                    target.fileno(), source.fileno(), position, min(limits.MIB, end - position)
                )
                if not sent:
                    break
                position += sent

    def tail(self, instance: InstanceId, lines: int) -> tuple[str, ...]:
        """The last lines, oldest first. Bound: one file's worth, long lines split."""
        path = self.path(instance)
        found: list[str] = []
        for file in (path, path.with_name(path.name + ".1")):
            found = [*_last_lines(file, lines - len(found)), *found]
            if len(found) >= lines:
                break
        return tuple(found)

    async def follow(self, instance: InstanceId) -> AsyncIterator[str]:
        """Every line printed from now on, until the caller stops asking.

        A line longer than LOG_LINE_BYTES_MAX comes in pieces. A reader that is
        slower than a whole rotation misses lines; nobody waits for it.
        """
        path = self.path(instance)
        position = _size(path)
        rest = b""
        while True:
            size = _size(path)
            if size < position:
                position = 0
            if size == position:
                await asyncio.sleep(_FOLLOW_S)
                continue
            chunk = _read(path, position, limits.LOG_LINE_BYTES_MAX)
            position += len(chunk)
            lines, rest = _split(rest + chunk)
            for line in lines:
                yield line


def _last_lines(path: Path, count: int) -> list[str]:
    if count <= 0:
        return []
    size = _size(path)
    data, start = b"", size
    while start > 0 and data.count(b"\n") <= count and len(data) < limits.LOG_BYTES_MAX:
        step = min(limits.MIB, start)
        start -= step
        data = _read(path, start, step) + data
    lines, rest = _split(data)
    if rest:
        lines.append(_text(rest))
    return lines[-count:]


def _split(data: bytes) -> tuple[list[str], bytes]:
    """Complete lines, bounded in length, and the incomplete rest, bounded too."""
    whole, _, rest = data.rpartition(b"\n")
    pieces = whole.split(b"\n") if whole or len(rest) < len(data) else []
    most = limits.LOG_LINE_BYTES_MAX
    lines = [_text(piece[at : at + most]) for piece in pieces for at in range(0, max(len(piece), 1), most)]
    while len(rest) > most:
        lines.append(_text(rest[:most]))
        rest = rest[most:]
    return lines, rest


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, position: int, count: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), count, position)
    except FileNotFoundError:
        return b""
