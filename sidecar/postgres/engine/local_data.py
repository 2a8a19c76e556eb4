"""The data directory as decisions see it, and the promises that stand beside it.

Read while no server runs there. A promise (`standing.json`) is durable before anything
rests on it, and no number in it ever falls.
"""

import re
from pathlib import Path
from typing import Final

from mesh.errors import DataDamaged
from mesh.ids import FencingTerm
from sidecar.postgres.engine import full_disk, origin
from sidecar.postgres.engine.control_data import (
    ControlData,
    read_control_data,
    read_history,
    read_shutdown_end,
)
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.rewind import why_not
from sidecar.postgres.model import NO_LSN, DataKind, LocalData, Lsn, Timeline

_SEGMENT: Final = re.compile(r"([0-9A-F]{8})[0-9A-F]{16}")
#: All that is in the history of a timeline whose number a promotion is not to take.
LEFT_OUT: Final = b"# left out by Trellis\n"


def take_back_left_out(wal: Path) -> None:
    """Forget numbers of timelines that were left out for a promotion which never came.

    A standby takes the highest for its own and waits for its WAL, for ever (seen with 15.18). Those below a
    timeline that there is stay: it is found by counting up to it. Fails: `DiskFull`, `DatabaseFailed`.
    """
    with full_disk.trouble_told(wal):
        for path in sorted(wal.glob("*.history"), reverse=True):
            if path.read_bytes() != LEFT_OUT:
                break
            path.unlink()


class Standing:
    """What this host has promised and done, by number of primaryship.

    Fails: `DiskFull`, `DatabaseFailed` when the disk does not take or give it.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.root / "standing.json"

    def _read(self, name: str) -> FencingTerm:
        note = self._layout.read_note(self._path)
        if note is None:
            return FencingTerm(0)
        try:
            return FencingTerm(int(str(note[name])))
        except (KeyError, ValueError) as error:
            raise DataDamaged(
                f"{self._path} cannot be read: remove the host and let it join anew."
            ) from error

    @property
    def sealed_under(self) -> FencingTerm:
        """It receives nothing from a primaryship of this number or a lower one. Fails: `DataDamaged`."""
        return self._read("sealed_under")

    @property
    def primary_term(self) -> FencingTerm:
        """The last primaryship under which it was started as primary. Fails: `DataDamaged`."""
        return self._read("primary_term")

    def seal(self, term: FencingTerm) -> None:
        """Promise it, once nothing is received any more, and nothing will be after a start."""
        self._write(max(term, self.sealed_under), self.primary_term)

    def act(self, term: FencingTerm) -> None:
        """Note it, before the server is promoted or started as primary."""
        self._write(self.sealed_under, max(term, self.primary_term))

    def _write(self, sealed_under: int, primary_term: int) -> None:
        self._layout.note(self._path, sealed_under=sealed_under, primary_term=primary_term)


async def read_local_data(layout: Layout, system_identifier: str = "") -> LocalData:
    """What is in the data directory; damage is part of the answer.

    *system_identifier*: the cluster's, for whether a rewind can be tried; empty: not known.
    Fails: `NotInTime` when the disk does not answer, `DatabaseFailed` when it fails.
    """
    with full_disk.trouble_told(layout.root):
        return await _read_local_data(layout, system_identifier)


async def _read_local_data(layout: Layout, system_identifier: str) -> LocalData:
    if layout.is_partial:
        return LocalData(DataKind.PARTIAL)
    if not layout.data.is_dir():
        return LocalData()
    term = Standing(layout).primary_term
    is_leftover = origin.is_leftover(layout)
    was_primary = not (layout.data / "standby.signal").exists()
    try:
        found = await read_control_data(layout.data)
        history = read_history(layout.data, newest_timeline(layout.data, found))
        end = await _end(layout.data, found)
    except DataDamaged as error:
        return LocalData(
            DataKind.PRESENT,
            was_primary=was_primary,
            primary_term=term,
            damaged=str(error),
            is_leftover=is_leftover,
        )
    return LocalData(
        kind=DataKind.PRESENT,
        system_identifier=found.system_identifier,
        history=history,
        was_primary=was_primary,
        primary_term=term,
        is_clean=found.is_clean,
        end=end,
        rewind_refused=why_not(
            found,
            system_identifier or found.system_identifier,
            was_rewound=layout.rewound_note.exists(),
        ),
        is_leftover=is_leftover,
        least=found.least,
    )


def newest_timeline(data: Path, found: ControlData) -> Timeline:
    """The control file learns of a promotion by the next checkpoint only; its first segment is there before.

    A .history file alone proves nothing: a standby fetches it ahead of the records.
    """
    segments = [_SEGMENT.fullmatch(path.name) for path in (data / "pg_wal").iterdir()]
    return max([found.timeline, *(Timeline(int(name[1], 16)) for name in segments if name)])


async def _end(data: Path, found: ControlData) -> Lsn:
    """Where its WAL ends, or up to where a standby must have it; NO_LSN: only a recovery tells."""
    if found.state in ("shut down in recovery", "in archive recovery"):
        return found.min_recovery
    return await read_shutdown_end(data, found) if found.state == "shut down" else NO_LSN
