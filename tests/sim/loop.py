"""Virtual time, and the event loop of one life of one simulated sidecar.

One `Scheduler` orders everything that happens on all hosts by (true time, sequence). Each life has a
`SimLoop`, on which asyncio's own tasks, futures, timeouts and task groups run unmodified; while a
handle of it runs it is the running loop. Nothing of a loop runs once it is dropped: a crash strikes
between two handles, and no `finally` of the dead process is ever executed; or at a failpoint, where
`Killed` leaves what runs.
"""

import asyncio
import heapq
import math
import warnings
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from tests.sim.clock import MS, NS, Clock

if TYPE_CHECKING:
    from tests.sim.host import Life

#: How often one coroutine may await something else instead of ending.
EXITS_MAX = 8
#: Whether a process that blocks and is stopped, too, may go on is looked at so often.
LOOK_NS = 5 * MS


class Killed(BaseException):
    """Leaves the code of a process that died at this instruction, whatever its handlers catch."""


class Handle:
    """One call that is due; asyncio cancels it by `cancel`."""

    __slots__ = ("act", "given", "is_cancelled", "loop", "when_s")

    def __init__(
        self, loop: "SimLoop | None", act: Callable[..., Any], given: tuple[Any, ...], when_s: float
    ) -> None:
        self.loop = loop
        self.act = act
        self.given = given
        self.when_s = when_s
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_s


def _exit(coroutine: Any) -> None:
    """Finish it, whatever it does about that."""
    for _ in range(EXITS_MAX):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001 - its process is dead: nobody is to hear of it
            continue
        break


