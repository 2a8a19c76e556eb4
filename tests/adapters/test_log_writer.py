"""The thread that writes: what order its jobs have, and that closing loses none."""

import asyncio
from functools import partial

from mesh.adapters.log_writer import LogWriter


async def test_jobs_run_in_the_order_in_which_they_were_submitted() -> None:
    """Goal: nothing overtakes a write that let others go first. Method: such jobs and plain ones in turn, and
    an end that comes before any has begun; each says that it ran, and when its answer came."""
    writer = LogWriter(asyncio.get_running_loop(), "writer-of-a-test")
    ran: list[int] = []
    answered: list[tuple[int, BaseException | None]] = []
    for number in range(20):

        def told(error: BaseException | None, number: int = number) -> None:
            answered.append((number, error))

        writer.submit(partial(ran.append, number), told, yields=number % 3 == 0)
    assert await writer.close(grace_s=5)
    await asyncio.sleep(0)  # the last answer is handed to the loop by the thread
    assert ran == list(range(20))
    assert answered == [(number, None) for number in range(20)]


async def test_a_job_that_yields_begins_after_what_the_loop_had_to_do() -> None:
    """Goal: messages leave first. Method: a callback that is queued right after the job."""
    writer = LogWriter(asyncio.get_running_loop(), "writer-of-a-test")
    order: list[str] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    writer.submit(partial(order.append, "written"), lambda _: done.set(), yields=True)
    loop.call_soon(order.append, "woken")
    async with asyncio.timeout(5):
        await done.wait()
    assert order.index("woken") < order.index("written")
    assert await writer.close(grace_s=5)
