"""The gate in front of the join listener: idle connections neither fill it nor stay."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app.gate import Gate
from tests.routing.harness import until

MOST = 4


@contextlib.asynccontextmanager
async def echo(socket: Path) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """A server behind the gate that says everything again; the connections that it has."""
    made: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(writer)
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(socket))
    try:
        yield made
    finally:
        server.close()
        for writer in made:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def opened(
    folder: Path, *, hello_s: float = 5.0, life_s: float = 20.0
) -> AsyncIterator[tuple[Gate, int]]:
    """A gate for few connections, in front of the echo; its port."""
    async with echo(folder / "behind.sock"):
        gate = Gate(folder / "behind.sock", connections_max=MOST, hello_s=hello_s, life_s=life_s)
        await gate.open("127.0.0.1", 0)
        assert gate._server is not None
        try:
            yield gate, gate._server.sockets[0].getsockname()[1]
        finally:
            await gate.close()
            assert gate.connections == 0


async def say(port: int, text: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has said something."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    return reader, writer


async def test_silent_connections_give_way_to_one_that_speaks(tmp_path: Path) -> None:
    """Goal: idle connections cannot keep a joining host out. Method: many more of them than there is room."""
    async with opened(tmp_path) as (gate, port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5 * MOST)]
        reader, writer = await say(port, b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
        await until(lambda: gate.connections <= MOST)
        await until(lambda: gate.refused >= 4 * MOST)
        for _, each in (*idle, (reader, writer)):
            each.transport.abort()


async def test_when_all_have_spoken_the_new_one_is_closed(tmp_path: Path) -> None:
    """Goal: the bound holds, and those who are being served go on being served."""
    async with opened(tmp_path) as (gate, port):
        served = [await say(port, b"x") for _ in range(MOST)]
        for reader, _ in served:
            assert await asyncio.wait_for(reader.readexactly(1), 5) == b"x"
        late, late_writer = await say(port, b"x")
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(late.read(), 5) == b""
        assert gate.refused == 1
        served[0][1].write(b"y")
        assert await asyncio.wait_for(served[0][0].readexactly(1), 5) == b"y"
        for _, writer in (*served, (late, late_writer)):
            writer.transport.abort()


@pytest.mark.parametrize(("hello_s", "life_s", "said"), [(0.05, 20.0, b""), (5.0, 0.05, b"x")])
async def test_nobody_stays_who_says_nothing_or_never_ends(
    tmp_path: Path, hello_s: float, life_s: float, said: bytes
) -> None:
    """Goal: both times are kept. Method: one connection that says nothing, one that says too little."""
    async with opened(tmp_path, hello_s=hello_s, life_s=life_s) as (gate, port):
        reader, writer = await say(port, said)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == said
        await until(lambda: gate.connections == 0)
        writer.close()


async def test_bytes_pass_whole_in_both_directions(tmp_path: Path) -> None:
    """Goal: nothing is lost with more bytes than any buffer holds, and an end is passed on."""
    sent = bytes(range(256)) * 8192
    async with opened(tmp_path) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def send() -> None:
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            received = await asyncio.wait_for(reader.read(-1), 10)
        assert received == sent
        writer.close()
