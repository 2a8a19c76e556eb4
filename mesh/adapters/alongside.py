"""Two directions of one stream: a task that writes for as long as a block reads."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine

import grpc

#: What reading from or writing to a stream that has ended raises.
BROKEN = (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError)


@contextlib.asynccontextmanager
async def alongside(
    writing: Coroutine[None, None, None], *, name: str, failed: Callable[[], object] | None = None
) -> AsyncIterator[None]:
    """Run *writing* while the block runs, and end it with the block.

    *failed* is called when *writing* fails by itself: it must end the stream, or the reader in the
    block would wait for ever for answers to what nobody writes.

    Not a task group, on purpose: one that is cancelled while a child fails raises the
    child's error and forgets the cancellation (CPython 3.11), and a stream breaks exactly
    when everything is being cancelled. When the stream breaks, the reader in the block sees it too.

    Fails: what *writing* failed with, unless that was the end of the stream.
    """
    writer = asyncio.create_task(writing, name=name)
    has_failed = False

    def ended(_: "asyncio.Task[None]") -> None:
        nonlocal has_failed
        if failed is not None and not writer.cancelled() and writer.exception() is not None:
            has_failed = True
            failed()

    writer.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        # A call that is cancelled here ends its reader like that, though nobody wants the task to end.
        task = asyncio.current_task()
        if not has_failed or task is None or task.cancelling():
            raise
    finally:
        writer.cancel()
        await asyncio.wait([writer])
        if not writer.cancelled() and (error := writer.exception()) and not isinstance(error, BROKEN):
            raise error
