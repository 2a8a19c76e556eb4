"""What is committed no election can lose: not even if every host starts again from its disk at that moment.

Proves: whenever an entry is first told to be committed, no member whose disk lacks it would get the votes of
a quorum of the membership that it knows, were all logs compared as they are on the disks (paper §5.4: why
entries of earlier terms are not committed by counting). Soon after, a schedule in which such a member is
elected would lose the entry; this needs no such schedule.
Would not notice: a loss by later damage to what the disks hold (`committed_is_durable`), or a vote that is
given although logs say no (`leader_completeness`).
"""

from typing import ClassVar, Final

from mesh.ids import MemberId
from tests.sim.checkers.durable_log import DISK_EVENTS, DurableLog, followed, is_quorum
from tests.sim.trace import Committed, Event, Facts, Start, Violation

NOWHERE: Final = (0, 0)


class SafeFromElections:
    name: ClassVar[str] = "safe-from-elections"
    wants: ClassVar[tuple[type[Event], ...]] = (*DISK_EVENTS, Committed)

    def __init__(self, facts: Facts) -> None:
        self._disks = followed(facts).disks
        self._committed = followed(facts).committed
        self._newest = 0

    def seen(self, event: Event) -> None:
        if type(event) is Committed:
            self._committed.extend(event)
            last = event.entries[-1]
            if last.index > self._newest:
                self._newest = last.index
                self._check(event.member, last.index, last.term)
            return
        self._disks.seen(event)
        if type(event) is Start:
            self._committed.started(event)

    def _check(self, member: MemberId, index: int, term: int) -> None:
        logs = self._disks.logs
        ends: dict[MemberId, tuple[int, int]] = {}
        for candidate, log in logs.items():
            if log.holds(index, term) or not (log.memberships and log.memberships[-1][1].may_lead(candidate)):
                continue
            ends = ends or {member: _end(its) for member, its in logs.items()}
            end = ends[candidate]
            voters = {other for other, its in ends.items() if NOWHERE < its <= end}
            if is_quorum(log.memberships[-1][1], voters.__contains__):
                raise Violation(
                    self.name,
                    f"{member} takes entry {index} of term {term} for committed, but {candidate} without it,"
                    f" whose log ends at {end}, would be elected by {sorted(voters)}",
                )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""


def _end(log: DurableLog) -> tuple[int, int]:
    """What logs are compared by: the last term, then the length. Nowhere: the last term was never told."""
    term = log.terms[-1] if log.terms else log.base_term
    return (term, log.last) if term else NOWHERE
