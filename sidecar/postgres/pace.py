"""How soon the driver of a database tries again what failed, and the one long thing it has under way."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from mesh.errors import InvariantBroken, TrellisError
from sidecar.postgres.model import Do

LOG = structlog.get_logger(__name__)

_AGAIN_S_MIN, _AGAIN_S_MAX = 0.1, 10.0
#: Between two looks: while something is under way, first and last; and when all is as it should be.
_LOOK_S_MIN, _LOOK_S_MAX = 0.005, 0.2
_SETTLED_S = 0.5
_COPIES: Final = frozenset({Do.INITDB, Do.CLONE, Do.REWIND})


class Pace:
    """The account of one driver's attempts. Must be used from its event loop."""

    def __init__(self) -> None:
        #: What failed last and is not mended, as a sentence.
        self.trouble = ""
        self._troubled: Do | None = None
        self._failures: dict[Do, int] = {}
        self._not_before: dict[Do, float] = {}
        self._look_s = _LOOK_S_MIN
        self._task: asyncio.Task[None] | None = None
        self._does = Do.WAIT
        self._bug: BaseException | None = None

    # ---- attempts -------------------------------------------------------------------

    def must_wait(self, do: Do) -> bool:
        """It failed a moment ago."""
        return asyncio.get_running_loop().time() < self._not_before.get(do, 0.0)

    def failed(self, do: Do, error: TrellisError) -> None:
        """It did not work; the next attempt waits, longer each time."""
        count = self._failures[do] = self._failures.get(do, 0) + 1
        pause_s = min(_AGAIN_S_MIN * 2 ** min(count - 1, 10), _AGAIN_S_MAX)
        self._not_before[do] = asyncio.get_running_loop().time() + pause_s
        if self.trouble != str(error):
            LOG.warning("database-trouble", does=do.value, error=str(error), again_s=pause_s)
        self.trouble, self._troubled = str(error), do

    def worked(self, do: Do, *, is_news: bool = True) -> None:
        """It did. *is_news*: it was not the same as before, so that the next look may show more."""
        self._failures.pop(do, None)
        self._not_before.pop(do, None)
        if do is self._troubled:
            self.trouble, self._troubled = "", None
        if do is not Do.WAIT and is_news:
            self._look_s = _LOOK_S_MIN

    def wants(self, do: Do) -> None:
        """This is to be done now: what failed and is not wanted any more is no trouble any more."""
        if self._troubled not in (None, do, Do.WAIT, Do.CONFIGURE_SYNC) and not self.is_busy:
            self.trouble, self._troubled = "", None

    def pause_s(self, *, is_settled: bool) -> float:
        """How long to wait for news before looking again."""
        if is_settled:
            self._look_s = _LOOK_S_MIN
            return _SETTLED_S
        self._look_s = min(self._look_s * 1.1, _LOOK_S_MAX)
        return self._look_s

    # ---- what takes long ------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Something long is under way."""
        return self._task is not None

    @property
    def does(self) -> Do | None:
        """What long thing is under way."""
        return self._does if self._task is not None else None

    @property
    def is_copying(self) -> bool:
        """It writes into the data directory."""
        return self._task is not None and self._does in _COPIES

    def begin(self, do: Do, work: Coroutine[Any, Any, None], on_end: Callable[[], None]) -> None:
        """Do it beside the loop; `on_end` is called when it has ended, either way."""
        if self._task is not None:
            raise InvariantBroken(f"{do.value} while {self._does.value} is under way")
        self._does = do
        self._task = asyncio.get_running_loop().create_task(work, name=f"database:{do.value}")
        self._task.add_done_callback(lambda task: self._ended(do, task, on_end))

    def _ended(self, do: Do, task: "asyncio.Task[None]", on_end: Callable[[], None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is None:
            self.worked(do)
        elif isinstance(error, TrellisError):
            self.failed(do, error)
        else:
            self._bug = error
        on_end()

    def check(self) -> None:
        """Fails: with the bug that ended what was under way."""
        if self._bug is not None:
            raise self._bug

    async def end(self) -> None:
        """Break off what is under way, and wait until it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
