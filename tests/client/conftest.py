"""A PostgreSQL for the tests of the database client."""

from collections.abc import AsyncIterator

import pytest

from mesh.client.database import Bounds, Database
from tests.client.table import TABLES
from tests.harness.database import postgres, session_postgres, url
from tests.harness.postgres import Postgres

__all__ = ["postgres", "session_postgres", "url"]


@pytest.fixture
async def database(postgres: Postgres, url: str) -> AsyncIterator[Database]:
    """With a table, on a database of its own."""
    postgres.ask(TABLES, url=url)
    async with Database(url, Bounds(connections=4, connect_s=5.0, commit_s=5.0), name="test") as made:
        yield made
