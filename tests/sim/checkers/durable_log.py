"""What each member's disk holds, followed from what was told to be durable.

Not a checker: several of them ask it. It believes the disk, not the core: an
entry counts from `Stored` on, and a new disk holds nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mesh.ids import MemberId
from mesh.raft.model import Entry, EntryKind, Membership
from tests.sim.trace import Committed, Compacted, Facts, Start, Stored

DISK_EVENTS = (Start, Stored, Compacted)


class DurableLog:
    """One member's log on its disk: terms by index, and the memberships in it.

    Entries up to `base` are covered by a snapshot.
    """

    __slots__ = ("base", "base_term", "memberships", "terms")

    def __init__(self) -> None:
        self.base, self.base_term = 0, 0
        self.terms: list[int | None] = []
        #: (index, membership), in order.
        self.memberships: list[tuple[int, Membership]] = []

    @property
    def last(self) -> int:
        return self.base + len(self.terms)

    def term_at(self, index: int) -> int | None:
        """None when it is not there, or covered by a snapshot."""
        if index == self.base:
            return self.base_term
        place = index - self.base - 1
        return self.terms[place] if 0 <= place < len(self.terms) else None

    def holds(self, index: int, term: int) -> bool:
        """The entry is there, or a snapshot that covers it."""
        place = index - self.base - 1
        if place < 0:
            return place < -1 or self.base_term == term
        return place < len(self.terms) and self.terms[place] in (term, None)

    def begin(self, event: Start, founding: Membership) -> None:
        """A life begins with what its disk gave it; what it holds without having told is not known."""
        first, last = event.first_index, event.last
        if event.is_new:
            self.__init__()  # type: ignore[misc]  # everything is as on the first day
            self.terms = [last.term] if last.index == first else [None] * (last.index - first + 1)
            self.memberships = [(last.index, founding)] if self.terms else []
        if first - 1 > self.base:
            self.cover(first - 1, self.term_at(first - 1) or 0, None)
        del self.terms[max(0, last.index - self.base) :]
        self.terms += [None] * (last.index - self.last)

    def store(self, event: Stored) -> None:
        """A Ready is durable: a snapshot replaces everything, entries what follows."""
        if event.snapshot is not None:
            self.terms = []
            self.cover(event.snapshot.last.index, event.snapshot.last.term, event.snapshot.membership)
        if event.entries:
            self._append(event.entries)

    def _append(self, entries: tuple[Entry, ...]) -> None:
        first = entries[0].index
        del self.terms[max(0, first - self.base - 1) :]
        while self.memberships and self.memberships[-1][0] >= first:
            self.memberships.pop()
        for entry in entries:
            self.terms.append(entry.term)
            if entry.kind is EntryKind.MEMBERSHIP:
                self.memberships.append((entry.index, Membership.decode(entry.data)))

    def cover(self, index: int, term: int, membership: Membership | None) -> None:
        """A snapshot stands for everything up to *index*."""
        if index <= self.base and self.terms:
            return
        kept = [each for each in self.memberships if each[0] > index]
        before = [each for each in self.memberships if each[0] <= index][-1:]
        self.memberships = ([(index, membership)] if membership else before) + kept
        del self.terms[: index - self.base]
        self.base, self.base_term = index, term

    def memberships_for(self, index: int) -> list[Membership]:
        """Those under which *index* can have been counted: the newest up to it, and those after it.

        One that leaves a joint state counts before it is durable; by then the joint one is
        committed, so its new voters alone count too.
        """
        place = max((n for n, (at, _) in enumerate(self.memberships) if at <= index), default=0)
        found = [membership for _, membership in self.memberships[place:]]
        return found + [Membership.of(each.voters) for each in found if each.outgoing]


class Disks:
    """All members' disks. Order: told of `DISK_EVENTS`, of each before it is looked at."""

    def __init__(self, facts: Facts) -> None:
        self._founding = Membership.of(facts.founders)
        self.logs: dict[MemberId, DurableLog] = {}
        self._latest: object = None
        #: Where the log ended on the disk of the latest event, before that.
        self.ended: int = 0
        #: The terms that were there from the first of the entries on that the latest event stored.
        self.replaced: Sequence[int | None] = ()

    def seen(self, event: object) -> None:
        """Follow one event of a disk; the same once more changes nothing."""
        if event is self._latest:
            return
        self._latest = event
        if type(event) is Stored:
            log = self.of(event.member)
            self.ended, self.replaced = log.last, ()
            if event.entries and event.entries[0].index <= log.last:
                self.replaced = [log.term_at(each) for each in range(event.entries[0].index, log.last + 1)]
            log.store(event)
        elif type(event) is Compacted:
            last = event.snapshot.last
            self.of(event.member).cover(last.index, last.term, event.snapshot.membership)
        elif type(event) is Start:
            log = self.of(event.member)
            self.ended = log.last
            log.begin(event, self._founding)

    def of(self, member: MemberId) -> DurableLog:
        log = self.logs.get(member)
        if log is None:
            log = self.logs[member] = DurableLog()
        return log

    def holders(self, index: int, term: int) -> list[MemberId]:
        """Who holds an entry durably, sorted."""
        return sorted(member for member, log in self.logs.items() if log.holds(index, term))


def is_quorum(membership: Membership, has: Callable[[MemberId], bool]) -> bool:
    """A majority of the voters, and of the outgoing ones in a joint membership."""
    return _is_majority(membership.voters, has) and (
        not membership.outgoing or _is_majority(membership.outgoing, has)
    )


def _is_majority(voters: Iterable[MemberId], has: Callable[[MemberId], bool]) -> bool:
    every = list(voters)
    return 2 * sum(map(has, every)) > len(every)


class CommittedLog:
    """What was told to be committed by anybody, each index once; the first told entry counts."""

    def __init__(self) -> None:
        #: At [index - 1].
        self.entries: list[Entry | None] = []
        self._latest: Committed | None = None
        self._new: tuple[Entry, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def started(self, event: Start) -> None:
        """A founder's disk holds what everybody begins with."""
        if event.is_new and event.last.index == 1 and not self.entries:
            self.entries.append(None)

    def extend(self, event: Committed) -> tuple[Entry, ...]:
        """The entries that nobody had told before; the same again when asked again."""
        if event is self._latest:
            return self._new
        self._latest, self._new = event, ()
        known, entries = len(self.entries), event.entries
        if entries[-1].index > known:
            self._new = new = entries[max(0, known + 1 - entries[0].index) :]
            self.entries += [None] * (new[0].index - known - 1)  # a founder's first entry is told by nobody
            self.entries += new
        return self._new

    def term_at(self, index: int) -> int | None:
        entry = self.entries[index - 1]
        return entry.term if entry else None


@dataclass(slots=True)
class Followed:
    """What several checkers look at, followed once in a run for all of them."""

    disks: Disks
    committed: CommittedLog


def followed(facts: Facts) -> Followed:
    """What is followed in the run of these facts; each checker still tells it all that it is told."""
    kept: Followed | None = facts.followed.get(Followed)
    if kept is None:
        kept = facts.followed[Followed] = Followed(Disks(facts), CommittedLog())
    return kept
