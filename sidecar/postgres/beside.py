"""What the driver of a database goes on with while its loop turns; nothing waits for it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from mesh.errors import TrellisError

LOG = structlog.get_logger(__name__)


class Beside:
    """The tasks of one driver, by name, each at most once at a time. Must be used from its event loop.

    Invariant: a task ends with `end` at the latest, and a bug in one comes out at the next `check`.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._bug: BaseException | None = None

    def begin(self, name: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Go on with it, unless one of this name is under way."""
        if name in self._tasks:
            return
        task = asyncio.get_running_loop().create_task(_told(name, work), name=f"database:{name}")
        self._tasks[name] = task
        task.add_done_callback(lambda task: self._ended(name, task))

    def _ended(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[name]
        if not task.cancelled() and task.exception() is not None:
            self._bug = task.exception()

    def is_under_way(self, name: str) -> bool:
        """It was begun and has not ended."""
        return name in self._tasks

    def check(self) -> None:
        """Fails: with the bug that ended one of them."""
        if self._bug is not None:
            raise self._bug

    async def end(self) -> None:
        """Break off all of them, and wait until they have ended."""
        tasks = [*self._tasks.values()]
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _told(name: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    try:
        await work()
    except TrellisError as error:
        LOG.warning("database-beside", what=name, error=str(error))
