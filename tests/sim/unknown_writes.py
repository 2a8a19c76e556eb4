"""The writes of unknown outcome to one document, sorted by what following them would be like.

Where a version was made by nobody who was told so, one of these made it. Few of them need to
be tried, because most are as good as each other:

* one that demands a version can only follow that version, so it is used there before others;
* one that demands absence is used before one that demands nothing, which fits wherever it would;
* one whose value is seen later, as often as there are writes of that value, is kept for that;
* of equal ones the earliest: whoever is left can still be used later, as deadlines only grow.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from tests.sim.history import ABSENT, Kind, Operation

#: What is asked, what it demands, and its value where that matters.
_Sort: TypeAlias = tuple[Kind, int | None, bytes | None]


class UnknownWrites:
    """`seen`: values (None: not told) of the versions that one of these must have made."""

    def __init__(self, writes: Iterable[Operation], seen: Mapping[int, bytes | None]) -> None:
        needed = Counter(value for value in seen.values() if value is not None)
        ordered = sorted(writes, key=lambda each: each.invoked)
        self._sorts: dict[_Sort, list[tuple[int, Operation]]] = {}
        offered: Counter[bytes] = Counter()
        for number, write in enumerate(ordered):
            sort = _sort(write, seen, needed)
            self._sorts.setdefault(sort, []).append((number, write))
            if sort[2] is not None:
                offered[sort[2]] += 1
        self._masks = {sort: sum(1 << number for number, _ in group) for sort, group in self._sorts.items()}
        #: Some version shows a value that too few can have written.
        self.is_too_few = any(offered[value] < count for value, count in needed.items())
        self._spare = sorted(value for value, count in offered.items() if count > needed[value])
        self.count = len(ordered)

    def choices(
        self, version: int, exists: bool, used: int, due: int, *, value: bytes | None, must_put: bool
    ) -> Iterator[tuple[Operation, int]]:
        """Writes that may follow *version*, invoked by *due*, each with what is used up then.

        *value*: what was seen of the version that it makes, if anything.
        """
        present = version if exists else ABSENT
        kinds = (Kind.PUT, Kind.DELETE) if exists and not must_put else (Kind.PUT,)
        for kind in kinds:
            for each in [value] if value is not None else [None, *self._spare]:
                for expected in (present, None):
                    found = self._first((kind, expected, each), used, due)
                    if found is not None:
                        number, write = found
                        # What demands a version is never in question again, so it need not be remembered.
                        yield write, used if expected else used | 1 << number
                        break

    def _first(self, sort: _Sort, used: int, due: int) -> tuple[int, Operation] | None:
        """The earliest unused one; equal ones are used in their order."""
        group = self._sorts.get(sort)
        if group is None:
            return None
        place = (used & self._masks[sort]).bit_count()
        return group[place] if place < len(group) and group[place][1].invoked <= due else None


def _sort(write: Operation, seen: Mapping[int, bytes | None], needed: Mapping[bytes, int]) -> _Sort:
    if write.kind is Kind.DELETE:
        return Kind.DELETE, write.expected, None
    # What demands a version can make one version only: its value matters if that one was seen.
    is_told = seen.get(write.expected + 1) is not None if write.expected else write.value in needed
    return Kind.PUT, write.expected, write.value if is_told else None
