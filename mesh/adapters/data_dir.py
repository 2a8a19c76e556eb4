"""The directory that holds a member's log: who may use it, and how far it certainly got.

* `lock`: held by flock while a sidecar uses the directory.
* `watermark`: the number of the newest durable transaction. SQLite alone
  would take a damaged or missing write-ahead log for an older state and go on
  from there; the watermark tells. It is written without fsync: it follows
  the log, never leads it, and it survives the death of the process.
* `snapshot-TERM-INDEX`: the newest snapshot's bytes.
"""

import fcntl
import os
import struct
from pathlib import Path

from mesh import failpoints
from mesh.adapters.sqlite_records import CHECKSUM_BYTES, Seal
from mesh.errors import Conflict, Corruption, StorageFailed
from mesh.raft.model import EntryId

_WATERMARK = struct.Struct(f">8sQ{CHECKSUM_BYTES}s")
_MAGIC = b"TRELLIS1"
#: Ends the name of a snapshot file that is being written.
DRAFT = ".draft"


class DirectoryLock:
    """Keeps a second sidecar off the same directory.

    Fails: `Conflict` when another process holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise Conflict(
                f"the data directory {directory} is in use by another process;"
                " stop that one, or give this host a directory of its own",
                directory=directory,
            ) from None

    def release(self) -> None:
        os.close(self._fd)


class Watermark:
    """The newest transaction known to be durable, in a file beside the database."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self._seal = seal
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, sequence: int) -> None:
        """Record *sequence*; it reaches the page cache in one write."""
        os.pwrite(self._fd, _WATERMARK.pack(_MAGIC, sequence, self._seal.of_watermark(sequence)), 0)

    def read(self) -> int | None:
        """The recorded number; None when nothing was ever recorded. Fails: `Corruption`."""
        data = os.pread(self._fd, _WATERMARK.size + 1, 0)
        if not data:
            return None
        if len(data) != _WATERMARK.size:
            raise Corruption("watermark", f"it has {len(data)} bytes instead of {_WATERMARK.size}")
        magic, sequence, checksum = _WATERMARK.unpack(data)
        if magic != _MAGIC or checksum != self._seal.of_watermark(sequence):
            raise Corruption("watermark", "its checksum does not match")
        return int(sequence)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class SnapshotFiles:
    """Snapshot bytes as files of their own, so that a big one never passes through the log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, last: EntryId) -> Path:
        return self._directory / f"snapshot-{last.term}-{last.index}"

    def write(self, last: EntryId, data: bytes) -> None:
        """Make *data* durable under its final name; may run in any thread.

        Fails: `StorageFailed`.
        """
        path = self.path(last)
        draft = path.with_suffix(DRAFT)
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                failpoints.hit("log.snapshot.before-sync")
                os.fsync(file.fileno())
            failpoints.hit("log.snapshot.before-rename")
            draft.replace(path)
            failpoints.hit("log.snapshot.renamed")
            sync_directory(self._directory)
        except OSError as error:
            raise StorageFailed(f"snapshot file {path}: {error}") from error

    def read(self, last: EntryId) -> bytes:
        """The bytes. Fails: `Corruption` when the file is gone."""
        path = self.path(last)
        try:
            return path.read_bytes()
        except OSError as error:
            raise Corruption(path.name, str(error)) from error

    def keep_only(self, last: EntryId | None) -> None:
        """Remove every snapshot but that of *last*. Drafts stay: another thread may be writing one."""
        kept = self.path(last).name if last else None
        for path in sorted(self._directory.glob("snapshot-*")):
            if path.name != kept and path.suffix != DRAFT:
                path.unlink(missing_ok=True)

    def remove_drafts(self) -> None:
        """Remove what an earlier process did not finish. Order: before anything is written."""
        for path in sorted(self._directory.glob(f"snapshot-*{DRAFT}")):
            path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make creations and renames in *directory* durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
