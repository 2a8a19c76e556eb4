"""The end of a leadership: proposals whose fate stays unknown are not waited for for ever."""

import asyncio

from mesh.counters import ConsensusCounters
from mesh.ids import Term
from mesh.raft.model import Role, SoftState
from mesh.waiting import PendingProposals


class Tenure:
    """Which term this member leads, and what it owes its callers afterwards.

    A new leader most often commits the old one's entries within milliseconds;
    only what is still open after the grace is called unknown.
    """

    def __init__(self, proposals: PendingProposals, counters: ConsensusCounters, grace_s: float) -> None:
        self._proposals = proposals
        self._counters = counters
        self._grace_s = grace_s
        #: The term this member leads; None when it does not.
        self._term: Term | None = None
        self._timer: asyncio.TimerHandle | None = None

    def role_changed(self, soft: SoftState) -> None:
        """Begin or end the tenure. An end starts the grace once, whatever follows."""
        counters = self._counters
        counters.elections += soft.role is Role.CANDIDATE
        counters.leader_changes += soft.leader is not None
        if soft.role is Role.LEADER:
            self._term = soft.term
        elif self._term is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._grace_s, self._give_up, self._term)
            self._term = None

    def _give_up(self, term: Term) -> None:
        self._counters.proposals_unknown += self._proposals.give_up(
            "this member no longer leads and did not learn the command's fate", to_term=term
        )

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
