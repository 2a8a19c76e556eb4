"""A snapshot says who votes as the committed log does at its index: it is all that is left of that log.

Proves: the membership in each snapshot, a host's own and a leader's, is that of the newest membership entry
committed up to its index. Would not notice: a wrong membership in a snapshot of what nobody had told to be
committed (`committed_is_durable`).
"""

from bisect import bisect_right
from typing import ClassVar

from mesh.raft.model import EntryKind, Membership, SnapshotMeta
from tests.sim.checkers.durable_log import followed
from tests.sim.trace import Committed, Compacted, Event, Facts, Start, Stored, Violation


class SnapshotsOfMembers:
    name: ClassVar[str] = "snapshots-of-members"
    wants: ClassVar[tuple[type[Event], ...]] = (Start, Committed, Stored, Compacted)

    def __init__(self, facts: Facts) -> None:
        self._committed = followed(facts).committed
        #: Indexes of committed membership entries, and what they say; the founders' is the first.
        self._indexes = [0]
        self._memberships = [Membership.of(facts.founders)]

    def seen(self, event: Event) -> None:
        if type(event) is Committed:
            for entry in self._committed.extend(event):
                if entry.kind is EntryKind.MEMBERSHIP:
                    self._indexes.append(entry.index)
                    self._memberships.append(Membership.decode(entry.data))
        elif type(event) is Compacted:
            self._check(event, event.snapshot)
        elif type(event) is Stored:
            if event.snapshot is not None:
                self._check(event, event.snapshot)
        elif type(event) is Start:
            self._committed.started(event)

    def _check(self, event: Stored | Compacted, snapshot: SnapshotMeta) -> None:
        place = bisect_right(self._indexes, snapshot.last.index) - 1
        if snapshot.membership != self._memberships[place]:
            raise Violation(
                self.name,
                f"{event.member} has a snapshot up to {snapshot.last.index} with {snapshot.membership},"
                f" but entry {self._indexes[place]} says {self._memberships[place]}",
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
