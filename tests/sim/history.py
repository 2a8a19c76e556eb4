"""What concurrent clients asked of documents, when, and what they were told.

A history is the input of `tests.sim.linearizability`. The simulator records one
in simulated time, live tests in nanoseconds of one machine's monotonic clock;
the judge compares times only with each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

#: The version of a document that does not exist.
ABSENT: Final = 0
#: The return of an operation that nobody has been told the outcome of.
NEVER: Final = 1 << 200


class Kind(Enum):
    """What was asked for."""

    PUT = "put"
    DELETE = "delete"
    GET = "get"
    #: All documents whose names begin with a prefix, as of one moment.
    LIST = "list"


class Outcome(Enum):
    """What the client was told."""

    OK = "ok"
    #: Certainly not done because of what the document was; `version` says what was seen.
    CONFLICT = "conflict"
    #: Certainly not done; says nothing about the document.
    REFUSED = "refused"
    #: May take effect at any later time, once, or never.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """One row of a list's answer."""

    name: str
    version: int
    #: None when the list tells versions only.
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client, from its invocation to its return.

    Invariant: `invoked` <= `returned`; `returned` is NEVER when the outcome is UNKNOWN.
    """

    client: str
    kind: Kind
    #: Of the document; of a list: the prefix.
    name: str
    invoked: int
    returned: int = NEVER
    outcome: Outcome = Outcome.UNKNOWN
    #: Written by a put, read by a get.
    value: bytes = b""
    #: Of a put or delete: None whatever it is, ABSENT only if it does not exist.
    expected: int | None = None
    #: OK: what was written or read; CONFLICT: what was seen instead.
    version: int = ABSENT
    #: What a list saw.
    rows: tuple[Seen, ...] = ()
    #: A read that may be old: the judge passes over it.
    stale: bool = False

    @property
    def is_write(self) -> bool:
        return self.kind in (Kind.PUT, Kind.DELETE)

    def __str__(self) -> str:
        asked = f"{self.kind.value} {self.name}"
        if self.kind is Kind.PUT:
            asked += f" {_shown(self.value)}"
        if self.expected is not None:
            asked += f" if version {self.expected}"
        return f"{self.client}: {asked} -> {self._told()}"

    def _told(self) -> str:
        if self.outcome is Outcome.UNKNOWN:
            return "unknown"
        if self.outcome is Outcome.REFUSED:
            return "refused"
        if self.kind is Kind.LIST:
            rows = ", ".join(f"{row.name}@{row.version}" for row in self.rows)
            return f"[{rows}]"
        seen = f"version {self.version}" if self.version else "absent"
        if self.outcome is Outcome.CONFLICT:
            return f"refused, saw {seen}"
        return f"{seen} {_shown(self.value)}" if self.kind is Kind.GET and self.version else seen


def _shown(value: bytes) -> str:
    text = value.decode(errors="replace")
    return repr(text if len(text) <= 24 else f"{text[:24]}…")


@dataclass(slots=True)
class History:
    """Records operations while clients run.

    Order: each call is begun once and ended at most once; what is never ended
    stays unknown. Bound: none; whoever records decides how long a history is.
    """

    _begun: dict[int, Operation] = field(default_factory=dict)
    _ended: list[Operation] = field(default_factory=list)
    _calls: int = 0

    def begin(self, operation: Operation) -> int:
        """A client calls now; the number to end it with."""
        self._calls += 1
        self._begun[self._calls] = operation
        return self._calls

    def ok(self, call: int, at: int, version: int = ABSENT, value: bytes = b"") -> None:
        """A put or delete wrote *version*; a get read it, ABSENT if there is none."""
        begun = self._begun.pop(call)
        seen = value if begun.kind is Kind.GET else begun.value
        self._end(replace(begun, returned=at, outcome=Outcome.OK, version=version, value=seen))

    def listed(self, call: int, at: int, rows: tuple[Seen, ...]) -> None:
        """A list saw *rows*."""
        self._end(replace(self._begun.pop(call), returned=at, outcome=Outcome.OK, rows=rows))

    def conflict(self, call: int, at: int, version: int) -> None:
        """A put or delete was refused because the document was at *version*."""
        self._end(replace(self._begun.pop(call), returned=at, outcome=Outcome.CONFLICT, version=version))

    def refused(self, call: int, at: int) -> None:
        """Certainly not done, for a reason that has nothing to do with the document."""
        self._end(replace(self._begun.pop(call), returned=at, outcome=Outcome.REFUSED))

    def unknown(self, call: int) -> None:
        """The client gave up: it may still happen, at any time."""
        self._end(replace(self._begun.pop(call), returned=NEVER, outcome=Outcome.UNKNOWN))

    def _end(self, operation: Operation) -> None:
        self._ended.append(operation)

    def operations(self) -> Iterator[Operation]:
        """Everything so far; what has not returned counts as unknown."""
        yield from self._ended
        yield from self._begun.values()
