"""What a service may conclude from a transaction, on a real PostgreSQL."""

import asyncio

import psycopg
import pytest

from mesh.client.database import Bounds, Database
from mesh.client.idempotency import Request, claim, settle
from mesh.errors import Conflict, OutcomeUnknown, StaleTerm, Unavailable
from tests.client.table import ends, insert, outcome, rows
from tests.harness.database import wait_until
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.integration


async def test_a_cancelled_wait_for_standbys_is_no_acknowledgement(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: a commit on one host only is never told as done. Method: cancel the backend's wait."""
    await insert(database, 1)
    postgres.demand_standbys("nobody")
    async with asyncio.TaskGroup() as group:
        commit = group.create_task(outcome(database, 2), name="commit")
        (pid,) = await wait_until(postgres.waiting_commits)
        postgres.ask("SELECT pg_cancel_backend(%s)", pid)
    assert isinstance(commit.result(), OutcomeUnknown)
    assert rows(postgres, url) == [1, 2]  # PostgreSQL called it a success


async def test_a_connection_lost_during_commit_leaves_the_outcome_unknown(
    postgres: Postgres, database: Database
) -> None:
    """Goal: neither success nor failure is told. Method: end the backend while it waits for standbys."""
    postgres.demand_standbys("nobody")
    async with asyncio.TaskGroup() as group:
        commit = group.create_task(outcome(database, 1), name="commit")
        (pid,) = await wait_until(postgres.waiting_commits)
        postgres.ask("SELECT pg_terminate_backend(%s)", pid)
    assert isinstance(commit.result(), OutcomeUnknown)


async def test_a_commit_that_takes_too_long_is_left_and_not_cancelled(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: giving up never turns a wait into a commit on one host. Method: wait longer than the bound."""
    postgres.demand_standbys("nobody")
    async with Database(url, Bounds(connections=1, commit_s=0.2)) as hasty:
        assert isinstance(await outcome(hasty, 1), OutcomeUnknown)
    assert len(postgres.waiting_commits()) == 1
    assert rows(postgres, url) == []


async def test_a_caller_that_gives_up_does_not_cancel_the_commit(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: cancellation of a task is no cancelled wait. Method: cancel the task during COMMIT."""
    postgres.demand_standbys("nobody")
    task = asyncio.ensure_future(insert(database, 1))
    await wait_until(postgres.waiting_commits)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(postgres.waiting_commits()) == 1
    assert rows(postgres, url) == []


async def test_a_connection_lost_before_commit_means_that_nothing_happened(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: what certainly failed is told so. Method: end the backend within the body."""

    async def lose() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO rows VALUES (1)")
            postgres.ask("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
            await connection.execute("INSERT INTO rows VALUES (2)")

    with pytest.raises(Unavailable):
        await lose()
    assert rows(postgres, url) == []
    await insert(database, 3)
    assert rows(postgres, url) == [3]


async def test_a_transaction_that_failed_is_not_told_as_committed(
    postgres: Postgres, database: Database
) -> None:
    """Goal: COMMIT of a failed transaction is a rollback, and told so. Method: swallow an error of SQL."""

    async def be_careless() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO rows VALUES (1)")
            with pytest.raises(psycopg.errors.UniqueViolation):
                await connection.execute("INSERT INTO rows VALUES (1)")

    with pytest.raises(Conflict):
        await be_careless()


async def test_connecting_rides_over_a_restart(postgres: Postgres, url: str, database: Database) -> None:
    """Goal: a transaction that begins during an outage waits. Method: crash, and start again meanwhile."""
    await asyncio.gather(*(insert(database, value) for value in range(4)))  # every connection was used
    postgres.kill()
    async with asyncio.TaskGroup() as group:
        later = group.create_task(outcome(database, 9), name="insert")
        await asyncio.to_thread(postgres.start)
    assert later.result() is None
    assert rows(postgres, url) == [0, 1, 2, 3, 9]


async def test_connecting_is_bounded(url: str) -> None:
    """Goal: a service learns that there is no database. Method: a port where nobody listens."""
    async with Database("postgresql://postgres@127.0.0.1:1/none", Bounds(connect_s=0.3)) as nowhere:
        async with asyncio.timeout(5):
            assert isinstance(await outcome(nowhere, 1), Unavailable)


async def test_an_overtaken_owner_is_refused(postgres: Postgres, url: str, database: Database) -> None:
    """Goal: a stale owner changes nothing, not even once. Method: terms 5, 6, 5."""

    async def act(term: int, value: int) -> None:
        async with database.guarded("reconciler", term) as connection:
            await connection.execute("INSERT INTO rows VALUES (%s)", (value,))

    await act(5, 1)
    await act(6, 2)
    with pytest.raises(StaleTerm):
        await act(5, 3)
    await act(6, 4)
    assert rows(postgres, url) == [1, 2, 4]
    async with database.guarded("another", 1):
        pass  # names do not concern each other


async def test_each_cluster_counts_its_own_terms_and_an_earlier_one_is_refused(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: a restored database lets its new cluster act, and the former one never again. Method: terms of
    clusters a, b, and of nobody knows which, as an earlier version wrote them."""

    async def act(cluster: str, term: int) -> bool:
        async with Database(url, Bounds(connections=1), cluster=cluster) as its:
            try:
                async with its.guarded("mine", term):
                    return True
            except StaleTerm:
                return False

    assert await act("", 4)
    assert not await act("a", 3)
    assert await act("a", 5)
    assert not await act("a", 4)
    assert not await act("", 4)
    assert await act("b", 1)
    assert not await act("a", 9)
    assert await act("b", 1)
    assert await act("c", 1)
    assert not await act("b", 9)
    assert postgres.ask("SELECT term, cluster, earlier FROM fences", url=url) == [(1, "c", ["a", "b"])]


async def test_a_later_owner_waits_for_the_last_transaction_of_the_earlier_one(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: the earlier owner's last change is seen by the later one. Method: both at once."""

    async def later() -> list[int]:
        async with database.guarded("reconciler", 2) as connection:
            cursor = await connection.execute("SELECT value FROM rows")
            return [row["value"] for row in await cursor.fetchall()]

    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with asyncio.TaskGroup() as group, database.guarded("reconciler", 1) as connection:
        await connection.execute("INSERT INTO rows VALUES (1)")
        seen = group.create_task(later(), name="later")
        await wait_until(lambda: postgres.ask(waiting))
    assert seen.result() == [1]


async def test_a_process_that_is_frozen_in_a_transaction_holds_nobody_up(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: the next owner waits for seconds only. Method: a transaction that says nothing any more."""
    async with Database(url, Bounds(idle_s=0.2)) as frozen:

        async def fall_silent() -> None:
            async with frozen.guarded("reconciler", 1) as connection:
                await wait_until(lambda: connection.info.backend_pid not in backends(postgres))

        async with asyncio.TaskGroup() as group:
            silent = group.create_task(ends(fall_silent()), name="silent")
        assert isinstance(silent.result(), Unavailable)
        async with database.guarded("reconciler", 2):
            pass


def backends(postgres: Postgres) -> list[int]:
    return [pid for (pid,) in postgres.ask("SELECT pid FROM pg_stat_activity")]


async def test_a_repeat_waits_for_the_standbys_of_what_it_repeats(
    postgres: Postgres, url: str, database: Database
) -> None:
    """Goal: a repeat acknowledges nothing that one host alone has. Method: repeat after a cancelled wait."""
    postgres.ask(
        "CREATE TABLE idempotency_keys (caller text, key text, request bytea, answer jsonb,"
        " repeats bigint NOT NULL DEFAULT 0, PRIMARY KEY (caller, key))",
        url=url,
    )
    request = Request("", "k", "M", b"content")

    async def once() -> object:
        try:
            async with database.transaction() as connection:
                answered = await claim(connection, request)
                if answered is None:
                    await connection.execute("INSERT INTO rows VALUES (1)")
                    await settle(connection, request, {"said": 1})
                return answered or {"said": 1}
        except OutcomeUnknown as error:
            return error

    postgres.demand_standbys("nobody")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(once(), name="first")
        (pid,) = await wait_until(postgres.waiting_commits)
        postgres.ask("SELECT pg_cancel_backend(%s)", pid)
    assert isinstance(first.result(), OutcomeUnknown)
    async with asyncio.TaskGroup() as group:
        second = group.create_task(once(), name="second")
        await wait_until(postgres.waiting_commits)
        assert not second.done()
        postgres.demand_standbys("")
    assert second.result() == {"said": 1}
    assert rows(postgres, url) == [1]
    request = Request("", "k", "M", b"other")
    with pytest.raises(Conflict):
        await once()
