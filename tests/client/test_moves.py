"""What a client does while the database moves: a server that turns standby and is promoted, on a real
PostgreSQL."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from mesh.client.database import Bounds, Database
from mesh.errors import Unavailable
from tests.client.table import TABLES, insert, outcome, rows
from tests.harness.postgres import Postgres, why_not
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration
BOUNDS = Bounds(connections=2, connect_s=1.0)


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One that no other test uses."""
    if reason := why_not():
        pytest.skip(reason)
    with Postgres() as made:
        yield made


@pytest.fixture
def url(server: Postgres) -> str:
    made = server.new_database()
    server.ask(TABLES, url=made)
    return made


def turn_standby(server: Postgres) -> None:
    server.kill()
    (server.data / "standby.signal").touch()
    server.start()


def promote(server: Postgres) -> None:
    server.ask("SELECT pg_promote()")
    wait_for(lambda: server.ask("SELECT pg_is_in_recovery()") == [(False,)], "it is promoted")


async def test_a_former_primary_that_is_a_standby_is_waited_for(server: Postgres, url: str) -> None:
    """Goal: nothing is sent to a standby, and the promoted one is found by itself. Method: turn the server
    into a standby under an open pool, try, and promote it while another transaction tries to begin."""
    async with Database(url, BOUNDS) as database:
        await insert(database, 1)
        await asyncio.to_thread(turn_standby, server)
        assert isinstance(await outcome(database, 2), Unavailable)
    async with Database(url, Bounds(connections=2, connect_s=10.0)) as patient:
        later = asyncio.ensure_future(outcome(patient, 3))
        await asyncio.to_thread(promote, server)
        assert await later is None
    assert rows(server, url) == [1, 3]


async def test_a_server_that_only_reads_is_given_up(server: Postgres, url: str) -> None:
    """Goal: what was primary is told as unavailable, and nothing happened. Method: a transaction that may
    only read, as on such a server."""
    async with Database(url, BOUNDS) as database:
        await insert(database, 1)

        async def write(value: int) -> None:
            async with database.transaction() as connection:
                await connection.execute("SET LOCAL transaction_read_only = on")
                await connection.execute("INSERT INTO rows VALUES (%s)", (value,))

        with pytest.raises(Unavailable):
            await write(2)
        await insert(database, 3)
    assert rows(server, url) == [1, 3]


async def test_notices_go_on_over_a_move(server: Postgres, url: str) -> None:
    """Goal: whoever looks at each notice misses nothing, also over a move. Method: count them; turn the
    server standby, promote it, notify: one more comes, long before the next look without a notice."""
    wakes, came = 0, asyncio.Event()

    async def listen(notices: AsyncIterator[None]) -> None:
        nonlocal wakes
        async for _ in notices:
            wakes += 1
            came.set()

    async def next_wake() -> None:
        came.clear()
        async with asyncio.timeout(10.0):
            await came.wait()

    async with Database(url, Bounds(connections=1, connect_s=20.0)) as database, asyncio.TaskGroup() as group:
        listening = group.create_task(listen(database.notices("news", every_s=60.0)), name="listen")
        await next_wake()
        server.ask("NOTIFY news", url=url)
        await next_wake()
        came.clear()
        await asyncio.to_thread(turn_standby, server)
        await asyncio.to_thread(promote, server)
        async with asyncio.timeout(10.0):
            await came.wait()  # it listens again
        before = wakes
        server.ask("NOTIFY news", url=url)
        await next_wake()
        assert wakes == before + 1
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
