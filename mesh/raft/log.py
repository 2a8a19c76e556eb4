"""The part of the replicated log that is kept in memory.

```
  ... compacted ... | origin | entries ................................ last
                        ^ applied ≤ commit        ^ durable (stable)
```

Invariant: origin ≤ commit ≤ last and applied ≤ commit; terms never fall along
the log; `stable` counts only entries that are on disk exactly as they stand here.
"""

from bisect import bisect_right
from collections.abc import Sequence

from mesh.errors import InvariantBroken
from mesh.ids import Index, Term
from mesh.raft.history import MembershipHistory, decode_entry
from mesh.raft.model import NOWHERE, Entry, EntryId, Membership, Restored, Snapshot

#: What an entry costs besides its data, for all bounds in bytes.
ENTRY_OVERHEAD_BYTES = 32


def entry_bytes(entry: Entry) -> int:
    """What *entry* counts for in a bound."""
    return ENTRY_OVERHEAD_BYTES + len(entry.data)


class RaftLog:
    """Entries after `origin`, the pointers into them and the newest snapshot.

    Fails: every method raises `InvariantBroken` rather than change a committed
    entry or move the commit index back.
    """

    def __init__(self, restored: Restored) -> None:
        self.snapshot: Snapshot | None = restored.snapshot
        meta = restored.snapshot.meta if restored.snapshot else None
        #: The entry before the first one kept; its term is still known.
        self.origin: EntryId = meta.last if meta else NOWHERE
        self.history = MembershipHistory(self.origin.index, meta.membership if meta else Membership())
        self._entries: list[Entry] = []
        self._take_restored(restored.entries)
        #: Last entry known to be durable as it stands.
        self.stable: Index = self.last_index
        self.commit: Index = max(restored.hard_state.commit, self.origin.index)
        self.applied: Index = self.origin.index
        #: A snapshot that was received and is not yet durable.
        self.installing: Snapshot | None = None
        if self.commit > self.last_index:
            raise InvariantBroken(f"restored commit {self.commit} is beyond the log's end {self.last_index}")

    def _take_restored(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.index != self.last_index + 1:
                raise InvariantBroken(f"restored log has {entry.index} after {self.last_index}")
            self.append(entry, decode_entry(entry))

    # ---- looking ------------------------------------------------------------------

    @property
    def first_index(self) -> Index:
        return Index(self.origin.index + 1)

    @property
    def last_index(self) -> Index:
        return Index(self.origin.index + len(self._entries))

    @property
    def last(self) -> EntryId:
        return self._entries[-1].id if self._entries else self.origin

    @property
    def membership(self) -> Membership:
        return self.history.current

    def term_at(self, index: Index) -> Term | None:
        """The term of the entry at *index*; None when it is compacted or not there yet."""
        position = index - self.origin.index - 1
        if 0 <= position < len(self._entries):
            return self._entries[position].term
        return self.origin.term if position == -1 else None

    def is_up_to_date(self, other: EntryId) -> bool:
        """Whether a log that ends with *other* holds at least what this one may have committed.

        Source: paper §5.4.1, first by term, then by index.
        """
        last = self.last
        return (other.term, other.index) >= (last.term, last.index)

    def nearest(self, index: Index, term: Term) -> Index:
        """The last index ≤ *index* whose term is ≤ *term*; where two logs may still agree.

        May answer an index below `origin` (then only a snapshot helps).
        """
        index = min(index, self.last_index)
        if index < self.origin.index:
            return index
        count = index - self.origin.index
        found = bisect_right(self._entries, term, 0, count, key=lambda entry: entry.term)
        if found == 0 and self.origin.term > term:
            return Index(self.origin.index - 1)
        return Index(self.origin.index + found)

    def slice(self, start: Index, end: Index, bytes_max: int) -> list[Entry]:
        """Entries [start, end], cut at *bytes_max* but never empty when there is one."""
        low = start - self.origin.index - 1
        high = end - self.origin.index
        room = bytes_max
        for position in range(low, high):
            room -= ENTRY_OVERHEAD_BYTES + len(self._entries[position].data)
            if room < 0:
                high = max(position, low + 1)
                break
        return self._entries[low:high]

    # ---- appending ----------------------------------------------------------------

    def append(self, entry: Entry, membership: Membership | None = None) -> None:
        """Add *entry* at the end; *membership* is what it says, if it is one."""
        self._entries.append(entry)
        if membership is not None:
            self.history.push(entry.index, membership)

    def merge(
        self,
        previous: EntryId,
        entries: Sequence[Entry],
        memberships: Sequence[tuple[Index, Membership]],
    ) -> Index | None:
        """Take over a leader's entries; the last index now known equal, or None if *previous* differs.

        Only a real conflict truncates: a late, shorter append changes nothing (paper §5.3).
        """
        if previous.index >= self.origin.index:
            here = self.term_at(previous.index)
            if here != previous.term:
                if previous.index <= self.commit:
                    raise InvariantBroken(
                        f"committed entry {previous.index} has term {here} here,"
                        f" term {previous.term} at the leader"
                    )
                return None
        fresh = entries
        if previous.index != self.last_index:
            fresh = entries[self._count_known(entries) :]
            if fresh and fresh[0].index <= self.last_index:
                self._truncate(fresh[0].index)
        if fresh:
            self._entries.extend(fresh)
            for index, membership in memberships:
                if index >= fresh[0].index:
                    self.history.push(index, membership)
        return max(Index(previous.index + len(entries)), self.commit)

    def _count_known(self, entries: Sequence[Entry]) -> int:
        for count, entry in enumerate(entries):
            if entry.index >= self.origin.index and self.term_at(entry.index) != entry.term:
                return count
        return len(entries)

    def _truncate(self, index: Index) -> None:
        if index <= self.commit:
            raise InvariantBroken(f"entry {index} would be replaced, but {self.commit} is committed")
        del self._entries[index - self.origin.index - 1 :]
        self.stable = min(self.stable, Index(index - 1))
        self.history.truncate(index)

    # ---- becoming durable, committed, applied ---------------------------------------

    def unstable(self) -> list[Entry]:
        """What the host still has to store."""
        return self._entries[self.stable - self.origin.index :]

    def uncommitted(self) -> list[Entry]:
        """What no quorum is known to hold."""
        return self._entries[self.commit - self.origin.index :]

    def mark_durable(self, last: EntryId) -> None:
        """The entries up to *last* are on disk.

        A completion for entries that were replaced meanwhile changes nothing: the
        term that was stored is compared with the term that stands here now. Neither
        does one that is older than a snapshot being installed, which will wipe them.
        """
        if self.installing is not None:
            return
        if last.index > self.stable and self.term_at(last.index) == last.term:
            self.stable = last.index

    def commit_to(self, index: Index) -> bool:
        """Raise the commit index; False when it stood there already."""
        if index <= self.commit:
            return False
        if index > self.last_index:
            raise InvariantBroken(
                f"the leader knows {index} as durable here, but the log ends at"
                f" {self.last_index}: this member has lost part of its log"
            )
        self.commit = index
        return True

    @property
    def is_applicable(self) -> bool:
        """Some entry is committed and durable here, and not yet applied."""
        applied = self.applied
        return applied < self.commit and applied < self.stable and self.installing is None

    def applicable(self, bytes_max: int) -> list[Entry]:
        """Committed, locally durable entries that are not yet applied."""
        if not self.is_applicable:
            return []
        return self.slice(Index(self.applied + 1), min(self.commit, self.stable), bytes_max)

    def mark_applied(self, index: Index) -> None:
        self.applied = max(self.applied, index)

    # ---- snapshots ------------------------------------------------------------------

    def install(self, snapshot: Snapshot) -> None:
        """Replace the whole log by a verified snapshot from the leader."""
        last = snapshot.meta.last
        if last.index <= self.commit:
            raise InvariantBroken(f"snapshot {last.index} is behind commit {self.commit}")
        self.snapshot = self.installing = snapshot
        self.origin = last
        self._entries = []
        self.history = MembershipHistory(last.index, snapshot.meta.membership)
        self.stable = self.commit = last.index

    def mark_installed(self, snapshot: Snapshot) -> None:
        """*snapshot* is durable and in the state machine."""
        if self.installing is snapshot:
            self.installing = None
        self.mark_applied(snapshot.meta.last.index)

    def compact(self, snapshot: Snapshot, trailing: int) -> None:
        """Drop entries that *snapshot* covers, but for the *trailing* newest of them."""
        self.snapshot = snapshot
        index = Index(snapshot.meta.last.index - trailing)
        term = self.term_at(index)
        if index <= self.origin.index or term is None:
            return
        del self._entries[: index - self.origin.index]
        self.origin = EntryId(term, index)
        self.history.forget_before(index)
