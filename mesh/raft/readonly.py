"""Reads that see every write acknowledged before them, without a log entry (thesis §6.4).

A read is confirmed by a round of append heartbeats that *starts* after the
read arrived: answers to an earlier round may come from members that have
elected somebody else since.
"""

from collections import deque

from mesh.ids import Index
from mesh.raft.model import ReadState


class Rounds:
    """The leader's heartbeat rounds, when each was sent and which a quorum has echoed.

    Invariant: numbers strictly rise while the leadership lasts.
    Bound: one remembered tick per tick without confirmation, which the quorum
    check ends after an election timeout.
    """

    def __init__(self) -> None:
        self.newest = 0
        #: The newest round a quorum has echoed, and the tick it was sent.
        self.confirmed = 0
        self.confirmed_tick: int | None = None
        #: (first round of the tick, tick), oldest first.
        self._sent: deque[tuple[int, int]] = deque()

    def start(self, now: int) -> int:
        """Number the next round, sent at tick *now*."""
        self.newest += 1
        if not self._sent or self._sent[-1][1] != now:
            self._sent.append((self.newest, now))
        return self.newest

    def confirm(self, round_number: int) -> None:
        """A quorum has echoed *round_number* or a later one."""
        if round_number <= self.confirmed:
            return
        self.confirmed = round_number
        while len(self._sent) > 1 and self._sent[1][0] <= round_number:
            self._sent.popleft()
        self.confirmed_tick = self._sent[0][1]


class Reads:
    """Reads on their way to confirmation, in order of arrival.

    Early: the leader has committed nothing in its term, so it does not know the
    commit index. Fresh: no round has started since. Waiting: for their round.
    """

    def __init__(self) -> None:
        self._early: list[int] = []
        self._fresh: list[ReadState] = []
        self._waiting: deque[tuple[int, ReadState]] = deque()

    def __len__(self) -> int:
        return len(self._early) + len(self._fresh) + len(self._waiting)

    @property
    def need_round(self) -> bool:
        return bool(self._fresh)

    def add_early(self, request: int) -> None:
        self._early.append(request)

    def add(self, request: int, commit: Index) -> None:
        self._fresh.append(ReadState(request, commit))

    def wake_early(self, commit: Index) -> None:
        """The leader has committed in its term: *commit* is the true commit index."""
        self._fresh.extend(ReadState(request, commit) for request in self._early)
        self._early.clear()

    def assign(self, round_number: int) -> None:
        """*round_number* starts now."""
        self._waiting.extend((round_number, read) for read in self._fresh)
        self._fresh.clear()

    def release(self, confirmed: int) -> list[ReadState]:
        """The reads whose round a quorum has confirmed."""
        released = []
        while self._waiting and self._waiting[0][0] <= confirmed:
            released.append(self._waiting.popleft()[1])
        return released

    def abandon(self) -> list[int]:
        """Leadership is lost: every request that was not confirmed."""
        fresh = [read.request for read in self._fresh]
        return [read.request for _, read in self._waiting] + fresh + self._early
