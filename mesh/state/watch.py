"""The latest changes, kept for watchers, so that they see every change once and in order.

Bound: `limits.CHANGES_KEPT_MAX` changes and `limits.CHANGES_KEPT_BYTES_MAX`
bytes of document values; the oldest go first, whole indexes at a time.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.errors import OutOfRange
from mesh.ids import Index
from mesh.limits import CHANGES_KEPT_BYTES_MAX, CHANGES_KEPT_MAX
from mesh.state.model import Change, Document, Event


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What one entry changed.

    Every version of a document and every event that it made is here: a watch
    that follows the change sets skips none, whatever the tables still keep.
    """

    index: Index
    changes: tuple[Change, ...]
    documents: tuple[Document, ...] = ()
    events: tuple[Event, ...] = ()


class KeptChanges:
    """A window over the changes of this host, from `after` (exclusive) to the last applied."""

    def __init__(self) -> None:
        self.after = Index(0)
        self._kept: deque[ChangeSet] = deque()
        self._changes = 0
        self._bytes = 0

    def restart(self, applied: Index) -> None:
        """Forgets everything: the state is now that of a snapshot at `applied`."""
        self.after = applied
        self._kept.clear()
        self._changes = self._bytes = 0

    def append(self, entry: ChangeSet) -> None:
        self._kept.append(entry)
        self._changes += len(entry.changes)
        if entry.documents:
            self._bytes += _bytes(entry)
        while self._changes > CHANGES_KEPT_MAX or self._bytes > CHANGES_KEPT_BYTES_MAX:
            oldest = self._kept.popleft()
            self.after = oldest.index
            self._changes -= len(oldest.changes)
            self._bytes -= _bytes(oldest)

    def since(self, revision: Index) -> Sequence[ChangeSet]:
        """Every change after a revision, oldest first.

        Fails: `OutOfRange` when some are no longer kept: read the present state
        and watch from its revision.
        """
        if revision < self.after:
            raise OutOfRange(
                f"changes after revision {revision} are no longer kept (kept: after {self.after});"
                " read the present state and watch from its revision",
                revision=revision,
                kept_after=self.after,
            )
        found: deque[ChangeSet] = deque()
        for entry in reversed(self._kept):
            if entry.index <= revision:
                break
            found.appendleft(entry)
        return tuple(found)


def _bytes(entry: ChangeSet) -> int:
    return sum(len(document.value) for document in entry.documents)
