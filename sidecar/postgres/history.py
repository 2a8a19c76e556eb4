"""Which timeline descends from which, and where a former primary went its own way.

A position is a timeline and an LSN. The line of a history is the WAL that leads
to it: each ancestor up to where it was left, then the timeline itself. Positions
may be compared only along one line.

What is recorded and told of a history is cut to its newest `TIMELINES_MAX`. Lines are compared from
the first timeline that both remember on: what was before is taken to be the same if that one is.

Two promotions that did not know of each other would take the same timeline
number, and if both left at the same LSN no history tells them apart. So each
gets a number of its own (`timeline_above`). Where a hand promoted, a former primary
is still never taken to be on the line of another of the same number.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from mesh.ids import FencingTerm
from mesh.limits import TIMELINES_MAX
from sidecar.postgres.model import (
    NO_LSN,
    NO_TIMELINE,
    Ancestor,
    LocalData,
    Lsn,
    Timeline,
    TimelineHistory,
    parse_lsn,
)

_Line: TypeAlias = list[tuple[Timeline, Lsn | None]]
_LINE: Final = re.compile(r"(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)(?:\s.*)?")


def parse_history(timeline: Timeline, text: str) -> TimelineHistory:
    """What a .history file says; timeline 1 has none and an empty text.

    Fails: `ValueError` where a line is malformed or out of order.
    """
    ancestors: list[Ancestor] = []
    for line in text.splitlines():
        content = line.partition("#")[0].strip()
        if not content:
            continue
        found = _LINE.fullmatch(content)
        if found is None:
            raise ValueError(f"{line!r} is no line of a history file; one looks like '1 0/3000148 reason'")
        ancestors.append(Ancestor(Timeline(int(found[1])), parse_lsn(found[2])))
    numbers = [ancestor.timeline for ancestor in ancestors] + [timeline]
    ends = [ancestor.end for ancestor in ancestors]
    if numbers != sorted(set(numbers)) or ends != sorted(ends):
        raise ValueError(f"the history of timeline {timeline} is out of order: {text!r}")
    return TimelineHistory(timeline, tuple(ancestors))


# ---- lines ----------------------------------------------------------------------


def end_on(history: TimelineHistory, timeline: Timeline) -> Lsn | None:
    """Where the line of `history` left `timeline`; None: it is still on it, or never was."""
    return next((each.end for each in history.ancestors if each.timeline == timeline), None)


def descends_from(history: TimelineHistory, other: TimelineHistory) -> bool:
    """The line of `history` goes through the timeline of `other`, reached by the same ancestors."""
    mine, theirs = _lines(history, other)
    last = len(theirs) - 1
    return (
        0 <= last < len(mine) and mine[:last] == theirs[:last] and mine[last][0] == theirs[last][0]
    )  # a timeline's number is its last one's, so of the same number all ancestors are the same


def common_end(one: TimelineHistory, other: TimelineHistory) -> Lsn | None:
    """Up to where the two lines are the same; None: as far as they go."""
    shared = NO_LSN
    ours, others = _lines(one, other)
    if not ours or not others:
        return shared
    for mine, theirs in zip(ours, others, strict=False):
        if mine == theirs:
            shared = mine[1] or shared
            continue
        if mine[0] != theirs[0]:
            return shared
        return min(end for end in (mine[1], theirs[1]) if end is not None)
    return None


def _lines(one: TimelineHistory, other: TimelineHistory) -> tuple[_Line, _Line]:
    """Both, from where the shorter memory begins; empty: it begins after all that the other was on."""
    first = max(_first_known(one), _first_known(other))
    return _line(one, first), _line(other, first)


def _first_known(history: TimelineHistory) -> Timeline:
    """A history that is as long as is recorded at most may lack older ones."""
    is_cut = len(history.ancestors) >= TIMELINES_MAX
    return history.ancestors[0].timeline if is_cut else NO_TIMELINE


def _line(history: TimelineHistory, first: Timeline) -> _Line:
    line: _Line = [(each.timeline, each.end) for each in history.ancestors if each.timeline >= first]
    return [*line, (history.timeline, None)] if history.timeline >= first else line


# ---- positions ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Position:
    """How far a server is, and by which line."""

    history: TimelineHistory
    flushed: Lsn


def has(one: Position, other: Position) -> bool:
    """`one` has all WAL that leads to `other`."""
    shared = common_end(one.history, other.history)
    return other.flushed <= one.flushed and (shared is None or other.flushed <= shared)


def further(one: Position, other: Position) -> Position | None:
    """The one that a promotion should rather start from; None: they went apart and neither is older.

    A later timeline wins over its ancestor, however far that went on, once all
    that both share is there. A larger number alone proves nothing: before a
    server has reached the point where its timeline begins, only LSNs count.
    """
    for later, earlier in ((one, other), (other, one)):
        left = end_on(later.history, earlier.history.timeline)
        if left is not None and descends_from(later.history, earlier.history) and later.flushed >= left:
            return later
    if has(one, other):
        return one
    return other if has(other, one) else None


def timeline_above(fencing_term: FencingTerm, base: int = 0) -> Timeline:
    """The number that a promotion in this primaryship must pass, to get the one that is its own.

    PostgreSQL takes the next number it knows nothing of; a promotion elsewhere
    that nobody has recorded may have taken the same. Fencing terms are given
    once, so a timeline is numbered by the primaryship that began it. `base` is the
    bootstrap's timeline less its fencing term, where the data came with a past
    (`DatabaseRecord.timeline_base`).
    """
    return Timeline(base + fencing_term - 1)


# ---- what a host must do to follow ----------------------------------------------


class Return(Enum):
    """How a data directory comes to follow a primary."""

    #: It is on the primary's line: a standby needs nothing but the address.
    AS_IT_IS = "as-it-is"
    REWIND = "rewind"
    CLONE = "clone"


def can_follow(position: Position, primary: TimelineHistory) -> bool:
    """All its WAL is on the line of the primary, and so is the timeline it is on."""
    left = end_on(primary, position.history.timeline)
    return descends_from(primary, position.history) and (left is None or position.flushed <= left)


def way_back(data: LocalData, primary: TimelineHistory, flushed: Lsn | None = None) -> Return:
    """How this data comes to follow the primary; `flushed` is given where the server runs.

    A former primary may hold WAL that nobody else has. Unless it was shut down
    cleanly, its end is not known, and a rewind finds out. Another host that is
    primary on the very timeline which this one was primary on has taken the
    number a second time: histories cannot tell such twins apart, only a clone is safe.
    """
    if data.damaged or data.history is None:
        return Return.CLONE
    if data.was_primary and data.history.timeline >= primary.timeline:
        return Return.CLONE if data.history.timeline == primary.timeline else _rewound(data)
    end_known = flushed is not None or data.is_clean or not data.was_primary
    position = Position(data.history, data.end if flushed is None else flushed)
    if end_known and can_follow(position, primary):
        return Return.AS_IT_IS
    return _rewound(data)


def _rewound(data: LocalData) -> Return:
    return Return.CLONE if data.rewind_refused else Return.REWIND
