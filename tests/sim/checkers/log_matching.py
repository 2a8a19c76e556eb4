"""Log matching: equal index and term mean equal entries, and equal logs before them (paper §5.3).

Each entry that becomes durable anywhere is compared with the first of its index and term: what it
holds, and the term of the entry before it. By induction the logs before it are equal.
Would not notice: a difference in memory that never reaches a disk.
"""

from typing import ClassVar

from mesh.raft.model import Entry, EntryKind
from tests.sim.checkers.durable_log import DISK_EVENTS, followed
from tests.sim.trace import Event, Facts, Stored, Violation


class LogMatching:
    name: ClassVar[str] = "log-matching"
    wants: ClassVar[tuple[type[Event], ...]] = DISK_EVENTS

    def __init__(self, facts: Facts) -> None:
        self._disks = followed(facts).disks
        #: (index, term) → the entry, and the term before it where that is known.
        self._known: dict[tuple[int, int], tuple[Entry, int | None]] = {}

    def seen(self, event: Event) -> None:
        self._disks.seen(event)
        if type(event) is not Stored or not event.entries:
            return
        first = event.entries[0].index
        last = event.snapshot.last.index if event.snapshot else self._disks.ended
        if first > last + 1:
            raise Violation(self.name, f"{event.member} stored entry {first}, but its log ends at {last}")
        before = self._disks.of(event.member).term_at(first - 1)
        for entry in event.entries:
            self._compare(event, entry, before)
            before = entry.term

    def _compare(self, event: Stored, entry: Entry, before: int | None) -> None:
        known = self._known.get((entry.index, entry.term))
        if known is None:
            self._known[entry.index, entry.term] = entry, before
            return
        first, first_before = known
        if first is not entry and not is_same(first, entry):
            raise Violation(
                self.name,
                f"{event.member} stored another entry of index {entry.index} and term {entry.term}:"
                f" {entry.kind.name} {entry.data[:60]!r}, not {first.kind.name} {first.data[:60]!r}",
            )
        if before is not None and first_before is not None and before != first_before:
            raise Violation(
                self.name,
                f"before entry {entry.index} of term {entry.term}, {event.member} holds one of term {before},"
                f" another member one of term {first_before}",
            )
        if not first.data and entry.data:  # a witness stored it first, without what it says
            self._known[entry.index, entry.term] = entry, first_before if before is None else before

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""


def is_same(one: Entry, other: Entry) -> bool:
    """Equal but for the data of a command, which a witness does not hold."""
    if one.term != other.term or one.kind != other.kind:
        return False
    return one.data == other.data or (one.kind is EntryKind.COMMAND and not (one.data and other.data))
