"""Revisions: given in their order, seen in their order, and never given twice, not even to what came after
a loss.

A database that is restored, or whose primary is succeeded with a loss, has forgotten the newest revisions;
their numbers must not be given to other changes, or a watch that has seen the lost ones would leave out
the new. Each promotion and each restore begins a timeline. The first change on a timeline takes a number
far above all that can have been given before, on whatever timeline, and notes the gap: who resumes from
within it is refused.

Invariant: a number is never below the clock's second at which its timeline began, times `PER_S`; no
database gives that many a second. So numbers rise from history to history, as far as the hosts' clocks do.

Absent here: a loss without a promotion. There is none that the manager makes."""

import uuid
from typing import Final

from mesh.client.database import Connection
from mesh.errors import OutOfRange
from services.lcm.model import Now

#: Notified with each new revision.
CHANNEL: Final = "lcm_revisions"
#: Of JSON's 2^53 this leaves room for two centuries.
PER_S: Final = 1 << 20


async def take_now(connection: Connection) -> Now:
    """The next revision, and the moment; others that change something wait from here on."""
    cursor = await connection.execute(_NEXT, (CHANNEL,))
    row = await cursor.fetchone()
    assert row is not None, "revisions has its one row from the first migration on"
    if row["is_former"]:
        last = row["newest"] - 1
        cursor = await connection.execute(_JUMP, (last, PER_S, PER_S, last))
        row = await cursor.fetchone()
        assert row is not None, "the row is locked"
    return Now(row["at"], row["newest"], str(uuid.uuid4()), str(uuid.uuid4()))


async def newest(connection: Connection) -> int:
    cursor = await connection.execute("SELECT newest FROM revisions")
    row = await cursor.fetchone()
    return int(row["newest"]) if row else 0


async def check_kept(connection: Connection, after: int) -> int:
    """Every change after a revision is kept, and it was one; the newest there is. Fails: `OutOfRange`."""
    cursor = await connection.execute(_KEPT, (min(after, (1 << 63) - 1),))
    row = await cursor.fetchone() or {"newest": 0, "forgotten": 0, "is_lost": False}
    if row["is_lost"] or not row["forgotten"] <= after <= row["newest"]:
        why = "was lost with what came before it" if row["is_lost"] else "is not one whose changes are kept"
        raise OutOfRange(
            f"Revision {after} {why} (after {row['forgotten']}, up to {row['newest']}): watch from 0.",
            forgotten=row["forgotten"],
            newest=row["newest"],
        )
    return int(row["newest"])


_NEXT: Final = """
UPDATE revisions SET newest = newest + 1
RETURNING newest, clock_timestamp() AS at, pg_notify(%s, newest::text),
    timeline <> substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS is_former
"""
_JUMP: Final = """
WITH jumped AS (
    UPDATE revisions SET timeline = substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
        newest = greatest(%s + %s, extract(epoch FROM clock_timestamp())::bigint * %s) + 1
    RETURNING newest, clock_timestamp() AS at
), noted AS (INSERT INTO gaps (after, until) SELECT %s, newest - 1 FROM jumped)
SELECT newest, at FROM jumped
"""
_KEPT: Final = """
SELECT newest, forgotten,
    EXISTS (SELECT FROM gaps WHERE %s BETWEEN after + 1 AND until) AS is_lost
FROM revisions
"""
