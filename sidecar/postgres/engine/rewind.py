"""Winding a former primary back to where the new primary's history began.

pg_rewind leaves a directory that must not be started when it does not come to its end: a note
is written before, and while it is there the data counts as partial and is cloned anew.
What was rewound has pages that are newer than its WAL, until it has received that: another rewind would
not see them, so there is none before it was consistent.
Source: pg_rewind(1).
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum
from typing import Final, LiteralString

import psycopg

from mesh import failpoints
from mesh.errors import CannotRewind, Conflict, DatabaseFailed
from sidecar.postgres.engine.config import REWIND_ROLE, ConfigFiles, ServerConfig, Upstream, connection_text
from sidecar.postgres.engine.control_data import ControlData, read_control_data
from sidecar.postgres.engine.tool import Tools

REWIND_S: Final = 3600.0
IDLE_S: Final = 300.0
#: pg_rewind has not touched anything when it says one of these.
_UNTOUCHED: Final = re.compile(
    r"could not connect|connection to server|source and target clusters? (are|is) "
    r"|must be shut down|could not find common ancestor|permission denied|needs to use either data checksums"
)
#: From this version on pg_rewind looks at more than the source's control file.
_READS_MORE_FROM: Final = 16
_IS_CHECKPOINTED: Final[LiteralString] = """
SELECT timeline_id = ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
  FROM pg_control_checkpoint()
"""
_ASK_S: Final = 5.0


class Rewound(Enum):
    """What a rewind did."""

    DONE = "done"
    #: This copy has nothing that the new primary has not.
    NOT_NEEDED = "not-needed"


def why_not(found: ControlData, system_identifier: str, *, was_rewound: bool = False) -> str:
    """Why a data directory cannot be rewound, before it is tried; empty: it can be tried."""
    if was_rewound:
        return "it was rewound and has not become consistent since"
    if found.system_identifier != system_identifier:
        return f"it is another database (system identifier {found.system_identifier})"
    if not found.can_rewind:
        return "it has neither checksums nor wal_log_hints"
    return ""


async def rewind(
    tools: Tools,
    files: ConfigFiles,
    config: ServerConfig,
    source: Upstream,
    system_identifier: str,
    *,
    deadline_s: float = REWIND_S,
    idle_s: float = IDLE_S,
) -> Rewound:
    """Make `data` a standby of *source*, which is the primary and has written a checkpoint since.

    Only while no server runs here. One that was killed is first recovered, by pg_rewind itself.
    Cancellation: killed; the data is partial from then on.
    Fails: `Conflict` (nothing was touched: the source cannot be reached or is not ready),
    `CannotRewind` (clone instead), `DiskFull`, `NotInTime`; the data may be partial then.
    """
    layout = tools.layout
    if layout.rewind_note.exists():
        raise CannotRewind("An earlier rewind did not come to its end.")
    await tools.clear()
    found = await read_control_data(layout.data)
    refused = why_not(found, system_identifier, was_rewound=layout.rewound_note.exists())
    if refused:
        raise CannotRewind(f"The data cannot be rewound: {refused}.")
    if tools.binaries.major < _READS_MORE_FROM:
        await _check_is_checkpointed(connection_text(layout, config, source, REWIND_ROLE), source)
    files.point(layout.data)
    # The recovery of one that was killed runs in a single process, which knows no standbys.
    was_standby = (layout.data / "standby.signal").exists()
    layout.note(layout.rewind_note, source=source.host)
    files.mark_standby(layout.data, is_standby=False)
    failpoints.hit("database.rewind.begun")

    def leave_as_it_was() -> None:
        files.mark_standby(layout.data, is_standby=was_standby)
        layout.drop_note(layout.rewind_note)

    said = await _run(tools, config, source, deadline_s, idle_s, leave_as_it_was)
    failpoints.hit("database.rewind.ran")
    files.point(layout.data)
    files.mark_standby(layout.data, is_standby=True)
    failpoints.hit("database.rewind.marked")
    is_needed = "no rewind required" not in said
    if is_needed:
        layout.note(layout.rewound_note, source=source.host)
    layout.drop_note(layout.rewind_note)
    return Rewound.DONE if is_needed else Rewound.NOT_NEEDED


async def _check_is_checkpointed(source_text: str, source: Upstream) -> None:
    """An earlier pg_rewind believes the source's control file, which learns of a promotion by a checkpoint.

    Without, it may take the source's end for one of an earlier timeline: the data never become consistent.
    Fails: `Conflict`.
    """
    try:
        async with asyncio.timeout(_ASK_S):
            connection = await psycopg.AsyncConnection.connect(source_text, autocommit=True)
            try:
                cursor = await connection.execute(_IS_CHECKPOINTED)
                rows = await cursor.fetchall()
            finally:
                connection.pgconn.finish()
    except (psycopg.Error, TimeoutError) as error:
        why = str(error).strip() or f"no answer within {_ASK_S:g} s"
        raise Conflict(f"Nothing was rewound: {why}. Try again when {source.host} is ready.") from error
    if rows != [(True,)]:
        raise Conflict(
            f"{source.host} has written no checkpoint since its promotion: write one, then rewind."
        )


async def _run(
    tools: Tools,
    config: ServerConfig,
    source: Upstream,
    deadline_s: float,
    idle_s: float,
    leave_as_it_was: Callable[[], None],
) -> str:
    layout = tools.layout
    arguments = ["--target-pgdata", str(layout.data), "--progress"]
    arguments += ["--source-server", connection_text(layout, config, source, REWIND_ROLE)]
    try:
        return await tools.run("pg_rewind", *arguments, deadline_s=deadline_s, idle_s=idle_s)
    except DatabaseFailed as error:
        said = error.metadata.get("said", "")
        if _UNTOUCHED.search(said):
            leave_as_it_was()
            raise Conflict(f"Nothing was rewound: {error}. Try again when {source.host} is ready.") from error
        raise CannotRewind(f"The rewind did not come to its end ({error}): clone this host.") from error
