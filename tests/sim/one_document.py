"""Whether the operations on one document can be put into one order that explains every answer.

A document is a register whose version rises by one with each write or delete, and
every answer tells a version. So the order of what was answered is nearly given, and
what is searched for is little: which write of unknown outcome made a version that
nobody was told to have made, and where an absence was seen.

The search goes from version to version. Between two writes it puts in whatever was
seen of the earlier version: a look changes nothing, so the earliest place that is
legal is as good as any. An operation may stand next only if it was invoked before
all that is left has returned (Wing & Gong); as what is left is known from the version
reached, that is one comparison. Searched positions are remembered (Lowe).

Invariant: exact, both ways. `tests/sim/test_linearizability.py` compares it with all
permutations of small histories.
Bound: without writes of unknown outcome linear in the operations; with them polynomial, as few
of them differ in what may follow (see `unknown_writes`), unless many write equal values.
Source: J. Wing, C. Gong, "Testing and Verifying Concurrent Objects" (1993); G. Lowe, "Testing for
Linearizability" (2017); partition by document: M. Herlihy, J. Wing, theorem 1 (1990).
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from tests.sim.history import ABSENT, NEVER, Kind, Operation, Outcome
from tests.sim.unknown_writes import UnknownWrites

#: Positions looked at before the judge says that it cannot tell.
POSITIONS_MAX: Final = 200_000


class Look(NamedTuple):
    """Something that was seen of the document and changed nothing."""

    invoked: int
    returned: int
    version: int
    value: bytes | None


class _Position(NamedTuple):
    """How far an order has got."""

    version: int
    exists: bool
    #: Which writes of unknown outcome have taken effect, one bit each.
    used: int
    #: How many of the absences, in the order of their invocation, stand in it already.
    absences: int


class UndecidedError(Exception):
    """Too many writes of unknown outcome to find out."""


class OneDocument:
    """The history of one document, prepared for the search.

    `first` is the version at the start, ABSENT if it did not exist.
    """

    def __init__(
        self, operations: Iterable[Operation], looks: Iterable[Look] = (), first: int = ABSENT
    ) -> None:
        self._first = first
        self._made: dict[int, Operation] = {}
        self._seen: dict[int, list[Look]] = {}
        absences: list[Look] = []
        unknown: list[Operation] = []
        #: An answer is wrong by itself, or a version was made twice, or before the first one.
        self._is_impossible = False
        looks = list(looks)
        for operation in operations:
            if operation.stale or operation.outcome is Outcome.REFUSED:
                continue
            if operation.outcome is Outcome.UNKNOWN:
                if operation.is_write:
                    unknown.append(operation)
            elif operation.outcome is Outcome.OK and operation.is_write:
                self._is_impossible |= operation.version in self._made or operation.version <= first
                self._made[operation.version] = operation
            else:
                self._is_impossible |= operation.outcome is Outcome.CONFLICT and not _is_refusal_right(
                    operation
                )
                looks.append(_look(operation))
        for look in looks:
            (absences if look.version == ABSENT else self._seen.setdefault(look.version, [])).append(look)
        absences.sort(key=lambda each: each.invoked)
        self._absences = [each.invoked for each in absences]
        self._top = max((first, *self._made, *self._seen))
        self._is_impossible |= min((first, *self._made, *self._seen)) < first
        shown = {version: {look.value for look in looks} - {None} for version, looks in self._seen.items()}
        self._is_impossible |= any(len(values) > 1 for values in shown.values())
        #: Versions seen that nobody was told to have made, with their value if that was seen too.
        self._missing = {
            version: next(iter(values), None)
            for version, values in shown.items()
            if version != first and version not in self._made
        }
        self._unknown = UnknownWrites(unknown, self._missing)
        #: At [n]: when the first of the absences from the n-th on returns.
        self._absence_due = [NEVER] * (len(absences) + 1)
        for number in range(len(absences) - 1, -1, -1):
            self._absence_due[number] = min(self._absence_due[number + 1], absences[number].returned)
        self.reached = first

    def has_order(self, positions_max: int = POSITIONS_MAX) -> bool:
        """Whether one order explains all of it; `reached` is then or else the last version explained.

        Fails: `UndecidedError` after *positions_max* positions.
        """
        if self._is_impossible or self._unknown.is_too_few:
            return False
        if self._top - self._first > len(self._made) + self._unknown.count:
            return False
        self._prepare_deadlines()
        if not self._is_in_time():
            return False
        pending = [_Position(self._first, self._first != ABSENT, 0, 0)]
        known: set[_Position] = set()
        while pending:
            stop = self._run(pending.pop())
            if stop is None:
                continue
            if stop.version >= self._top and stop.absences == len(self._absences):
                return True
            if stop not in known:
                known.add(stop)
                if len(known) > positions_max:
                    raise UndecidedError(f"{self._unknown.count} writes of unknown outcome")
                pending += self._choices(stop)
        return False

    def _prepare_deadlines(self) -> None:
        """At [n]: when the first operation that belongs to version `first` + n or later returns."""
        first, span = self._first, self._top - self._first
        self._due = [NEVER] * (span + 2)
        for number in range(span, -1, -1):
            version = first + number
            made = self._made.get(version)
            due = self._due[number + 1] if made is None else min(self._due[number + 1], made.returned)
            self._due[number] = min((due, *(look.returned for look in self._seen.get(version, ()))))

    def _is_in_time(self) -> bool:
        """No answered operation began after one of a later version had returned. Cheap, and often enough."""
        return all(write.invoked <= self._due_from(version) for version, write in self._made.items()) and all(
            look.invoked <= self._due_from(version + 1)
            for version, looks in self._seen.items()
            for look in looks
        )

    def _due_from(self, version: int) -> int:
        number = version - self._first
        return self._due[number] if number < len(self._due) else NEVER

    def _run(self, at: _Position) -> _Position | None:
        """On while there is no choice; None when it leads nowhere."""
        version, exists, used, absences = at
        while True:
            due = self._due_from(version + 1)
            if not exists:
                while absences < len(self._absences) and self._absences[absences] <= due:
                    absences += 1
            looks = self._seen.get(version)
            if looks:
                due = min(due, self._absence_due[absences])
                if not exists or any(look.invoked > due for look in looks):
                    return None
            self.reached = max(self.reached, version)
            write = self._made.get(version + 1)
            if write is None:
                return _Position(version, exists, used, absences)
            if not self._may_follow(write, version, exists, absences) or not self._is_as_seen(
                write, version + 1
            ):
                return None
            version, exists = version + 1, write.kind is Kind.PUT

    def _may_follow(self, write: Operation, version: int, exists: bool, absences: int) -> bool:
        """It was invoked before anything left has returned, and would be accepted at *version*."""
        if write.invoked > self._due_from(version + 1) or write.invoked > self._absence_due[absences]:
            return False
        if write.kind is Kind.DELETE and not exists:
            return False
        return write.expected is None or write.expected == (version if exists else ABSENT)

    def _is_as_seen(self, write: Operation, version: int) -> bool:
        return all(look.value in (None, write.value) for look in self._seen.get(version, ()))

    def _choices(self, at: _Position) -> Iterator[_Position]:
        """Each write of unknown outcome that can have made the next version, and needs to be tried."""
        version, exists, used, absences = at
        due = min(self._due_from(version + 1), self._absence_due[absences])
        must_put, value = version + 1 in self._missing, self._missing.get(version + 1)
        for write, used_then in self._unknown.choices(
            version, exists, used, due, value=value, must_put=must_put
        ):
            yield _Position(version + 1, write.kind is Kind.PUT, used_then, absences)


def _look(operation: Operation) -> Look:
    is_read = operation.kind is Kind.GET and operation.version != ABSENT
    return Look(
        operation.invoked, operation.returned, operation.version, operation.value if is_read else None
    )


def _is_refusal_right(refused: Operation) -> bool:
    """What was seen is a reason to refuse."""
    if refused.kind is Kind.DELETE and refused.version == ABSENT:
        return True
    return refused.expected is not None and refused.expected != refused.version
