"""When a leader sent the append-heartbeat round that a quorum has confirmed.

The core counts ticks, which stand still while the process does. A lease must
not: so the time each round leaves is noted on a clock that always runs.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from mesh.ids import Term
from mesh.raft.model import AppendHeartbeat, Message

ROUNDS_REMEMBERED_MAX: Final = 256


class RoundClock:
    """Send times of the rounds of one term, in the unit of the `now` it is given.

    Bound: `ROUNDS_REMEMBERED_MAX`; a confirmation of a forgotten round tells nothing.
    """

    def __init__(self) -> None:
        self._term = Term(0)
        self._sent: deque[tuple[int, int]] = deque(maxlen=ROUNDS_REMEMBERED_MAX)
        self._confirmed_at: int | None = None

    def note(self, messages: Iterable[Message], now: int) -> None:
        """These messages are about to leave. Order: before they do."""
        for message in messages:
            if type(message) is not AppendHeartbeat:
                continue
            if message.term != self._term:
                self._term = message.term
                self._sent.clear()
                self._confirmed_at = None
            if not self._sent or message.round > self._sent[-1][0]:
                self._sent.append((message.round, now))

    def confirmed_at(self, term: Term, confirmed_round: int) -> int | None:
        """When the newest noted round up to `confirmed_round` left; None: none of that term."""
        if term != self._term:
            return None
        while self._sent and self._sent[0][0] <= confirmed_round:
            self._confirmed_at = self._sent.popleft()[1]
        return self._confirmed_at
