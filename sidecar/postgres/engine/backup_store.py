"""The folder that backups are kept in, wherever the operator says.

    DIR/20261122T072000Z/           one backup: complete and verified, or it would not bear this name
      data/                         a data directory with the WAL that makes it consistent
      backup.json                   what it is (`Backup`)
    DIR/.20261122T072000Z.host1.new/    one under way on host1, or one that a crash has left
    DIR/.20261122T072000Z.host1.old/    one that is being deleted

Invariant: what bears a backup's name was verified, and is durable; nothing is deleted under that name.
Blocks as long as the disk does: call it in a thread.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from mesh.errors import Conflict, DataDamaged, InvalidRequest, NotFound, Problem, SettingsError
from mesh.ids import ClusterId, HostId
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.layout import Layout, sync_folder
from sidecar.postgres.model import Lsn, Timeline

FORMAT: Final = 1
_NAME: Final = re.compile(r"\d{8}T\d{6}Z")
_DESCRIPTION: Final = "backup.json"
_EXAMPLE: Final = "/backups/trellis"


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup is. It is consistent from `end` on, on `timeline`."""

    name: str
    cluster_id: ClusterId
    #: Whose server it was copied from.
    host: HostId
    system_identifier: str
    timeline: Timeline
    start: Lsn
    end: Lsn
    #: Of PostgreSQL: "15.18"; only the same major version can read it.
    version: str
    #: Wall clock, RFC 3339.
    began: str
    ended: str
    size_bytes: int

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Fails: `ValueError` for what this version does not understand."""
        found: Any = json.loads(text)
        if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
            raise ValueError(f"is not of format {FORMAT}")
        try:
            return cls(**found)
        except TypeError as error:
            raise ValueError(str(error)) from error


def name_at(moment: datetime) -> str:
    """The name of a backup begun then (UTC)."""
    return moment.strftime("%Y%m%dT%H%M%SZ")


class BackupStore:
    """One such folder, as one host uses it."""

    def __init__(self, layout: Layout, folder: Path, host: HostId) -> None:
        self._layout = layout
        self.folder = folder
        self._host = host

    def prepare(self, name: str) -> Path:
        """An empty data directory of the database's user, for the backup *name* to be written into.

        What crashes of this host have left here is deleted first.
        Fails: `InvalidRequest` when it cannot be used, `Conflict`, `DiskFull`.
        """
        self._check_folder()
        try:
            with full_disk.told(self.folder):
                self.folder.mkdir(mode=0o755, exist_ok=True)
                for left in sorted(self.folder.glob(f".*.{self._host}.*")):
                    if left.suffix in (".new", ".old") and left.is_dir():
                        shutil.rmtree(left)
                if (self.folder / name).exists():
                    raise Conflict(f"{self.folder / name} exists: another host makes a backup; try again.")
                partial = self._partial(name)
                partial.mkdir(mode=0o711)
                self._layout.make_empty(partial / "data")
        except OSError as error:
            raise _unusable(f"{self.folder} cannot be written ({error.strerror})") from error
        try:
            self._layout.check_way(partial / "data", "--to")
        except SettingsError as error:
            raise InvalidRequest("The backups cannot be kept there.", error.problems) from error
        return partial / "data"

    def _check_folder(self) -> None:
        if not self.folder.is_absolute():
            raise _unusable(f"{self.folder} is not an absolute path")
        real, own = self.folder.resolve(), self._layout.root.resolve()
        if own == real or own in real.parents:
            raise _unusable(f"{self.folder} lies in the database's own folder {own}")
        if not real.parent.is_dir():
            raise _unusable(f"{real.parent} is not a folder on this host")

    def finish(self, backup: Backup) -> Path:
        """The verified one gets its name. Order: all of it durable before."""
        partial, final = self._partial(backup.name), self.folder / backup.name
        self._layout.write(partial / _DESCRIPTION, backup.to_json(), mode=0o644)
        sync_folder(partial)
        try:
            partial.rename(final)
        except OSError as error:
            raise Conflict(f"{final} cannot be made ({error.strerror}): another host did; again.") from error
        sync_folder(self.folder)
        return final

    def drop_partial(self, name: str) -> None:
        """It is not to be: nothing of it is left."""
        shutil.rmtree(self._partial(name), ignore_errors=True)

    def keep(self, count: int, cluster: ClusterId) -> list[str]:
        """Delete the cluster's oldest ones until *count* are left; their names. One under way counts not."""
        own = [each for each in self.list_all() if each.cluster_id == cluster]
        excess = own[: max(0, len(own) - count)]
        for each in excess:
            doomed = self.folder / f".{each.name}.{self._host}.old"
            (self.folder / each.name).rename(doomed)
            sync_folder(self.folder)
            shutil.rmtree(doomed)
        return [each.name for each in excess]

    def list_all(self) -> list[Backup]:
        """Oldest first. What cannot be read is nobody's to count or delete."""
        found = []
        for path in sorted(self.folder.iterdir()):
            if _NAME.fullmatch(path.name) and (path / _DESCRIPTION).is_file():
                try:
                    found.append(Backup.from_json((path / _DESCRIPTION).read_bytes()))
                except (OSError, ValueError):
                    continue
        return found

    def _partial(self, name: str) -> Path:
        return self.folder / f".{name}.{self._host}.new"


def read_backup(folder: Path, fits: Callable[[Backup], bool] = lambda _: True) -> tuple[Path, Backup]:
    """The backup at *folder*, or the newest one in it that *fits*. Fails: `NotFound`, `DataDamaged`."""
    if (folder / _DESCRIPTION).is_file():
        return folder, _read(folder)
    paths = [each for each in sorted(folder.glob("*")) if _NAME.fullmatch(each.name)]
    found = [(each, _read(each)) for each in paths if (each / _DESCRIPTION).is_file()]
    if not found:
        raise NotFound(f"There is no backup at {folder} on this host.", folder=folder)
    fitting = [(path, backup) for path, backup in found if fits(backup)]
    if not fitting:
        raise NotFound(f"Every backup in {folder} is later than the moment that is asked for.", folder=folder)
    return fitting[-1]


def _read(path: Path) -> Backup:
    try:
        return Backup.from_json((path / _DESCRIPTION).read_bytes())
    except (OSError, ValueError) as error:
        raise DataDamaged(f"{path / _DESCRIPTION} cannot be read ({error}).", where=path) from error


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(
        os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names
    )


def _unusable(problem: str) -> InvalidRequest:
    return InvalidRequest("The backups cannot be kept there.", [Problem("--to", problem, _EXAMPLE)])
