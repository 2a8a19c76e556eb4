"""What is kept for long enough is forgotten, however much it is, on a real PostgreSQL."""

from collections.abc import AsyncIterator

import pytest

from mesh.client.database import Bounds, Database
from mesh.client.migrations import migrate
from services.lcm.store import MIGRATIONS
from services.reconciler.ledger import Ledger
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.integration

KEYS = """
INSERT INTO idempotency_keys (caller, key, request, created)
SELECT '', number::text, '', now() - %s::interval FROM generate_series(1, %s::int) AS number
"""
#: A disk so slow that all at once takes longer than a statement may.
SLOW = """
CREATE FUNCTION drag() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_sleep(0.0005); RETURN OLD; END $$;
CREATE TRIGGER drag BEFORE DELETE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION drag();
"""
CHANGES = """
INSERT INTO changes (revision, deployment, deleted, body)
SELECT number, 'shop', false, '{}' FROM generate_series(%s::int, %s::int) AS number
"""
OPERATIONS = """
INSERT INTO operations (id, deployment, is_done, requested, revision, body)
SELECT gen_random_uuid(), 'shop' || number, %s, number, number, '{}'
FROM generate_series(%s::int, %s::int) AS number
"""


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """With the schema, and little patience."""
    async with Database(url, Bounds(connections=1, statement_s=2.0)) as made:
        await migrate(made, MIGRATIONS)
        yield made


async def tidy(database: Database) -> int:
    """Until nothing is left to forget; how often that took."""
    ledger, turns = Ledger(database, 1), 1
    while await ledger.tidy():
        turns += 1
    return turns


async def test_keys_that_piled_up_are_forgotten_in_batches(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: after days without a reconciler it catches up. Method: more old keys on a slow disk than one
    statement can delete, and one that is to stay."""
    postgres.ask(KEYS, "25 hours", 6000, url=url)
    postgres.ask("UPDATE idempotency_keys SET key = 'young', created = now() WHERE key = '1'", url=url)
    postgres.ask(SLOW, url=url)
    await tidy(database)
    assert postgres.ask("SELECT key FROM idempotency_keys", url=url) == [("young",)]


async def test_the_newest_changes_and_operations_are_kept_however_their_numbers_jump(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: a gap in the revisions costs no watch its place and no operation its record. Method: more than
    is kept before a gap, a few after it; an old operation that is not done."""
    gap = 1_000_000_000
    postgres.ask(CHANGES, 1, 12_000, url=url)
    postgres.ask(CHANGES, gap + 1, gap + 100, url=url)
    postgres.ask(OPERATIONS, False, 1, 1, url=url)
    postgres.ask(OPERATIONS, True, 2, 101_000, url=url)
    postgres.ask(OPERATIONS, True, gap + 1, gap + 100, url=url)
    postgres.ask("UPDATE revisions SET newest = %s", gap + 100, url=url)
    await tidy(database)
    assert postgres.ask("SELECT forgotten FROM revisions", url=url) == [(2_100,)]
    assert postgres.ask("SELECT count(*), min(revision) FROM changes", url=url) == [(10_000, 2_101)]
    kept = postgres.ask(
        "SELECT count(*) FILTER (WHERE is_done), bool_or(NOT is_done) FROM operations", url=url
    )
    assert kept == [(100_000, True)]
    assert await tidy(database) == 1
