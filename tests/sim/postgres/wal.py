"""Write-ahead logs as lists of records, and the data directories that hold them.

A record knows its timeline and where it ends; that of a commit has the commit's number, which no other has.
Two logs are the same up to a position if their records are equal there, whatever their histories say.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple

from sidecar.postgres.model import NO_LSN, Ancestor, Lsn, Timeline, TimelineHistory

FIRST: Final = Lsn(0x1000028)
FIRST_TIMELINE: Final = Timeline(1)
#: Of anything that is no commit.
NO_NUMBER: Final = 0
_END: Final = attrgetter("end")


class Record(NamedTuple):
    """One entry of the log."""

    timeline: Timeline
    end: Lsn
    number: int


def history_of(history: TimelineHistory, timeline: Timeline) -> TimelineHistory:
    """Of an ancestor on this history, or of itself."""
    return TimelineHistory(timeline, tuple(each for each in history.ancestors if each.timeline < timeline))


@dataclass(slots=True)
class Data:
    """One data directory.

    Invariant: the first `durable` records survive a loss of power; what follows survives the end of the
    process alone. `numbers` are those of durable commits.
    """

    system_identifier: str
    history: TimelineHistory
    wal: list[Record] = field(default_factory=list)
    durable: int = 0
    #: What the control file says: it learns of a promotion by the next checkpoint.
    control_timeline: Timeline = FIRST_TIMELINE
    #: Timelines of which there is a .history file.
    known: set[Timeline] = field(default_factory=set)
    #: Files of these say nothing: they only take the number.
    taken: set[Timeline] = field(default_factory=set)
    has_standby_mark: bool = False
    is_clean: bool = False
    #: A standby lets nobody in before it has WAL up to here: its pages are as new.
    consistent_at: Lsn = NO_LSN
    numbers: set[int] = field(default_factory=set)

    @property
    def end(self) -> Lsn:
        """Of everything written."""
        return self.wal[-1].end if self.wal else NO_LSN

    @property
    def flushed(self) -> Lsn:
        """Of what survives a loss of power."""
        return self.wal[self.durable - 1].end if self.durable else NO_LSN

    def write(self, number: int, length: int) -> Record:
        """One more record of the present timeline, not flushed yet."""
        record = Record(self.history.timeline, Lsn((self.end or FIRST) + length), number)
        self.wal.append(record)
        return record

    def take(self, records: Sequence[Record], history: TimelineHistory) -> None:
        """Received, not flushed yet; *history* of whoever sent them."""
        self.wal.extend(records)
        newest = self.wal[-1].timeline
        if newest != self.history.timeline:
            self.history = history_of(history, newest)

    def flush(self, count: int) -> None:
        """The first *count* records are safe now."""
        for record in self.wal[self.durable : count]:
            if record.number:
                self.numbers.add(record.number)
        self.durable = max(self.durable, count)

    def lose(self) -> None:
        """The machine lost power."""
        del self.wal[self.durable :]
        newest = self.wal[-1].timeline if self.wal else self.history.timeline
        if newest != self.history.timeline:
            self.history = history_of(self.history, newest)

    def branch(self, number: Timeline) -> None:
        """Leave the present timeline for a new one, at the end of the log."""
        ancestors = (*self.history.ancestors, Ancestor(self.history.timeline, self.end))
        self.history = TimelineHistory(number, ancestors)
        self.known.add(number)
        self.taken.discard(number)

    def next_timeline(self) -> Timeline:
        """As PostgreSQL takes it: the next one of which it has no file."""
        number = self.newest_known() + 1
        return Timeline(number)

    def newest_known(self) -> Timeline:
        """The last in the row of files from the present timeline on."""
        number = self.history.timeline
        while number + 1 in self.known or number + 1 in self.taken:
            number = Timeline(number + 1)
        return number

    def take_back_left_out(self) -> None:
        """As `engine.local_data` does before it is started as a standby."""
        newest = max({*self.known, self.history.timeline})
        self.taken = {each for each in self.taken if each < newest}

    def fetch_histories(self, primary: "Data") -> None:
        """As a walreceiver does: every file from its own timeline to the primary's, whatever is in it."""
        numbers = range(self.history.timeline + 1, primary.history.timeline + 1)
        self.known |= primary.known & set(numbers)
        self.taken |= (primary.taken & set(numbers)) - self.known

    def copy(self) -> "Data":
        """As a base backup with all WAL that is durable: a standby's."""
        return Data(
            self.system_identifier,
            self.history,
            self.wal[: self.durable],
            self.durable,
            self.control_timeline,
            set(self.known),
            set(self.taken),
            has_standby_mark=True,
            numbers=set(self.numbers),
        )

    def wind_back(self, to: Lsn, source: "Data") -> int:
        """Become what *source* has, keeping what both have up to *to*; how many records that took away."""
        kept = bisect_right(self.wal, to, key=_END)
        lost = len(self.wal) - kept
        other = source.copy()
        self.history, self.control_timeline = other.history, other.control_timeline
        self.wal, self.durable, self.numbers = other.wal, other.durable, other.numbers
        self.known |= other.known
        self.taken -= other.known
        self.has_standby_mark, self.is_clean = True, False
        self.consistent_at = self.end
        return lost

    def lack(self, count: int) -> None:
        """The last records of the present timeline, but for its first, are still to be received."""
        first = next(number for number, each in enumerate(self.wal) if each.timeline == self.history.timeline)
        for record in self.wal[max(first + 1, len(self.wal) - count) :]:
            self.numbers.discard(record.number)
        del self.wal[max(first + 1, len(self.wal) - count) :]
        self.durable = len(self.wal)

    def is_prefix_of(self, other: "Data") -> bool:
        """Every record is also there: cheap, for the ends are compared first."""
        count = len(self.wal)
        return count <= len(other.wal) and (not count or self.wal[-1] == other.wal[count - 1])
