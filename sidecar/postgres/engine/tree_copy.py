"""A copy of a folder for the database's user, made in a thread, that can be stopped.

Invariant: the copy is this process's alone (0700) until it is whole; then it is given away, its top last.
Nobody can plant a link where root writes, and links in the source are refused: they could name any file.
"""

import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Final

from mesh.adapters.child import owner_of
from mesh.errors import DataDamaged
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.layout import Layout

#: Not to wait for the writer of a FIFO.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeCopy:
    """Copies *source* to *target*, which is made; the copy is the database user's."""

    def __init__(self, source: Path, target: Path, layout: Layout) -> None:
        self._source = source
        self._target = target
        self._layout = layout
        self._is_stopped = threading.Event()
        self.done_bytes = 0

    def stop(self) -> None:
        """End after the present file."""
        self._is_stopped.set()

    def run(self) -> None:
        """Blocks. Fails: `DiskFull`, `DataDamaged` for what cannot be read or is no file and no folder."""
        try:
            with full_disk.told(self._target.parent):
                self._target.mkdir(mode=0o700)
                for where, folders, names, source in os.fwalk(self._source):
                    self._copy_folder(Path(where), folders, names, source)
                    if self._is_stopped.is_set():
                        return
                self._give()
        except OSError as error:
            raise DataDamaged(f"The copy failed: {error}.", where=self._source) from error

    def _copy_folder(self, where: Path, folders: list[str], names: list[str], source: int) -> None:
        target = self._target / where.relative_to(self._source)
        for name in folders:
            if stat.S_ISLNK(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
                raise DataDamaged(f"{where / name} is a tablespace, which is not restored.", where=where)
            (target / name).mkdir(mode=0o700)
        for name in names:
            if self._is_stopped.is_set():
                return
            with os.fdopen(os.open(name, _READ, dir_fd=source), "rb") as read:
                if not stat.S_ISREG(os.fstat(read.fileno()).st_mode):
                    raise DataDamaged(f"{where / name} is no file.", where=where)
                with os.fdopen(os.open(target / name, _CREATE, 0o600), "wb") as written:
                    shutil.copyfileobj(read, written, 1 << 20)
                    self.done_bytes += written.tell()

    def _give(self) -> None:
        if not self._layout.user:
            return
        uid, gid = owner_of(self._layout.user)
        for _, _, names, folder in os.fwalk(self._target, topdown=False):
            for name in names:
                os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
            os.fchown(folder, uid, gid)
