"""A backend that says nothing any more holds nobody up, on a real PostgreSQL."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from mesh.client.database import Bounds, Database
from mesh.errors import OutcomeUnknown, Unavailable
from tests.client.table import ends, insert, outcome, rows
from tests.harness.database import wait_until
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.integration
#: Short, so that the tests are; connecting has longer.
HASTY = Bounds(connections=1, connect_s=10.0, statement_s=0.3, commit_s=0.3, idle_s=10.0)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The backend stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def backend_of(database: Database) -> int:
    """Of its only connection, which is given back."""
    async with database.transaction() as connection:
        return connection.info.backend_pid


async def test_a_statement_of_a_frozen_backend_is_left(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: an owner goes on elsewhere. Method: freeze the backend within a transaction; the statement ends
    within its bound, nothing was changed, and the next transaction has another connection."""
    async with Database(url, HASTY) as hasty:

        async def act() -> None:
            async with hasty.transaction() as connection:
                await connection.execute("INSERT INTO rows VALUES (1)")
                with frozen(connection.info.backend_pid):
                    await connection.execute("INSERT INTO rows VALUES (2)")

        async with asyncio.timeout(8.0):
            assert isinstance(await ends(act()), Unavailable)
        async with asyncio.timeout(8.0):
            await insert(hasty, 3)
    assert rows(postgres, url) == [3]


async def test_a_frozen_idle_backend_costs_one_attempt(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: BEGIN is bounded, and tried again on another connection. Method: freeze it while it is in the
    pool."""
    async with Database(url, HASTY) as hasty:
        with frozen(await backend_of(hasty)):
            async with asyncio.timeout(8.0):
                assert await outcome(hasty, 1) is None
    assert rows(postgres, url) == [1]


async def test_a_caller_that_gives_up_on_a_frozen_backend_is_let_go(url: str, database: Database) -> None:
    """Goal: cancelling is bounded as well: it asks the server, which does not answer. Method: freeze,
    cancel."""
    async with Database(url, HASTY) as hasty:
        pid = await backend_of(hasty)
        with frozen(pid):
            waiting = asyncio.ensure_future(insert(hasty, 1))
            await asyncio.wait({waiting}, timeout=0.1)
            waiting.cancel()
            async with asyncio.timeout(8.0):
                with pytest.raises(asyncio.CancelledError):
                    await waiting


async def test_a_second_cancellation_during_commit_changes_nothing(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: no wait for standbys is cancelled by insisting. Method: cancel the task twice during COMMIT; the
    pool has a connection for the next one."""
    postgres.demand_standbys("nobody")
    task = asyncio.ensure_future(insert(database, 1))
    await wait_until(postgres.waiting_commits)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(postgres.waiting_commits()) == 1
    assert rows(postgres, url) == []
    postgres.demand_standbys("")
    await asyncio.gather(*(insert(database, value) for value in range(10, 18)))


async def test_a_commit_of_a_frozen_backend_is_unknown_and_a_read_is_not(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: each is told what is so. Method: freeze the backend before COMMIT of a change, and of a read."""
    for snapshot, expected in ((False, OutcomeUnknown), (True, Unavailable)):
        async with Database(url, HASTY) as hasty:

            async def act(snapshot: bool = snapshot, hasty: Database = hasty) -> None:
                with contextlib.ExitStack() as stack:
                    async with hasty.transaction(snapshot=snapshot) as connection:
                        await connection.execute("SELECT 1")
                        stack.enter_context(frozen(connection.info.backend_pid))

            async with asyncio.timeout(8.0):
                assert type(await ends(act())) is expected
