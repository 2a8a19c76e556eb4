"""What a leader grants rests on what it knows, and a host's lease on what was granted (grantor.py, A, B, E).

Proves: who leads grants, and has a lease of its own, only once it knows all that anybody had told to be
committed when it was elected, owners included; a host's lease lasts no longer than a lease from the moment
of a grant, and that grant is of the term the host is in, or of a later one, and to this life of it.
Would not notice: a grant by a leader that no quorum follows any more, while nobody else is elected
(`leases_of_one_term`); a wrong grant that the host then makes no use of (`one_owner`).
"""

from typing import ClassVar

from mesh.ids import HostId, MemberId, Term
from mesh.lease.timers import PPM
from mesh.raft.model import Role
from tests.sim.trace import (
    Committed,
    Event,
    Facts,
    Granted,
    LeaseExtended,
    Restored,
    RoleChanged,
    Start,
    TermRaised,
    Violation,
)


class GrantsByTheRules:
    name: ClassVar[str] = "grants-by-the-rules"
    wants: ClassVar[tuple[type[Event], ...]] = (
        Start,
        Committed,
        Restored,
        RoleChanged,
        TermRaised,
        Granted,
        LeaseExtended,
    )

    def __init__(self, facts: Facts) -> None:
        self._lease_ns = facts.timers.lease_elsewhere_ns
        self._error_ppm = facts.timers.clock_rate_error_ppm
        #: Highest index that anybody told to be committed, and how far each member knows that.
        self._newest = 0
        self._known: dict[MemberId, int] = {}
        #: Who leads, as each host believes of itself: the term, and what it must know.
        self._leads: dict[HostId, tuple[Term, int]] = {}
        self._terms: dict[MemberId, Term] = {}
        #: Newest grant to each member: when, and of which term.
        self._grants: dict[MemberId, list[tuple[int, Term]]] = {}

    def seen(self, event: Event) -> None:
        kind = type(event)
        if kind is Committed:
            self._learn(event.member, event.entries[-1].index)  # type: ignore[union-attr]
        elif kind is Restored:
            self._known[event.member] = event.at_index  # type: ignore[union-attr]
        elif kind is TermRaised:
            self._terms[event.member] = event.term  # type: ignore[union-attr]
        elif type(event) is RoleChanged:
            self._change_role(event)
        elif type(event) is Start:
            self._start(event)
        elif type(event) is Granted:
            self._grant(event)
        elif type(event) is LeaseExtended:
            self._extend(event)

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""

    def _start(self, event: Start) -> None:
        member = event.member
        self._known[member] = 0
        self._terms[member] = event.hard_state.term
        self._leads.pop(event.host, None)
        self._grants.pop(member, None)

    def _learn(self, member: MemberId, index: int) -> None:
        self._known[member] = index
        self._newest = max(self._newest, index)

    def _change_role(self, event: RoleChanged) -> None:
        self._terms[event.member] = event.term
        if event.role is not Role.LEADER:
            self._leads.pop(event.host, None)
        elif self._leads.get(event.host, (0, 0))[0] != event.term:
            self._leads[event.host] = event.term, self._newest

    def _check_knows(self, host: HostId, member: MemberId, does: str) -> None:
        term, needed = self._leads.get(host, (Term(0), 0))
        known = self._known.get(member, 0)
        if known < needed:
            raise Violation(
                self.name,
                f"{member}, leader of term {term}, {does}, but knows what is committed up to {known}"
                f" only, and {needed} was when it was elected",
            )

    def _grant(self, event: Granted) -> None:
        self._check_knows(event.host, event.member, f"grants {event.to} a lease")
        grants = self._grants.setdefault(event.to, [])
        if grants and grants[-1][1] == event.term:
            grants.pop()
        grants.append((event.at_ns, event.term))
        del grants[:-4]  # of as many terms

    def _extend(self, event: LeaseExtended) -> None:
        if event.host in self._leads:
            self._check_knows(event.host, event.member, "has a lease of its own")
            return
        term = self._terms.get(event.member, Term(0))
        granted = [at for at, of in self._grants.get(event.member, ()) if of >= term]
        if not granted:
            raise Violation(
                self.name,
                f"{event.member} in term {term} has a longer lease, which nobody granted in that term",
            )
        passed = event.at_ns - max(granted)
        left = self._lease_ns - passed + passed * self._error_ppm // PPM
        if event.left_ns > left:
            raise Violation(
                self.name,
                f"{event.member} has a lease for {event.left_ns / 1e6:.1f} ms more,"
                f" but by the newest grant it is {left / 1e6:.1f} ms at most",
            )
