"""Schema migrations on a real PostgreSQL."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.client.database import Bounds, Database
from mesh.client.migrations import Migration, migrate, read_migrations
from mesh.errors import Conflict, Corruption
from services.lcm.store import MIGRATIONS
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.integration

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"


def schema(postgres: Postgres, url: str) -> list[tuple[object, ...]]:
    return postgres.ask(COLUMNS, url=url) + postgres.ask(INDEXES, url=url)


async def test_every_earlier_version_becomes_the_present_one(postgres: Postgres) -> None:
    """Goal: an upgrade from anywhere ends the same. Method: stop after each file, go on, compare."""
    ends = []
    for stop in range(len(MIGRATIONS) + 1):
        url = postgres.new_database()
        async with Database(url) as database:
            assert await migrate(database, MIGRATIONS[:stop]) == [each.name for each in MIGRATIONS[:stop]]
            assert await migrate(database, MIGRATIONS) == [each.name for each in MIGRATIONS[stop:]]
            assert await migrate(database, MIGRATIONS) == []
        ends.append(schema(postgres, url))
    assert all(end == ends[0] for end in ends)
    assert len(ends[0]) > 20


async def test_instances_that_migrate_at_once_apply_each_file_once(postgres: Postgres, url: str) -> None:
    """Goal: several instances may start together. Method: six at once on an empty database."""
    databases = [Database(url, Bounds(connections=1)) for _ in range(6)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(applied_by(database), name="migrate") for database in databases]
    applied = [name for task in tasks for name in task.result()]
    assert sorted(applied) == [each.name for each in MIGRATIONS]


async def applied_by(database: Database) -> list[str]:
    async with database:
        return await migrate(database, MIGRATIONS)


async def test_a_changed_migration_is_refused(postgres: Postgres, url: str) -> None:
    """Goal: what was applied stays what it is. Method: change one byte of the first file."""
    changed = (replace(MIGRATIONS[0], sql=MIGRATIONS[0].sql + " "), *MIGRATIONS[1:])
    async with Database(url) as database:
        await migrate(database, MIGRATIONS[:1])
        with pytest.raises(Conflict):
            await migrate(database, changed)
    assert postgres.ask("SELECT count(*) FROM migrations", url=url) == [(1,)]


async def test_a_migration_that_fails_leaves_nothing_behind(postgres: Postgres, url: str) -> None:
    """Goal: a half migration does not exist. Method: its second statement fails; then the mended one."""
    bad = Migration(1, "0001_bad.sql", "CREATE TABLE first (a int); SELECT 1 / 0;")
    good = replace(bad, sql="CREATE TABLE first (a int);")
    async with Database(url) as database:
        with pytest.raises(Exception, match="division by zero"):
            await migrate(database, [bad])
        assert await migrate(database, [good]) == ["0001_bad.sql"]


async def test_an_older_program_goes_on_beside_a_newer_schema(url: str) -> None:
    """Goal: instances are upgraded one by one. Method: the newer one migrates, the older one looks."""
    async with Database(url) as database:
        await migrate(database, MIGRATIONS)
        assert await migrate(database, MIGRATIONS[:1]) == []


def test_a_missing_number_is_found(tmp_path: Path) -> None:
    """Goal: no migration is lost on the way. Method: a gap, and a wrong name."""
    (tmp_path / "0001_one.sql").write_text("SELECT 1")
    (tmp_path / "0003_three.sql").write_text("SELECT 1")
    with pytest.raises(Corruption, match="not 1 to 2"):
        read_migrations(tmp_path)
    (tmp_path / "0003_three.sql").rename(tmp_path / "three.sql")
    with pytest.raises(Corruption, match="is not named like"):
        read_migrations(tmp_path)