class Scheduler:
    """All that is going to happen, in order. `now` is true time in nanoseconds."""

    def __init__(self) -> None:
        self.now = 0
        #: How far `run_until` goes.
        self.end = 0
        self.steps = 0
        self._sequence = 0
        self._heap: list[tuple[int, int, Handle]] = []
        self._ready: deque[Handle] = deque()

    def at(self, when: int, act: Callable[..., Any], *given: Any) -> Handle:
        """Do it at a true time, on no host."""
        handle = Handle(None, act, given, 0.0)
        self.push(when, handle)
        return handle

    def push(self, when: int, handle: Handle) -> None:
        """Queue *handle* for a true time; the past means now, after what is due already."""
        self._sequence = sequence = self._sequence + 1
        heapq.heappush(self._heap, (when, sequence, handle))

    def soon(self, handle: Handle) -> None:
        """Queue *handle* for this instant."""
        self._ready.append(handle)

    def clear(self) -> None:
        """Forget all that was going to happen."""
        self._heap.clear()
        self._ready.clear()

    def halt(self, reason: Exception) -> None:
        """Do nothing more: `run_until` raises *reason* after the present call."""

        def stop() -> None:
            raise reason

        self._ready.appendleft(Handle(None, stop, (), 0.0))

    def run_until(self, end: int) -> None:
        """Let everything happen up to *end*. Whatever a handle raises ends it here.

        May be called by a handle whose loop lets none of its own run meanwhile.
        """
        heap, ready, pop = self._heap, self._ready, heapq.heappop
        outer_end, self.end = self.end, end
        current: SimLoop | None = None
        steps = 0
        try:
            while True:
                if ready:
                    handle = ready.popleft()
                elif heap:
                    when = heap[0][0]
                    if when > end:
                        break
                    handle = pop(heap)[2]
                    if when > self.now:
                        self.now = when
                else:
                    break
                if handle.is_cancelled:
                    continue
                loop = handle.loop
                if loop is not current:
                    _set_running_loop(loop)
                    current = loop
                if loop is not None and loop.is_special and not loop.admits(handle):
                    continue
                steps += 1
                try:
                    handle.act(*handle.given)
                except Killed:  # the rest of this handle is not done: its process is gone
                    continue
            self.now = max(self.now, end)
        finally:
            self.steps += steps
            self.end = outer_end
            _set_running_loop(None)


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one life. Its time is the host's monotonic clock."""

    def __init__(self, scheduler: Scheduler, clock: Clock, on_bug: Callable[[BaseException], None]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._on_bug = on_bug
        #: Whose code runs here.
        self.life: Life | None = None
        #: Something about this loop must be looked at before a handle runs.
        self.is_special = False
        self._is_dropped = False
        self._is_paused = self._is_blocked = False
        self._held: list[Handle] = []
        #: All that were ever begun, for `close`.
        self._tasks: list[asyncio.Task[Any]] = []
        #: The CPU takes so long for each handle; 0: no time.
        self._cost: Callable[[], int] | None = None
        self._busy_until = 0
        #: Called once this many handles more have run (the point of a crash).
        self._fuse: int | None = None
        self._blow: Callable[[], None] = lambda: None

    # ---- what asyncio calls -----------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Handle:
        """Contexts are not kept: nothing below reads a context variable."""
        handle = Handle(self, callback, args, 0.0)
        if self._cost is None:
            self._scheduler.soon(handle)
        else:
            self._busy_until = max(self._scheduler.now, self._busy_until) + self._cost()
            self._scheduler.push(self._busy_until, handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Handle:
        scheduler = self._scheduler
        delay_ns = math.ceil(delay * 1e9)  # a wait that is not over takes time, or it is begun for ever
        handle = Handle(self, callback, args, self._clock.monotonic_s() + delay)
        scheduler.push(scheduler.now + self._clock.true_ns(delay_ns if delay_ns > 0 else 0), handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Handle:
        scheduler = self._scheduler
        delay_ns = math.ceil((when - self._clock.monotonic_s()) * NS)
        handle = Handle(self, callback, args, when)
        scheduler.push(scheduler.now + self._clock.true_ns(delay_ns if delay_ns > 0 else 0), handle)
        return handle

    def call_true(self, when: int, callback: Callable[..., Any], *args: Any) -> Handle:
        """Call at a true time; what the network and the disk do to this host."""
        handle = Handle(self, callback, args, 0.0)
        self._scheduler.push(when, handle)
        return handle

    def time(self) -> float:
        return self._clock.monotonic_s()

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Only what a callback raises is a bug; futures that nobody looked at say so when collected."""
        error = context.get("exception")
        if error is not None and "handle" in context and not self._is_dropped:
            self._on_bug(error)

    def close(self) -> None:
        """Finish every suspended coroutine: `GeneratorExit` where it waits, as often as needed."""
        self.drop()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a task that never began never awaited its work
            for task in self._tasks:
                if not task.done():
                    _exit(task.get_coro())
            self._tasks.clear()
            self._held.clear()

    # ---- what faults do ---------------------------------------------------------------

    def admits(self, handle: Handle) -> bool:
        """Whether *handle* may run now; else it is kept or forgotten."""
        if self._is_dropped:
            self._held.append(handle)  # so that nothing of it is collected before `close`
            return False
        if self._is_paused or self._is_blocked:
            self._held.append(handle)
            return False
        lacking_s = handle.when_s - self._clock.monotonic_s()
        if lacking_s > 1e-6:  # the monotonic clock stood still meanwhile
            self._scheduler.push(self._scheduler.now + self._clock.true_ns(int(lacking_s * NS) + 1), handle)
            return False
        if self._fuse is not None:
            self._fuse -= 1
            if self._fuse < 0:
                self._fuse = None
                self._blow()
                if self.is_dropped:
                    self._held.append(handle)
                return not self._is_dropped
        return True

    def drop(self) -> None:
        """The process is gone."""
        self._is_dropped = self.is_special = True

    @property
    def is_dropped(self) -> bool:
        return self._is_dropped

    def pause(self) -> None:
        """The process does not run from now on."""
        self._is_paused = self.is_special = True

    def resume(self) -> None:
        """It runs again; what came due meanwhile comes now, in its order."""
        self._is_paused = False
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for handle in held:
            self._scheduler.push(self._scheduler.now, handle)

    @property
    def is_paused(self) -> bool:
        return self._is_paused or self._is_blocked

    def block(self, for_ns: int) -> bool:
        """The handle that runs now blocks its process so long, and while that is stopped; all else goes on.

        False when it may not go on: its process died meanwhile, or is stopped as the run ends.
        """
        scheduler, task = self._scheduler, asyncio.current_task(self)
        over = scheduler.now + for_ns
        self._is_blocked = self.is_special = True
        if task is not None:
            asyncio.tasks._leave_task(self, task)
        try:
            while not self._is_dropped and scheduler.now < scheduler.end:
                if scheduler.now >= over and not self._is_paused:
                    break
                until = over if scheduler.now < over else scheduler.now + LOOK_NS
                scheduler.run_until(min(until, scheduler.end))
        except Exception as reason:  # noqa: BLE001 - it ends the run, and not what blocks here
            scheduler.halt(reason)
        finally:
            if task is not None:
                asyncio.tasks._enter_task(self, task)
            _set_running_loop(self)
        self._is_blocked = False
        if self._is_dropped or self._is_paused:
            return False
        self._let_go()
        return True

    def slow_down(self, cost: Callable[[], int] | None) -> None:
        """Each handle waits *cost* nanoseconds for the CPU; None: none."""
        self._cost = cost

    def light_fuse(self, handles: int, blow: Callable[[], None]) -> None:
        """Call *blow* between two handles, after so many of them."""
        self._fuse, self._blow, self.is_special = handles, blow, True
