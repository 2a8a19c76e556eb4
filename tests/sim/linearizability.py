"""Judges whether what concurrent clients were told can have happened in one order.

A history is linearizable if each operation can be given one moment between its invocation
and its return at which it alone happened, and all answers fit that order. A write of unknown
outcome may have its moment at any time after its invocation, or none.

Documents are judged one by one (`one_document`), which loses nothing: a history is linearizable
when that of each document is. Lists span documents: for each document they count as a look at
it, and `list_order` judges whether they saw all of theirs at one moment.

Absent here: stale reads, which promise less (tests/sim/checkers/reads.py looks at their values);
documents deleted so often that tombstones are forgotten (`limits.TOMBSTONES_MAX`), whose versions
then rise by more than one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tests.sim.history import ABSENT, NEVER, Kind, Operation, Outcome
from tests.sim.list_order import find_crossing
from tests.sim.one_document import Look, OneDocument, UndecidedError

EXPLAINING_POSITIONS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Operations that cannot be put into one order, as few as were found to be enough."""

    #: The document; of crossed lists: their prefix.
    name: str
    operations: tuple[Operation, ...]
    why: str

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.why}"]
        zero = min((each.invoked for each in self.operations), default=0)
        for each in self.operations:
            end = "…" if each.returned == NEVER else str(each.returned - zero)
            lines.append(f"  [{each.invoked - zero} {end}] {each}")
        return "\n".join(lines)


def judge(operations: Iterable[Operation], first: Mapping[str, int] | None = None) -> Counterexample | None:
    """None when the history is linearizable; else why not, for the smallest document that shows it.

    *first*: versions of documents that existed before.
    Fails: `one_document.UndecidedError`.
    """
    every, first = list(operations), first or {}
    failing = [each for each in _by_document(every, first) if not each.judged().has_order()]
    if failing:
        return _explain(min(failing, key=lambda each: (len(each.operations), each.name)))
    crossed = find_crossing(every, first)
    if crossed:
        why = "each of these comes before the next, and the last before the first"
        return Counterexample(next(each.name for each in crossed), crossed, why)
    return None


@dataclass(frozen=True, slots=True)
class _Part:
    """What concerns one document; lists count as looks at it."""

    name: str
    operations: tuple[Operation, ...]
    first: int

    def judged(self) -> OneDocument:
        plain = [each for each in self.operations if each.kind is not Kind.LIST]
        looks = [self._look(each) for each in self.operations if each.kind is Kind.LIST]
        return OneDocument(plain, looks, self.first)

    def _look(self, listing: Operation) -> Look:
        for row in listing.rows:
            if row.name == self.name:
                return Look(listing.invoked, listing.returned, row.version, row.value)
        return Look(listing.invoked, listing.returned, ABSENT, None)


def _by_document(operations: Iterable[Operation], first: Mapping[str, int]) -> list[_Part]:
    plain: dict[str, list[Operation]] = {name: [] for name in first}
    lists: list[Operation] = []
    for operation in operations:
        if operation.stale or operation.outcome is Outcome.REFUSED:
            continue
        if operation.kind is not Kind.LIST:
            plain.setdefault(operation.name, []).append(operation)
        elif operation.outcome is Outcome.OK:
            lists.append(operation)
            for row in operation.rows:
                plain.setdefault(row.name, [])
    for name, rows in plain.items():
        rows += [each for each in lists if name.startswith(each.name)]
    return [_Part(name, tuple(rows), first.get(name, ABSENT)) for name, rows in plain.items()]


# ---- explaining -------------------------------------------------------------------


def _explain(part: _Part) -> Counterexample:
    """Takes away answers, many at once, then fewer, as long as what is left has no order either.

    Looks first: once they are gone, more writes can change places without a difference.
    """
    known = _ended_by(part.operations, _first_failing_end(part))
    writes = [each for each in known if each.outcome is Outcome.OK and each.is_write]
    looks = [each for each in known if each.outcome is not Outcome.UNKNOWN and each not in writes]
    unknown = [each for each in known if each.outcome is Outcome.UNKNOWN]
    looks = _fewest(looks, lambda kept, _: _fails(part, [*kept, *writes, *unknown]))

    def fails(kept: Sequence[Operation], gone: Sequence[Operation]) -> bool:
        return _fails(part, [*looks, *kept, *unknown, *map(_unanswered, gone)])

    kept = _fewest(writes, fails)
    return _described(part, [*looks, *kept], len(unknown) + len(writes) - len(kept))


def _fewest(
    operations: Sequence[Operation], fails: Callable[[Sequence[Operation], Sequence[Operation]], bool]
) -> list[Operation]:
    """Takes away as many as possible while *fails*, told what is kept and what is gone."""
    kept, gone, size = list(operations), list[Operation](), len(operations)
    while size:
        start = 0
        while start < len(kept):
            fewer, more = kept[:start] + kept[start + size :], gone + kept[start : start + size]
            if fails(fewer, more):
                kept, gone = fewer, more
            else:
                start += size
        size //= 2
    return kept


def _described(part: _Part, answered: Iterable[Operation], unknown: int) -> Counterexample:
    why = "no order explains these answers"
    if unknown:
        why += f", whichever of {unknown} other writes took effect, and when"
    if part.first != ABSENT:
        why += f"; at first it was at version {part.first}"
    order = sorted(answered, key=lambda each: (each.invoked, each.returned))
    return Counterexample(part.name, tuple(order), why)


def _first_failing_end(part: _Part) -> int:
    """The earliest moment up to which the history already has no order.

    What is linearizable is so up to any moment, so that there is one such moment.
    """
    ends = sorted({each.returned for each in part.operations if each.returned != NEVER})
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if _fails(part, _ended_by(part.operations, ends[middle])):
            high = middle
        else:
            low = middle + 1
    return ends[low]


def _ended_by(operations: Iterable[Operation], moment: int) -> list[Operation]:
    """The history as known at *moment*. What has not returned by then is unanswered."""
    begun = [each for each in operations if each.invoked <= moment]
    return [
        each if each.returned <= moment else _unanswered(each)
        for each in begun
        if each.returned <= moment or each.is_write
    ]


def _unanswered(write: Operation) -> Operation:
    """The same write, of unknown outcome. What was linearizable stays so."""
    return replace(write, returned=NEVER, outcome=Outcome.UNKNOWN, version=ABSENT)


def _fails(part: _Part, operations: Iterable[Operation]) -> bool:
    """It has certainly no order; what takes long to find out is not worth a shorter explanation."""
    try:
        return not replace(part, operations=tuple(operations)).judged().has_order(EXPLAINING_POSITIONS_MAX)
    except UndecidedError:
        return False
