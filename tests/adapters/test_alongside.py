"""A writer beside a reader: neither goes on without the other."""

import asyncio
from typing import Any

import grpc
import pytest

from mesh.adapters.alongside import alongside


class Stream:
    """A stream that nobody answers; like gRPC's, it ends its reader by CancelledError when cancelled here."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    async def read(self) -> None:
        await self._ended.wait()
        raise asyncio.CancelledError

    def cancel(self) -> None:
        self._ended.set()


async def _fail(error: Exception) -> None:
    raise error


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _converse(writing: str) -> str:
    stream = Stream()
    errors = {"broken": asyncio.InvalidStateError("it ended"), "bug": ValueError("no such field")}
    writer = _fail(errors[writing]) if writing in errors else _for_ever()
    async with alongside(writer, name="writer", failed=stream.cancel):
        await stream.read()
    return "over"


async def test_a_reader_does_not_wait_for_answers_when_its_writer_has_failed() -> None:
    """Goal: a stream with half a conversation is reopened. Method: a writer that finds it broken."""
    async with asyncio.timeout(2):
        assert await _converse("broken") == "over"


async def test_a_bug_in_a_writer_is_not_silence() -> None:
    """Goal: it ends the process. Method: a writer that fails with what is no broken stream."""
    async with asyncio.timeout(2):
        with pytest.raises(ValueError, match="no such field"):
            await _converse("bug")


async def test_who_cancels_the_reader_ends_both() -> None:
    """Goal: a cancellation is never forgotten. Method: the reader's task, while its writer writes."""
    reading = asyncio.create_task(_converse("on and on"))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_real_call_that_is_cancelled_ends_its_reader_like_that() -> None:
    """Goal: the toy above is like gRPC. Method: a call to a port where nobody listens, cancelled."""
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        call: Any = channel.stream_stream("/a/b")(wait_for_ready=True)
        reading = asyncio.ensure_future(call.read())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
