"""A copy of a folder for the database's user, made in a thread, that can be stopped."""

import os
import shutil
import threading
from pathlib import Path

from mesh.adapters.child import owner_of
from mesh.errors import DataDamaged
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.layout import Layout


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
        self._layout.make_empty(self._target)
        try:
            with full_disk.told(self._target):
                for where, folders, names in os.walk(self._source):
                    self._copy_folder(Path(where), folders, names)
        except OSError as error:
            raise DataDamaged(f"The copy failed: {error}.", where=self._source) from error

    def _copy_folder(self, where: Path, folders: list[str], names: list[str]) -> None:
        target = self._target / where.relative_to(self._source)
        for name in folders:
            if (where / name).is_symlink():
                raise DataDamaged(f"{where / name} is a tablespace, which is not restored.", where=where)
            (target / name).mkdir(mode=0o700)
            self._give(target / name)
        for name in names:
            if self._is_stopped.is_set():
                return
            shutil.copy2(where / name, target / name)
            (target / name).chmod(0o600)
            self._give(target / name)
            self.done_bytes += (target / name).stat().st_size

    def _give(self, path: Path) -> None:
        if self._layout.user:
            uid, gid = owner_of(self._layout.user)
            os.chown(path, uid, gid, follow_symlinks=False)
