"""When voters have waited, what earlier leaders could promise is over (mesh/lease/grantor.py, the proof).

Proves: at the moment at which a member is elected that stood because it had heard nobody, the own lease of
no living leader of an earlier term runs, on its own clock; and from then on no such leader decides to grant
(what it decided before may leave later: the lease counts from the beat). Two hosts that act at once come of
it only if more goes wrong, so this notices sooner than `one_owner`.
Would not notice: elections by hand-over or crash proof, after which the new leader waits instead.
"""

from typing import ClassVar

from mesh.ids import HostId, MemberId, Term
from mesh.raft.model import Role, Standing
from tests.sim.trace import Crash, End, Event, Facts, Granted, LeaseExtended, RoleChanged, Start, Violation


class LeasesOfOneTerm:
    name: ClassVar[str] = "leases-of-one-term"
    wants: ClassVar[tuple[type[Event], ...]] = (Start, Crash, End, RoleChanged, LeaseExtended, Granted)

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        #: Who leads, as each host believes of itself.
        self._leads: dict[HostId, Term] = {}
        #: Own leases of leaders: the term, and the end on the host's clock.
        self._leases: dict[HostId, tuple[Term, int]] = {}
        #: The newest leader for whom voters had waited, and when it was elected.
        self._elected: tuple[Term, MemberId | None, int] = (Term(0), None, 0)

    def seen(self, event: Event) -> None:
        if type(event) is LeaseExtended:
            self._extend(event)
        elif type(event) is RoleChanged:
            self._change_role(event)
        elif type(event) is Granted:
            term, leader, elected_ns = self._elected
            if event.term < term and event.decided_ns >= elected_ns:
                raise Violation(
                    self.name,
                    f"{event.member} grants {event.to} a lease in term {event.term},"
                    f" after {leader} was elected in term {term} by voters that had waited",
                )
        else:
            self._leads.pop(event.host, None)
            self._leases.pop(event.host, None)

    def _extend(self, event: LeaseExtended) -> None:
        term = self._leads.get(event.host)
        if term is None:
            self._leases.pop(event.host, None)  # granted by another one: `Granted` is looked at
        else:
            self._leases[event.host] = term, event.until_ns

    def _change_role(self, event: RoleChanged) -> None:
        if event.role is not Role.LEADER:
            self._leads.pop(event.host, None)
            return
        if self._leads.get(event.host) == event.term:
            return
        self._leads[event.host] = event.term
        if event.stood_for is Standing.TIMEOUT and event.term > self._elected[0]:
            self._elected = event.term, event.member, event.at_ns
            self._check(event)

    def _check(self, event: RoleChanged) -> None:
        for host, (term, until) in self._leases.items():
            left = until - self._facts.boottime_ns(host)
            if host != event.host and term < event.term and left > 0:
                raise Violation(
                    self.name,
                    f"{event.member} is elected in term {event.term} by voters that should have waited,"
                    f" while the lease of {host}, leader of term {term}, has {left / 1e9:.3f} s left",
                )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
