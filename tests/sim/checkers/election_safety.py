"""Election safety: at most one leader in each term (paper, figure 3).

Proves: no two members ever led the same term, whatever they did in it.
Would not notice: a leader that no quorum voted for, as long as nobody else led its term; see
`votes_and_terms` and `leader_completeness`.
"""

from typing import ClassVar

from mesh.ids import MemberId, Term
from mesh.raft.model import Role
from tests.sim.trace import Event, Facts, RoleChanged, Violation


class ElectionSafety:
    name: ClassVar[str] = "election-safety"
    wants: ClassVar[tuple[type[Event], ...]] = (RoleChanged,)

    def __init__(self, facts: Facts) -> None:
        self._leaders: dict[Term, MemberId] = {}

    def seen(self, event: Event) -> None:
        assert type(event) is RoleChanged
        if event.role is Role.LEADER:
            leader = self._leaders.setdefault(event.term, event.member)
            if leader != event.member:
                raise Violation(self.name, f"{leader} and {event.member} both led term {event.term}")

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
