"""Work beside the driver's loop: it ends with the driver, and its bugs come out."""

import asyncio
from functools import partial

import pytest

from mesh.errors import NotInTime
from sidecar.postgres.beside import Beside


async def fail(error: Exception) -> None:
    raise error


async def test_a_bug_comes_out_and_what_merely_failed_does_not() -> None:
    """Goal: nothing is lost that a supervisor should see. Method: one task of each kind, then a look."""
    beside = Beside()
    beside.begin("fails", partial(fail, NotInTime("no answer")))
    while beside.is_under_way("fails"):
        await asyncio.sleep(0)
    beside.check()
    beside.begin("bug", partial(fail, ValueError("a bug")))
    while beside.is_under_way("bug"):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="a bug"):
        beside.check()


async def test_nothing_is_left_after_the_end() -> None:
    """Goal: no task without an owner. Method: one that waits, one that has not begun, a second of a name."""
    beside, begun = Beside(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    beside.begin("waits", wait)
    await begun.wait()
    beside.begin("waits", partial(fail, ValueError("never begun")))
    beside.begin("new", wait)
    await beside.end()
    assert not beside.is_under_way("waits")
    assert not beside.is_under_way("new")
    beside.check()
