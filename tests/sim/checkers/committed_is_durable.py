"""What is committed is on the disks of a quorum at that moment, and no disk ever gives it up.

Proves: the first member that tells an index to be committed is right about it, under a membership
that can have been in force there (its log's newest up to the index, or a later one); and no
member's disk loses or replaces a committed entry that it held, other than by a snapshot of it.
Would not notice: the wrong one of two memberships, while both have the entry on a quorum; disks that
are replaced on purpose, which are lost together with what they held.
"""

from typing import ClassVar

from mesh.raft.model import EntryKind, Membership
from tests.sim.checkers.durable_log import DISK_EVENTS, followed, is_quorum
from tests.sim.trace import Committed, Compacted, Event, Facts, Start, Stored, Violation


class CommittedIsDurable:
    name: ClassVar[str] = "committed-is-durable"
    wants: ClassVar[tuple[type[Event], ...]] = (*DISK_EVENTS, Committed)

    def __init__(self, facts: Facts) -> None:
        self._disks = followed(facts).disks
        self._committed = followed(facts).committed

    def seen(self, event: Event) -> None:
        if type(event) is Committed:
            if self._committed.extend(event):
                self._check_quorum(event)
            return
        self._disks.seen(event)
        if type(event) is Stored:
            self._check_kept(event)
        elif type(event) is Compacted:
            self._check_snapshot(event, event.snapshot.last.index, event.snapshot.last.term)
        elif type(event) is Start:
            self._committed.started(event)

    def _check_quorum(self, event: Committed) -> None:
        last = event.entries[-1]
        log = self._disks.of(event.member)
        self._check_joint(event)
        holders = self._disks.holders(last.index, last.term)
        memberships = log.memberships_for(last.index)
        if not any(is_quorum(each, holders.__contains__) for each in memberships):
            voters = " or ".join(str(each.all_voters) for each in memberships)
            raise Violation(
                self.name,
                f"{event.member} takes entry {last.index} of term {last.term} for committed,"
                f" but only {holders} hold it durably, of the voters {voters}",
            )

    def _check_joint(self, event: Committed) -> None:
        """A joint membership is committed by both halves; only what follows may count the new one alone."""
        for entry in event.entries:
            if entry.kind is EntryKind.MEMBERSHIP:
                membership = Membership.decode(entry.data)
                holders = self._disks.holders(entry.index, entry.term)
                if membership.is_joint and not is_quorum(membership, holders.__contains__):
                    raise Violation(
                        self.name,
                        f"{event.member} takes the joint membership {entry.index} for committed, but only"
                        f" {holders} hold it durably, of {membership.voters} and {membership.outgoing}",
                    )

    def _check_kept(self, event: Stored) -> None:
        """A committed entry that was there is still there after this write."""
        if event.snapshot is not None:
            self._check_snapshot(event, event.snapshot.last.index, event.snapshot.last.term)
        if not self._disks.replaced:
            return
        first = event.entries[0].index
        for place, held in enumerate(self._disks.replaced[: max(0, len(self._committed) + 1 - first)]):
            index = first + place
            new = event.entries[place].term if place < len(event.entries) else None
            term = self._committed.term_at(index)
            if term is not None and held == term != new:
                raise Violation(
                    self.name,
                    f"{event.member} gave up committed entry {index} of term {term}"
                    + (f" for one of term {new}" if new else " by storing earlier ones"),
                )

    def _check_snapshot(self, event: Stored | Compacted, index: int, term: int) -> None:
        if index > len(self._committed) or self._committed.term_at(index) not in (term, None):
            raise Violation(
                self.name,
                f"{event.member} has a snapshot up to {index} of term {term}, which is not committed",
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
