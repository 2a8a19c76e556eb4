"""Leader completeness: who leads a term has every entry that earlier terms committed (paper §5.4).

Looked at twice, as either may come first: when a member begins to lead, for the newest entry
committed in an earlier term; and when an entry is first told to be committed, for the newest leader
of a later term. With log matching one entry speaks for all before it.
Would not notice: a member without the entries that votes for itself and never wins.
"""

from bisect import bisect_left
from typing import ClassVar

from mesh.ids import MemberId, Term
from mesh.raft.model import Role
from tests.sim.checkers.durable_log import DISK_EVENTS, followed
from tests.sim.trace import Committed, Event, Facts, RoleChanged, Start, Violation


class LeaderCompleteness:
    name: ClassVar[str] = "leader-completeness"
    wants: ClassVar[tuple[type[Event], ...]] = (*DISK_EVENTS, RoleChanged, Committed)

    def __init__(self, facts: Facts) -> None:
        self._disks = followed(facts).disks
        self._committed = followed(facts).committed
        #: At [index - 1]; terms never fall along a log.
        self._terms: list[int] = []
        self._newest: tuple[Term, MemberId] | None = None

    def seen(self, event: Event) -> None:
        kind = type(event)
        if kind is Committed:
            self._commit(event)  # type: ignore[arg-type]
        elif kind is RoleChanged:
            self._change_role(event)  # type: ignore[arg-type]
        else:
            self._disks.seen(event)
            if type(event) is Start:
                self._committed.started(event)

    def _change_role(self, event: RoleChanged) -> None:
        if event.role is not Role.LEADER:
            return
        if self._newest is None or event.term > self._newest[0]:
            self._newest = event.term, event.member
        index = bisect_left(self._terms, event.term)
        if index:
            self._check(event.member, event.term, index, self._terms[index - 1])

    def _commit(self, event: Committed) -> None:
        for entry in self._committed.extend(event):
            self._terms += [0] * (entry.index - 1 - len(self._terms))
            self._terms.append(entry.term)
        last = event.entries[-1]
        if self._newest and self._newest[0] > event.term and last.index == len(self._terms):
            self._check(self._newest[1], self._newest[0], last.index, last.term)

    def _check(self, leader: MemberId, term: int, index: int, entry_term: int) -> None:
        if entry_term and not self._disks.of(leader).holds(index, entry_term):
            raise Violation(
                self.name,
                f"{leader} leads term {term} without entry {index} of term {entry_term}, which is committed",
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
