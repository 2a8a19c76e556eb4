"""Turns a full disk, or one that fails, into an error that says where and what to do."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mesh.errors import DatabaseFailed, DiskFull

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded", "Check free disk space")


def is_said(text: str) -> bool:
    """Whether a program of PostgreSQL speaks of a full disk."""
    return any(words in text for words in _WORDS)


@contextlib.contextmanager
def told(where: Path) -> Iterator[None]:
    """Inside it, a full disk raises `DiskFull`; every other OSError passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise full(where) from error


@contextlib.contextmanager
def trouble_told(where: Path) -> Iterator[None]:
    """Inside it, a full disk raises `DiskFull`, and every other OSError `DatabaseFailed`.

    For the database's own folders: a disk that fails ends the database here, never the sidecar.
    """
    try:
        with told(where):
            yield
    except OSError as error:
        raise failed(where, error) from error


def failed(where: Path, error: OSError) -> DatabaseFailed:
    """The error for a disk that did not do what was asked at *where*."""
    return DatabaseFailed(
        f"{error.filename or where} cannot be read or written ({error.strerror or error}): look at the disk,"
        " how it is mounted and whose the folder is (dmesg, findmnt, ls -l).",
        where=where,
    )


def full(where: Path) -> DiskFull:
    """The error for the disk that *where* is on."""
    free = "?"
    with contextlib.suppress(OSError):
        state = os.statvfs(where)
        free = str(state.f_bavail * state.f_frsize // (1 << 20))
    return DiskFull(
        f"The disk of {where} is full ({free} MiB free): delete what is not needed there, or make it larger.",
        where=where,
        free_mib=free,
    )
