"""Whoever leads has the votes of a quorum of its membership: of both halves of a joint one (paper §5.2, §6).

Proves: at the moment at which a member leads a term, votes of a majority of the voters in the newest
membership of its own log have left those voters, its own counted in; and some membership that its log may
still return to has it as a voter that holds data.
Would not notice: a voter that gives its vote to two candidates (`votes_and_terms`).
"""

from typing import ClassVar

from mesh.ids import MemberId, Term
from mesh.raft.model import Role
from tests.sim.checkers.durable_log import DISK_EVENTS, followed, is_quorum
from tests.sim.trace import Event, Facts, RoleChanged, Violation, Voted


class ElectedByQuorum:
    name: ClassVar[str] = "elected-by-quorum"
    wants: ClassVar[tuple[type[Event], ...]] = (*DISK_EVENTS, Voted, RoleChanged)

    def __init__(self, facts: Facts) -> None:
        self._disks = followed(facts).disks
        self._votes: dict[tuple[Term, MemberId], set[MemberId]] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Voted:
            self._votes.setdefault((event.term, event.candidate), {event.candidate}).add(event.member)
        elif type(event) is not RoleChanged:
            self._disks.seen(event)
        elif event.role is Role.LEADER:
            self._check(event)

    def _check(self, event: RoleChanged) -> None:
        log = self._disks.of(event.member)
        if not log.memberships:
            return  # told by a disk whose membership was never seen
        if not any(each.may_lead(event.member) for _, each in log.memberships):
            raise Violation(
                self.name, f"{event.member} leads term {event.term}, and does not vote with data of its own"
            )
        voters = self._votes.get((event.term, event.member), {event.member})
        membership = log.memberships[-1][1]
        if not is_quorum(membership, voters.__contains__):
            halves = [list(each) for each in (membership.voters, membership.outgoing) if each]
            raise Violation(
                self.name,
                f"{event.member} leads term {event.term} by the votes of {sorted(voters)}, of {halves}",
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
