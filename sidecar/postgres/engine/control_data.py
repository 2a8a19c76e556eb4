"""What a data directory says of itself while no server runs in it.

Read directly: pg_controldata and pg_waldump would take longer than all else that a hand-over waits for.
Source: pg_control.h (layouts 1300 of PostgreSQL 13 to 16 and 1700 of 17) and xlogrecord.h; history files as
of timeline.c.
"""

import asyncio
import errno
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.errors import DatabaseFailed, DataDamaged, NotInTime
from sidecar.postgres.history import parse_history
from sidecar.postgres.model import Lsn, Timeline, TimelineHistory, format_lsn

_READ_S: Final = 10.0
#: What is read here is at the same place in all of them.
_LAYOUTS: Final = (1300, 1700)
#: DBState, by number.
_STATES: Final = (
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
)
_CLEAN: Final = frozenset({"shut down", "shut down in recovery"})
#: system identifier, layout, state, checkpoint and its timeline, end of minimum recovery and its timeline,
#: wal_log_hints, bytes per WAL segment, checksums, checksum of all before it.
_IDENTIFIER, _VERSION, _STATE, _CHECKPOINT, _CHECKPOINT_TIMELINE = 0, 8, 16, 32, 48
_MIN_RECOVERY, _MIN_RECOVERY_TIMELINE, _HINTS, _SEGMENT_BYTES, _CHECKSUMS, _CRC = 136, 144, 176, 228, 252, 288
#: Of the parameters of which a standby must have as much as its primary.
_LEAST: Final = (
    ("max_connections", 180),
    ("max_locks_per_transaction", 196),
    ("max_prepared_transactions", 192),
    ("max_worker_processes", 184),
)
#: Of the two segment sizes that PostgreSQL could have, at least and at most.
_SEGMENT_MIN, _SEGMENT_MAX = 1 << 20, 1 << 30

_PAGE, _PAGE_HEADER, _SEGMENT_HEADER = 8192, 24, 40
#: Length, transaction, record before, info, resource manager, padding, checksum.
_RECORD: Final = struct.Struct("=IIQBBxxI")
_CRC_AT: Final = 20
_RECORD_MAX: Final = 1024


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
    #: What its last primary had of the parameters of which a standby must have as much, by name.
    least: tuple[tuple[str, int], ...] = ()

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


async def read_control_data(data: Path) -> ControlData:
    """The control file of *data*.

    Fails: `DataDamaged` when it is missing or does not verify; `NotInTime` when the disk does not answer;
    `DatabaseFailed` for whatever passes.
    """
    try:
        async with asyncio.timeout(_READ_S):
            return await asyncio.to_thread(_read_control_data, data)
    except TimeoutError:
        raise NotInTime(f"The disk of {data} does not answer.") from None


def _read_control_data(data: Path) -> ControlData:
    path = data / "global" / "pg_control"
    try:
        content = path.read_bytes()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):
            raise DatabaseFailed(f"{path} cannot be read: {error}") from error
        raise DataDamaged(f"{path} cannot be read ({error}): clone this host anew.", where=path) from error
    try:
        return parse_control_data(content, read_major(data))
    except ValueError as error:
        raise DataDamaged(f"{path} does not verify ({error}): clone this host anew.", where=path) from error


def read_major(data: Path) -> int:
    """The version that made it. Fails: `DataDamaged`."""
    try:
        return int((data / "PG_VERSION").read_text().split(".")[0])
    except (OSError, ValueError) as error:
        raise DataDamaged(
            f"{data}/PG_VERSION cannot be read ({error}): clone it anew.", where=data
        ) from error


def parse_control_data(content: bytes, major: int) -> ControlData:
    """The fields of a control file. Fails: `ValueError` for one that PostgreSQL would refuse."""

    def field(layout: str, at: int) -> int:
        value: int = struct.unpack_from(layout, content, at)[0]
        return value

    if len(content) < _CRC + 4:
        raise ValueError(f"{len(content)} bytes are too few")
    if field("=I", _VERSION) not in _LAYOUTS:
        raise ValueError(f"its layout {field('=I', _VERSION)} is not known")
    if field("=I", _CRC) != crc32c(content[:_CRC]):
        raise ValueError("its checksum is wrong")
    state, segment_bytes = field("=I", _STATE), field("=I", _SEGMENT_BYTES)
    if state >= len(_STATES) or not _SEGMENT_MIN <= segment_bytes <= _SEGMENT_MAX:
        raise ValueError(f"state {state}, segments of {segment_bytes} bytes")
    return ControlData(
        system_identifier=str(field("=Q", _IDENTIFIER)),
        state=_STATES[state],
        checkpoint_timeline=Timeline(field("=I", _CHECKPOINT_TIMELINE)),
        checkpoint=Lsn(field("=Q", _CHECKPOINT)),
        min_recovery=Lsn(field("=Q", _MIN_RECOVERY)),
        min_recovery_timeline=Timeline(field("=I", _MIN_RECOVERY_TIMELINE)),
        has_checksums=field("=I", _CHECKSUMS) != 0,
        has_hint_log=field("=B", _HINTS) != 0,
        segment_bytes=segment_bytes,
        major=major,
        least=tuple((name, field("=i", at)) for name, at in _LEAST),
    )


