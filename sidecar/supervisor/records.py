"""What a later sidecar must know of the processes that this one started.

One small file per instance in the run directory. A record names a process by
pid and start time within one boot, so it can never mean another process.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mesh.errors import Corruption
from mesh.ids import InstanceId


@dataclass(frozen=True, slots=True)
class Record:
    """One started instance."""

    instance: InstanceId
    pid: int
    start_ticks: int
    boot: str
    exclusive: bool
    generation: int
    spec_version: int
    restart_nonce: int
    ordinal: int
    grace_ms: int
    port: int
    ingress: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Fails: ValueError, TypeError or KeyError when it is not a record."""
        return cls(**json.loads(text))


def boot_id() -> str:
    """Names this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def file_stem(instance: InstanceId) -> str:
    """The instance's name for files and cgroups on its host: "echo@host2#0" is "echo.0"."""
    service, _, rest = instance.partition("@")
    return f"{service}.{rest.rpartition('#')[2]}"


class Records:
    """The folder of records. Written at each start, so never synced: a reboot voids them."""

    def __init__(self, run_dir: str) -> None:
        self._folder = Path(run_dir) / "instances"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> tuple[Record, ...]:
        """Every record of this boot; others are removed.

        Fails: Corruption, because an unreadable record may hide a running process.
        """
        boot, found = boot_id(), []
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = Record.parse(path.read_text())
            except (ValueError, TypeError) as error:
                raise Corruption(str(path), f"not a record of an instance ({error})") from error
            if record.boot == boot:
                found.append(record)
            else:
                path.unlink()
        return tuple(found)

    def write(self, record: Record) -> None:
        """Replace the instance's record in one step."""
        path = self._path(record.instance)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(record)))
        os.replace(draft, path)

    def remove(self, instance: InstanceId) -> None:
        """Forget the instance: nothing of it runs."""
        self._path(instance).unlink(missing_ok=True)

    def _path(self, instance: InstanceId) -> Path:
        return self._folder / f"{file_stem(instance)}.json"
