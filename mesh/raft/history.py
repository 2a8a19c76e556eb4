"""Which membership holds, entry by entry.

A membership counts from the moment its entry is appended, committed or not
(paper §6); when that entry is truncated, the one before it counts again.
"""

from mesh.errors import InvariantBroken
from mesh.ids import Index, MemberId
from mesh.raft.model import Entry, EntryKind, Membership


class MembershipHistory:
    """A stack of memberships by the index of their entry.

    Invariant: never empty; indexes rise; only the lowest may be older than the
    first entry of the log.
    """

    def __init__(self, index: Index, membership: Membership) -> None:
        self._stack = [(index, membership)]

    @property
    def current(self) -> Membership:
        return self._stack[-1][1]

    @property
    def current_index(self) -> Index:
        """Where the current membership was appended."""
        return self._stack[-1][0]

    def push(self, index: Index, membership: Membership) -> None:
        self._stack.append((index, membership))

    def truncate(self, index: Index) -> None:
        """Forget every membership from *index* on."""
        while self._stack[-1][0] >= index:
            self._stack.pop()

    def at(self, index: Index) -> Membership:
        """The membership that held at *index*."""
        for start, membership in reversed(self._stack):
            if start <= index:
                return membership
        raise InvariantBroken(f"the membership at index {index} was forgotten")

    def is_still_voter(self, member: MemberId, commit: Index) -> bool:
        """Whether *member* votes in the current membership or one that may yet count again.

        Until the membership that removes it is committed, a former leader may be
        the only one whose log is long enough to lead (thesis §4.2.2).
        """
        for index, membership in reversed(self._stack):
            if membership.is_voter(member):
                return True
            if index <= commit:
                break
        return False

    def forget_before(self, index: Index) -> None:
        """Keep what `at(index)` and later indexes need."""
        while len(self._stack) > 1 and self._stack[1][0] <= index:
            del self._stack[0]


def decode_entry(entry: Entry) -> Membership | None:
    """The membership in *entry*, None for other kinds. Fails: `ValueError`."""
    return Membership.decode(entry.data) if entry.kind is EntryKind.MEMBERSHIP else None
