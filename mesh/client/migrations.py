"""Schema migrations: SQL files in the order of their names, each applied once, in a transaction of its own.

Several instances may do this at once: an advisory lock lets one at a time look
and apply. A file that was applied may not change any more (its checksum is kept).
Migrations of a later version of the program are left alone, so that an older
instance goes on beside a newer one; a migration therefore only adds.

Bound: `STATEMENT_S_MAX` for each file; who waits longer for another instance than a statement may take
fails, and tries again. The advisory lock belongs to the transaction, so a process that dies leaves nothing
locked.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.client.database import Connection, Database
from mesh.errors import Conflict, Corruption

#: "TRELLIS" and a number, so that nobody else's advisory lock is meant.
LOCK: Final = 0x5452454C_0001
#: Of one file. A server that stands still meanwhile holds its instance up for as long.
STATEMENT_S_MAX: Final = 3600.0
_FILE: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(folder: Path) -> tuple[Migration, ...]:
    """The files of a folder, in order. Fails: `Corruption` when a number is missing or there twice."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise Corruption(str(path), "is not named like 0001_what_it_adds.sql")
        found.append(Migration(int(match[1]), path.name, path.read_text()))
    numbers = [each.number for each in found]
    if numbers != list(range(1, len(found) + 1)):
        raise Corruption(str(folder), f"has migrations {numbers}, not 1 to {len(found)} once each")
    return tuple(found)


async def migrate(database: Database, migrations: Sequence[Migration]) -> list[str]:
    """Apply what is missing; the names of what was applied by this call.

    Fails: `Conflict` when an applied file has changed; as `Database.transaction`.
    After any failure the same call goes on where this one ended.
    """
    applied: list[str] = []
    while True:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            missing = await _missing(connection, migrations)
            if missing is None:
                return applied
            await database.allow(connection, STATEMENT_S_MAX)
            await connection.execute(missing.sql.encode())
            await connection.execute(
                "INSERT INTO migrations (number, name, checksum) VALUES (%s, %s, %s)",
                (missing.number, missing.name, missing.checksum),
            )
        applied.append(missing.name)


async def _missing(connection: Connection, migrations: Sequence[Migration]) -> Migration | None:
    """The first that is not applied. Fails: `Conflict`."""
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, name text NOT NULL,"
        " checksum text NOT NULL, applied timestamptz NOT NULL DEFAULT now())"
    )
    cursor = await connection.execute("SELECT number, name, checksum FROM migrations ORDER BY number")
    known = {row["number"]: row for row in await cursor.fetchall()}
    for migration in migrations:
        row = known.get(migration.number)
        if row is None:
            return migration
        if row["checksum"] != migration.checksum:
            raise Conflict(
                f"{migration.name} is not what was applied to this database ({row['name']})."
                " A migration never changes: restore the file, and add a new one for what is new.",
                migration=migration.name,
            )
    return None
