"""A thread that writes to the log, so that a slow disk never stops the event loop.

Order: writes are done in the order in which they were submitted; their
callbacks run in the event loop, in the same order.
"""

import asyncio
import queue
import sys
import threading
from collections.abc import Callable
from typing import TypeAlias

from mesh.errors import InvariantBroken
from mesh.ports import Done

#: CPython hands the interpreter to a waiting thread after this long; its default of 5 ms
#: would be longer than the fsync that the thread comes back from.
SWITCH_INTERVAL_S = 0.0005
_Job: TypeAlias = tuple[Callable[[], None], Done]


class LogWriter:
    """Runs writes one after the other in a thread of its own.

    Bound: the driver has at most one Ready and one snapshot under way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        #: Jobs that wait for their turn of the loop; later ones wait behind them.
        self._yielding = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.is_closed = False
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._thread.start()

    def submit(self, write: Callable[[], None], done: Done, *, yields: bool = False) -> None:
        """Run *write* in the thread, then *done* in the event loop.

        *yields*: two turns of the loop later. The thread competes for the interpreter with what the loop is
        about to send, and that is on its way to other disks meanwhile.
        """
        if self.is_closed:
            raise InvariantBroken("a write was submitted after the writer was closed")
        self._hand_over((write, done), yields=yields)

    def _hand_over(self, job: _Job | None, *, yields: bool = False) -> None:
        if yields or self._yielding:
            self._yielding += 1
            self._loop.call_soon(self._loop.call_soon, self._put, job)
        else:
            self._jobs.put(job)

    def _put(self, job: _Job | None) -> None:
        self._yielding -= 1
        self._jobs.put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            write, done = job
            error: BaseException | None = None
            try:
                write()
            except BaseException as raised:  # noqa: BLE001 - travels to the event loop, which stops the driver
                error = raised
            self._loop.call_soon_threadsafe(done, error)

    async def close(self, *, grace_s: float) -> bool:
        """Finish what was submitted, then end the thread; False if the disk held it longer than *grace_s*."""
        self.is_closed = True
        self._hand_over(None)
        await asyncio.to_thread(self._thread.join, grace_s)
        return not self._thread.is_alive()
