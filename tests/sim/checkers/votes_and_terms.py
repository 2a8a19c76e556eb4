"""What a member has promised it keeps, over every crash: votes, terms, and entries that it acknowledged.

Proves: nothing leaves before its own disk has it (votes, acknowledgements); in one term one vote,
over all lives; the hard state never falls, while it runs and over a restart; a disk gives back at least
what was durable; a member never starts anew under a name that has promised something.
Would not notice: a promise to nobody that is broken before it is told.
"""

from typing import ClassVar

from mesh.ids import MemberId, Term
from mesh.raft.model import HardState
from tests.sim.checkers.durable_log import DISK_EVENTS, followed
from tests.sim.trace import Acked, Event, Facts, Start, Stored, Violation, Voted


class VotesAndTerms:
    name: ClassVar[str] = "votes-and-terms"
    wants: ClassVar[tuple[type[Event], ...]] = (*DISK_EVENTS, Voted, Acked)

    def __init__(self, facts: Facts) -> None:
        self._disks = followed(facts).disks
        self._durable: dict[MemberId, HardState] = {}
        #: Newest term and vote that left each member.
        self._told: dict[MemberId, tuple[Term, MemberId | None]] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Acked:
            self._acknowledge(event)
        elif type(event) is Voted:
            self._vote(event)
        elif type(event) is Stored:
            self._check_rises(event.member, event.hard_state, "stored")
            self._disks.seen(event)
        elif type(event) is Start:
            self._disks.seen(event)
            self._start(event)
        else:
            self._disks.seen(event)

    def _start(self, event: Start) -> None:
        if event.is_new:
            if event.member in self._told:
                raise Violation(
                    self.name,
                    f"{event.member} starts with an empty disk, but has made promises under that name",
                )
            self._durable[event.member] = event.hard_state
        else:
            self._check_rises(event.member, event.hard_state, "found on its disk")
            last = self._disks.ended
            if event.last.index < last:
                raise Violation(
                    self.name,
                    f"{event.member}'s log ended at {last}, and after the start at {event.last.index}",
                )

    def _check_rises(self, member: MemberId, now: HardState, how: str) -> None:
        before = self._durable.get(member)
        self._durable[member] = now
        if before is None or before is now:
            return
        is_other_vote = now.term == before.term and before.vote is not None and now.vote != before.vote
        if now.term < before.term or is_other_vote or now.commit < before.commit:
            raise Violation(self.name, f"{member} {how} {now} after {before}")

    def _vote(self, event: Voted) -> None:
        term, candidate = self._told.get(event.member, (Term(0), None))
        if event.term < term or (event.term == term and candidate not in (None, event.candidate)):
            raise Violation(
                self.name,
                f"{event.member} votes for {event.candidate} in term {event.term}"
                f" after what it told in term {term}, with a vote for {candidate}",
            )
        self._told[event.member] = event.term, event.candidate
        durable = self._durable.get(event.member, HardState())
        if durable.term < event.term or (durable.term == event.term and durable.vote != event.candidate):
            raise Violation(
                self.name,
                f"{event.member} tells a vote for {event.candidate} in term {event.term},"
                f" but its disk has {durable}",
            )

    def _acknowledge(self, event: Acked) -> None:
        term, _ = self._told.get(event.member, (Term(0), None))
        if event.term > term:
            self._told[event.member] = event.term, None
        durable = self._durable.get(event.member, HardState())
        if durable.term < event.term:
            raise Violation(
                self.name, f"{event.member} answers in term {event.term}, but its disk has {durable}"
            )
        log = self._disks.of(event.member)
        if event.at_index > log.last:
            raise Violation(
                self.name,
                f"{event.member} acknowledges entry {event.at_index} to {event.leader},"
                f" but its disk ends at {log.last}",
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
