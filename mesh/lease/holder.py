"""A host's own lease: until when it may act for what it owns.

The lease runs from the moment the acknowledged beat was *sent*, so that the
time an answer spends on its way only shortens it. On the leader itself it runs
from the moment the newest heartbeat round confirmed by a quorum was sent.

Invariant: `until_ns` never falls while the process lives; an answer can extend
it or change nothing. Giving up early is the caller's decision.
"""

from collections import OrderedDict
from typing import Final

from mesh.errors import InvariantBroken
from mesh.ids import Term
from mesh.lease.model import BeatAnswer

BEATS_REMEMBERED_MAX: Final = 64
NO_TERM: Final = Term(0)


class HostLease:
    """The lease of one run of one sidecar; a new process starts without one.

    `term` is the Raft term found on disk: a leader this host has already moved
    on from must not keep it going after a restart.
    Bound: `BEATS_REMEMBERED_MAX` unanswered beats; the oldest are forgotten, and
    an answer to a forgotten one changes nothing.
    """

    def __init__(self, term: Term = NO_TERM) -> None:
        self._term = term
        self._until = 0
        self._sent: OrderedDict[int, int] = OrderedDict()
        self._newest = 0

    @property
    def until_ns(self) -> int:
        """The moment the lease ends; in the past when it has."""
        return self._until

    @property
    def term(self) -> Term:
        """Newest Raft term this lease has heard of."""
        return self._term

    def beat_sent(self, sequence: int, now: int) -> None:
        """Note that a beat leaves now; `sequence` rises over all streams of this process."""
        if sequence <= self._newest:
            raise InvariantBroken(f"beat {sequence} after beat {self._newest}")
        self._newest = sequence
        self._sent[sequence] = now
        if len(self._sent) > BEATS_REMEMBERED_MAX:
            self._sent.popitem(last=False)

    def term_seen(self, term: Term) -> None:
        """The host's Raft term is now `term`: answers of older terms no longer count."""
        self._term = max(self._term, term)

    def answered(self, answer: BeatAnswer) -> bool:
        """Take in an answer; True if the lease now lasts longer than before.

        An answer to an unknown, forgotten or already answered beat, or from a
        term that this host has left, changes nothing.
        """
        sent = self._sent.get(answer.sequence)
        if sent is None or answer.term < self._term:
            return False
        self._term = answer.term
        while self._sent and next(iter(self._sent)) <= answer.sequence:
            self._sent.popitem(last=False)
        return answer.granted and self._extend(sent + answer.lease_ns)

    def leadership_confirmed(self, round_sent: int, lease_ns: int, term: Term) -> bool:
        """On the leader: a quorum answered the round sent at `round_sent` in `term`.

        True if the lease now lasts longer than before.
        Order: only once an entry of `term` is applied here; until then this host
        may not know who owns what.
        """
        if term < self._term:
            return False
        self._term = term
        return self._extend(round_sent + lease_ns)

    def _extend(self, until: int) -> bool:
        longer = until > self._until
        if longer:
            self._until = until
        return longer

    def ns_left(self, now: int) -> int:
        """What is left of the lease, 0 when it has run out."""
        return max(0, self._until - now)

    def is_live(self, now: int, margin: int = 0) -> bool:
        """More than `margin` is left."""
        return self._until - now > margin
