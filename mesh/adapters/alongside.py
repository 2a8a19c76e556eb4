"""Two directions of one stream: a task that writes for as long as a block reads."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine

import grpc

#: What reading from or writing to a stream that has ended raises.
BROKEN = (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError)


@contextlib.asynccontextmanager
async def alongside(writing: Coroutine[None, None, None], *, name: str) -> AsyncIterator[None]:
    """Run *writing* while the block runs, and end it with the block.

    Not a task group, on purpose: one that is cancelled while a child fails raises the
    child's error and forgets the cancellation (CPython 3.11), and a stream breaks exactly
    when everything is being cancelled. When the stream breaks, the reader in the block sees it too.

    Fails: what *writing* failed with, unless that was the end of the stream.
    """
    writer = asyncio.create_task(writing, name=name)
    try:
        yield
    finally:
        writer.cancel()
        await asyncio.wait([writer])
        if not writer.cancelled() and (error := writer.exception()) and not isinstance(error, BROKEN):
            raise error
