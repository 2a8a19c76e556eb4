"""What is told of a COMMIT does not depend on what others have set in the database, on a real PostgreSQL."""

import asyncio

import psycopg
import pytest

from mesh.client.database import Bounds, Database
from mesh.errors import OutcomeUnknown, Unavailable
from tests.client.table import insert, outcome, rows
from tests.harness.database import wait_until
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.integration
HIDDEN = "client_min_messages"


@pytest.mark.parametrize("where", ["url", "role", "database"])
async def test_a_warning_that_others_would_hide_is_heard(
    postgres: Postgres, url: str, database: Database, where: str
) -> None:
    """Goal: a cancelled wait for standbys never looks like an acknowledgement. Method: have warnings hidden
    in the URL, for the role and for the database, and cancel the backend's wait."""
    given = f"{url}?options=-c%20{HIDDEN}%3Derror" if where == "url" else url
    name = url.rpartition("/")[2]
    target = {"url": "", "role": f"ROLE postgres IN DATABASE {name}", "database": f"DATABASE {name}"}[where]
    if target:
        postgres.ask(f"ALTER {target} SET {HIDDEN} = error")
    async with Database(given, Bounds(connections=1)) as deaf:
        await insert(deaf, 1)
        postgres.demand_standbys("nobody")
        async with asyncio.TaskGroup() as group:
            commit = group.create_task(outcome(deaf, 2), name="commit")
            (pid,) = await wait_until(postgres.waiting_commits)
            postgres.ask("SELECT pg_cancel_backend(%s)", pid)
        assert isinstance(commit.result(), OutcomeUnknown)
    assert rows(postgres, url) == [1, 2]


@pytest.mark.parametrize("weak", ["off", "local"])
async def test_a_commit_waits_for_standbys_whatever_the_database_says(
    postgres: Postgres, url: str, database: Database, weak: str
) -> None:
    """Goal: acknowledged is kept. Method: synchronous_commit weakened for the database; a standby that is not
    there; then a stronger one, which stays."""
    name = url.rpartition("/")[2]
    postgres.ask(f"ALTER DATABASE {name} SET synchronous_commit = {weak}")
    postgres.demand_standbys("nobody")
    async with Database(url, Bounds(connections=1, commit_s=0.5)) as weakened:
        assert isinstance(await outcome(weakened, 1), OutcomeUnknown)
    postgres.demand_standbys("")
    postgres.ask(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    async with Database(url) as strong, strong.transaction() as connection:
        cursor = await connection.execute("SHOW synchronous_commit")
        assert await cursor.fetchone() == {"synchronous_commit": "remote_apply"}


FAILING = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '{state}'; END $$;
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON rows DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION fail();
"""


async def test_an_internal_error_in_commit_leaves_the_outcome_unknown(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: a damaged server's word is not taken for a rollback. Method: class XX from a deferred trigger."""
    for state in ("XX000", "XX001"):
        postgres.ask("DROP TRIGGER IF EXISTS fail ON rows; DROP FUNCTION IF EXISTS fail", url=url)
        postgres.ask(FAILING.format(state=state), url=url)
        assert isinstance(await outcome(database, 1), OutcomeUnknown)


async def test_a_read_whose_commit_is_lost_is_no_unknown_outcome(
    postgres: Postgres, database: Database
) -> None:
    """Goal: what changed nothing may simply be done again. Method: end the backend while it reads, before
    COMMIT."""

    async def read() -> None:
        async with database.transaction(snapshot=True) as connection:
            await connection.execute("SELECT 1")
            postgres.ask("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            await wait_until(lambda: not alive(postgres, connection))

    with pytest.raises(Unavailable):
        await read()


def alive(postgres: Postgres, connection: psycopg.AsyncConnection[object]) -> bool:
    pid = connection.info.backend_pid
    return bool(postgres.ask("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid))
