"""Who waits for what: proposals for their index, reads for confirmation, callers for state."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from mesh import limits
from mesh.errors import NoLeader, NotLeader, OutcomeUnknown, QueueFull, TrellisError
from mesh.ids import Index, MemberId, Term
from mesh.raft.model import EntryId, Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Applied:
    """A proposal's end: where it stands and what the state machine said."""

    index: Index
    outcome: object


Answer: TypeAlias = Applied | TrellisError
#: Gets the answer in the event loop, exactly once; must not block.
Answered: TypeAlias = Callable[[Answer], None]


class PendingProposals:
    """Commands that were appended here and are not applied yet.

    Bound: `limits.PROPOSALS_PENDING_MAX`.
    """

    def __init__(self) -> None:
        self._pending: dict[Index, tuple[Term, Answered]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def check_room(self) -> None:
        """Fails: `QueueFull`."""
        if len(self._pending) >= limits.PROPOSALS_PENDING_MAX:
            raise QueueFull(f"{len(self._pending)} commands wait for a quorum; try again shortly")

    def add(self, entry: EntryId, answered: Answered) -> None:
        """*answered* waits for *entry*. An older wait at its index is lost for certain."""
        if before := self._pending.pop(entry.index, None):
            before[1](_overtaken(entry.index))
        self._pending[entry.index] = (entry.term, answered)

    def applied(self, entry: EntryId, outcome: object) -> None:
        """*entry* was applied; whoever waited at its index for another term's has lost."""
        if not self._pending:
            return
        if waiting := self._pending.pop(entry.index, None):
            term, answered = waiting
            is_own = term == entry.term
            answered(Applied(entry.index, outcome) if is_own else _overtaken(entry.index))

    def give_up(self, reason: str, *, to_index: Index | None = None, to_term: Term | None = None) -> int:
        """Answer `OutcomeUnknown` to those up to an index or a term; how many they were."""
        gone = [
            index
            for index, (term, _) in self._pending.items()
            if (to_index is None or index <= to_index) and (to_term is None or term <= to_term)
        ]
        for index in gone:
            self._pending.pop(index)[1](OutcomeUnknown(reason, index=index))
        return len(gone)


def _overtaken(index: Index) -> NotLeader:
    return NotLeader(
        f"another leader's entry took index {index}, so the command was certainly not applied;"
        " propose it again",
        index=index,
    )


class PendingReads:
    """Reads that wait for a quorum's confirmation, one round for all that came before it started.

    Bound: `limits.READS_PENDING_MAX`; one round under way.
    """

    def __init__(self) -> None:
        self._next: list[asyncio.Future[Index]] = []
        self._asked: list[asyncio.Future[Index]] = []
        self._request = 0

    def add(self) -> asyncio.Future[Index]:
        """A read of the next round. Fails: `QueueFull`."""
        if len(self._next) >= limits.READS_PENDING_MAX:
            raise QueueFull(f"{len(self._next)} reads wait for a quorum; try again shortly")
        future: asyncio.Future[Index] = asyncio.get_running_loop().create_future()
        self._next.append(future)
        return future

    def start_round(self) -> int | None:
        """The number of a new round, if one is wanted and none is under way."""
        if self._asked:
            return None
        self._asked = [future for future in self._next if not future.done()]
        self._next = []
        if not self._asked:
            return None
        self._request += 1
        return self._request

    @property
    def is_asked(self) -> bool:
        """Whether somebody still waits for the round under way."""
        return any(not future.done() for future in self._asked)

    def end_round(self) -> None:
        """Nobody waits for the round under way any more; the next one may start."""
        if not self.is_asked:
            self._take()

    def confirmed(self, request: int, index: Index) -> None:
        """The round *request* may read at *index*."""
        if request == self._request:
            _resolve(self._take(), index)

    def lost(self, requests: Iterable[int], error: TrellisError) -> None:
        """These rounds can no longer be confirmed."""
        if self._request in requests:
            self.refuse(error)

    def refuse(self, error: TrellisError) -> None:
        """The round under way has failed."""
        for future in self._take():
            if not future.done():
                future.set_exception(error)

    def refuse_all(self, error: TrellisError) -> None:
        self._asked += self._next
        self._next = []
        self.refuse(error)

    def _take(self) -> list[asyncio.Future[Index]]:
        taken, self._asked = self._asked, []
        return taken


class AppliedWaiters:
    """Callers that wait until an index is applied."""

    def __init__(self) -> None:
        self._heap: list[tuple[Index, int, asyncio.Future[Index]]] = []
        self._order = itertools.count()

    def add(self, index: Index) -> asyncio.Future[Index]:
        future: asyncio.Future[Index] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (index, next(self._order), future))
        return future

    def reached(self, applied: Index) -> None:
        while self._heap and self._heap[0][0] <= applied:
            _resolve([heapq.heappop(self._heap)[2]], applied)

    def refuse_all(self, error: TrellisError) -> None:
        for _, _, future in self._heap:
            if not future.done():
                future.set_exception(error)
        self._heap.clear()


class ConditionWaiters:
    """Callers that wait until something about the member is true."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[Status], bool], asyncio.Future[None]]] = []

    def add(self, condition: Callable[[Status], bool]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        return future

    def check(self, look: Callable[[], Status]) -> None:
        """Look again; called whenever the member has changed."""
        if self._waiting:
            status, kept = look(), []
            for condition, future in self._waiting:
                if future.done():
                    continue
                if condition(status):
                    future.set_result(None)
                else:
                    kept.append((condition, future))
            self._waiting = kept

    def refuse_all(self, error: TrellisError) -> None:
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()


def not_leader(leader: MemberId | None) -> NotLeader:
    """The refusal of a member that does not lead."""
    known = f"ask {leader}" if leader else "no leader is known; try again shortly"
    return NotLeader(f"only the leader can do this; {known}", leader=leader or "")


async def wake_or_wait(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for *event*, which is set after *seconds* at the latest: who waits looks again either way.

    For loops that run for ever: a timer and no more, where `asyncio.timeout` would cancel and raise.
    """
    if seconds is None:
        await event.wait()
        return
    loop = asyncio.get_running_loop()
    timer = loop.call_at(loop.time() + seconds, event.set) if seconds > 0 else loop.call_soon(event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


async def in_time(future: "asyncio.Future[T]", timeout_s: float, what: str) -> T:
    """Wait for *future*. Fails: `NoLeader`, which says *what* did not happen, after *timeout_s*."""
    try:
        async with asyncio.timeout(timeout_s):
            return await future
    except TimeoutError:
        raise NoLeader(f"{what} within {timeout_s:.1f} s; try again") from None


def _resolve(futures: Iterable[asyncio.Future[Index]], index: Index) -> None:
    for future in futures:
        if not future.done():
            future.set_result(index)
