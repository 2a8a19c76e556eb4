"""What a data directory says of itself while no server runs in it.

Source: pg_controldata(1); timeline history files as of PostgreSQL's timeline.c.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.errors import DatabaseFailed, DataDamaged
from sidecar.postgres.engine.tool import Tools
from sidecar.postgres.history import parse_history
from sidecar.postgres.model import Lsn, Timeline, TimelineHistory, parse_lsn

_READ_S: Final = 10.0
_CLEAN: Final = frozenset({"shut down", "shut down in recovery"})


@dataclass(frozen=True, slots=True)
class ControlData:
    """The control file's fields that decisions rest on."""

    system_identifier: str
    #: "shut down", "in production", "in archive recovery" …
    state: str
    checkpoint_timeline: Timeline
    checkpoint: Lsn
    #: A standby is consistent only from here on.
    min_recovery: Lsn
    min_recovery_timeline: Timeline
    has_checksums: bool
    has_hint_log: bool
    segment_bytes: int
    major: int

    @property
    def is_clean(self) -> bool:
        """Its last server was shut down, not killed."""
        return self.state in _CLEAN

    @property
    def timeline(self) -> Timeline:
        """The newest timeline that it certainly has records of."""
        return max(self.checkpoint_timeline, self.min_recovery_timeline)

    @property
    def can_rewind(self) -> bool:
        """Changed pages can be told: checksums or hint bits in the WAL."""
        return self.has_checksums or self.has_hint_log


async def read_control_data(tools: Tools, data: Path) -> ControlData:
    """The control file of *data*. Fails: `DataDamaged` when it is missing or does not verify."""
    try:
        text = await tools.run("pg_controldata", "-D", str(data), deadline_s=_READ_S)
    except DatabaseFailed as error:
        raise DataDamaged(
            f"{data} has no readable control file ({error}): clone it anew.", where=data
        ) from error
    if "warning" in text.lower():
        raise DataDamaged(
            f"The control file of {data} does not verify: clone it anew.", where=data, said=text
        )
    try:
        return parse_control_data(text, read_major(data))
    except (KeyError, ValueError) as error:
        raise DataDamaged(
            f"The control file of {data} is not understood ({error}): clone it anew."
        ) from error


def read_major(data: Path) -> int:
    """The version that made it. Fails: `DataDamaged`."""
    try:
        return int((data / "PG_VERSION").read_text().split(".")[0])
    except (OSError, ValueError) as error:
        raise DataDamaged(
            f"{data}/PG_VERSION cannot be read ({error}): clone it anew.", where=data
        ) from error


def parse_control_data(text: str, major: int) -> ControlData:
    """Fails: `KeyError`, `ValueError` for what pg_controldata would not print."""
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {name.strip(): value.strip() for name, value in rows.items()}
    return ControlData(
        system_identifier=found["Database system identifier"],
        state=found["Database cluster state"],
        checkpoint_timeline=Timeline(int(found["Latest checkpoint's TimeLineID"])),
        checkpoint=parse_lsn(found["Latest checkpoint location"]),
        min_recovery=parse_lsn(found["Minimum recovery ending location"]),
        min_recovery_timeline=Timeline(int(found["Min recovery ending loc's timeline"])),
        has_checksums=found["Data page checksum version"] != "0",
        has_hint_log=found["wal_log_hints setting"] == "on",
        segment_bytes=int(found["Bytes per WAL segment"]),
        major=major,
    )


def read_history(data: Path, timeline: Timeline) -> TimelineHistory:
    """Where *timeline* came from. Fails: `DataDamaged` when that was lost."""
    if timeline <= 1:
        return TimelineHistory(timeline)
    path = data / "pg_wal" / f"{timeline:08X}.history"
    try:
        return parse_history(timeline, path.read_text())
    except (OSError, ValueError) as error:
        raise DataDamaged(f"{path} cannot be read ({error}): clone this host anew.", where=path) from error
