"""Runs the load process and feeds its records to the board."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.demo.board import Board
from sidecar.demo.calls import BUCKET_NS, MS, Call
from sidecar.demo.orders import environment


@asynccontextmanager
async def northbound_load(board: Board, rate: float) -> AsyncIterator["asyncio.Task[None]"]:
    """Calls through the virtual IP at a steady rate for as long as the body runs.

    The yielded task is done when the client has ended.
    """
    board.calls_per_bucket = rate * BUCKET_NS / (1000 * MS)
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar.demo.load", board.virtual_address, str(rate),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    assert client.stdout is not None
    reader = asyncio.create_task(_count_calls(board, client.stdout), name="calls")
    try:
        yield reader
        client.terminate()
        await asyncio.wait_for(reader, 10)
    finally:
        reader.cancel()
        if client.returncode is None:
            client.kill()
        await client.wait()


async def _count_calls(board: Board, output: asyncio.StreamReader) -> None:
    async for line in output:
        board.ledger.add(Call(*json.loads(line)))
