"""A table to insert into, and how an insert ended."""

from collections.abc import Awaitable

from mesh.client.database import Database
from mesh.errors import OutcomeUnknown, Unavailable
from tests.harness.postgres import Postgres

TABLES = """
CREATE TABLE rows (value integer PRIMARY KEY);
CREATE TABLE fences (name text PRIMARY KEY, term bigint NOT NULL,
    cluster text NOT NULL DEFAULT '', earlier text[] NOT NULL DEFAULT '{}');
"""


async def insert(database: Database, value: int) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO rows VALUES (%s)", (value,))


def rows(postgres: Postgres, url: str) -> list[int]:
    return [value for (value,) in postgres.ask("SELECT value FROM rows ORDER BY value", url=url)]


async def ends(doing: Awaitable[object]) -> Exception | None:
    """How it ended."""
    try:
        await doing
    except (Unavailable, OutcomeUnknown) as error:
        return error
    return None


async def outcome(database: Database, value: int) -> Exception | None:
    """How an insert ended."""
    return await ends(insert(database, value))