# ---- the last record ----------------------------------------------------------------


async def read_shutdown_end(data: Path, found: ControlData) -> Lsn:
    """Where WAL goes on after the shutdown checkpoint of *found*.

    Fails: `DataDamaged` when there is no whole record of that kind; `NotInTime`.
    """
    try:
        async with asyncio.timeout(_READ_S):
            return await asyncio.to_thread(_read_shutdown_end, data, found)
    except TimeoutError:
        raise NotInTime(f"The disk of {data} does not answer.") from None


def _read_shutdown_end(data: Path, found: ControlData) -> Lsn:
    try:
        record = _read_record(data / "pg_wal", found)
    except (OSError, ValueError) as error:
        raise DataDamaged(
            f"The shutdown checkpoint at {format_lsn(found.checkpoint)} cannot be read ({error}):"
            " clone this host anew."
        ) from error
    return end_of_record(found.checkpoint, len(record), found.segment_bytes)


def _read_record(wal: Path, found: ControlData) -> bytes:
    """The record at the checkpoint, verified. Fails: `ValueError`, `OSError`."""
    start, size = int(found.checkpoint), found.segment_bytes
    content = _read_wal(wal, found, start, _RECORD.size)
    length, _, _, info, manager, crc = _RECORD.unpack(content)
    if not _RECORD.size < length <= _RECORD_MAX:
        raise ValueError(f"a record of {length} bytes")
    content = _read_wal(wal, found, start, length)
    if crc != crc32c(content[_RECORD.size :] + content[:_CRC_AT]):
        raise ValueError(f"its checksum is wrong, in segments of {size} bytes")
    if (manager, info & 0xF0) != (0, 0):
        raise ValueError(f"it is another record ({manager}, {info})")
    return content


def _read_wal(wal: Path, found: ControlData, start: int, count: int) -> bytes:
    """*count* bytes of records from *start* on, without the page headers between them."""
    content, position, size = b"", start, found.segment_bytes
    while len(content) < count:
        if position % _PAGE == 0:
            position += _SEGMENT_HEADER if position % size == 0 else _PAGE_HEADER
        room = _PAGE - position % _PAGE
        number, per_log = position // size, (1 << 32) // size
        name = f"{found.checkpoint_timeline:08X}{number // per_log:08X}{number % per_log:08X}"
        with (wal / name).open("rb") as segment:
            segment.seek(position % size)
            piece = segment.read(min(room, count - len(content)))
        if not piece:
            raise ValueError(f"{name} is too short")
        content += piece
        position += len(piece)
    return content


def end_of_record(start: Lsn, length: int, segment_bytes: int) -> Lsn:
    """Where the record after one of *length* bytes at *start* begins, past the page headers it crosses."""
    position, left = int(start), length
    while (room := _PAGE - position % _PAGE) < left:
        left -= room
        position += room
        position += _SEGMENT_HEADER if position % segment_bytes == 0 else _PAGE_HEADER
    return Lsn((position + left + 7) & ~7)


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(content: bytes) -> int:
    """The Castagnoli checksum; for some hundred bytes."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# ---- history ------------------------------------------------------------------------


def read_history(data: Path, timeline: Timeline) -> TimelineHistory:
    """Where *timeline* came from. Fails: `DataDamaged` when that was lost."""
    if timeline <= 1:
        return TimelineHistory(timeline)
    path = data / "pg_wal" / f"{timeline:08X}.history"
    try:
        return parse_history(timeline, path.read_text())
    except (OSError, ValueError) as error:
        raise DataDamaged(f"{path} cannot be read ({error}): clone this host anew.", where=path) from error
