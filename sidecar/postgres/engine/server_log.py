"""What the server prints: kept in a bounded file, and read when it did not start.

The server appends to the file itself; a file that is full is copied to `.1` and emptied,
and the server goes on at its start.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Final

from mesh import limits
from mesh.errors import Conflict, DatabaseFailed, DataDamaged, TrellisError
from sidecar.postgres.engine import full_disk

_TAIL_BYTES: Final = 65_536
_DAMAGED: Final = re.compile(
    r"could not locate a valid checkpoint|invalid checkpoint record|could not locate required checkpoint"
    r"|incorrect checksum|page verification failed|invalid page in block|is not a valid data directory"
    r"|invalid magic number|database files are incompatible|requested recovery stop point"
    r"|requested timeline \d+ (does not contain minimum recovery point|is not a child of this server)"
    r"|could not open file \"(base|global|pg_xact|pg_wal|pg_multixact)/"
)
_BAD_PAGE: Final = re.compile(r"\] (FATAL|PANIC): .*(page verification failed|invalid page in block)")
_TAKEN: Final = re.compile(r"could not bind|could not create any TCP/IP sockets|lock file .* already exists")


def open_log(path: Path) -> int:
    """A descriptor for the server's output, cut first if the file is full."""
    cut_if_full(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with full_disk.trouble_told(path.parent):
        return os.open(path, flags, 0o640)


def cut_if_full(path: Path, bytes_max: int = limits.LOG_BYTES_MAX) -> bool:
    """Keep the newest part as `.1`. Some megabytes are copied: call it in a thread."""
    with full_disk.trouble_told(path.parent):
        if size_of(path) <= bytes_max:
            return False
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
        return True


def size_of(path: Path) -> int:
    """0 where there is none, or the disk does not tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def said_since(path: Path, position: int) -> list[str]:
    """The lines printed after *position*; none from a disk that fails. Bound: the last 64 KiB."""
    size = size_of(path)
    start = max(position if position <= size else 0, size - _TAIL_BYTES)
    if size == 0:
        return []
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:  # asked when a server has ended: why is then not known, that it did is
        return []


def is_ended_by_a_page(lines: list[str]) -> bool:
    """A process of the server itself met a damaged page (a session's line bears its user)."""
    return any(_BAD_PAGE.search(line) for line in lines)


def explain(lines: list[str], where: Path) -> TrellisError:
    """Why the server ended, from its own words."""
    bad = [line for line in lines if "PANIC" in line or "FATAL" in line]
    damaged = [line for line in bad if _DAMAGED.search(line)]
    last = f"it did not say why; its last words are {lines[-1].strip()!r}" if lines else "it printed nothing"
    panics = [line for line in bad if "PANIC" in line]
    why = (damaged or panics or bad or [last])[0].strip()
    text = "\n".join(lines)
    if full_disk.is_said(text):
        return full_disk.full(where)
    if _DAMAGED.search(text):
        return DataDamaged(f"PostgreSQL cannot use {where}: {why}. Clone this host anew.", where=where)
    if _TAKEN.search(text):
        return Conflict(f"PostgreSQL did not start: {why}. End the other server, or choose another port.")
    return DatabaseFailed(f"PostgreSQL ended: {why}", said="\n".join(lines[-20:]))
