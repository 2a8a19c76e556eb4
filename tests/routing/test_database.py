"""The local listener that leads to the database's primary and to nobody else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.routing.harness import free_port, running, settings, until

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def named(name: bytes) -> AsyncIterator[str]:
    """A server that says its name to whoever connects, and then waits."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name + b"\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        address, port = server.sockets[0].getsockname()
        yield f"{address}:{port}"


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[tuple[bytes, asyncio.StreamReader]]:
    """A connection, and what is said there first; empty when it ends at once."""
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    try:
        yield (await reader.readline()).strip(), reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_told(address: str, name: bytes) -> bool:
    """Whether a new connection leads to *name*."""
    try:
        async with connected(address) as (told, _):
            return told == name
    except ConnectionError:
        return False


async def ended(reader: asyncio.StreamReader) -> bool:
    """The other side has ended the connection, within two seconds."""
    try:
        async with asyncio.timeout(2):
            return await reader.read() == b""
    except ConnectionError:
        return True


async def test_it_leads_to_the_primary_only_and_old_connections_end_when_that_moves(tmp_path: Path) -> None:
    """Goal: nobody goes on talking to a former primary. Method: two servers; the primary moves from one to
    the other, and then there is none; connections are open meanwhile."""
    local = f"127.0.0.1:{free_port()}"
    async with (
        named(b"a") as a,
        named(b"b") as b,
        running(settings(tmp_path, database_address=local)) as host,
    ):
        host.publish(database_primary=a)
        await until(lambda: is_told(local, b"a"))
        async with connected(local) as (_, old):
            host.publish(database_primary=b)
            assert await ended(old)
        await until(lambda: is_told(local, b"b"))
        async with connected(local) as (_, old):
            host.publish()
            assert await ended(old)
        await until(lambda: is_told(local, b""))
        assert not [facts for name, facts in host.events if name == "xds-rejected"]
