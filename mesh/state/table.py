"""Rows by key, with what is needed to undo one command and to hash what changed.

Invariant: iteration is in key order, so nothing that reads a table depends on
how it was filled.
"""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Generic, TypeVar, overload

#: Text, a number, or a tuple of both.
K = TypeVar("K", bound=str | int | tuple[str | int, ...])
V = TypeVar("V")
D = TypeVar("D")


class Ledger:
    """What the command under way did to all tables of one state."""

    __slots__ = ("dirty_count", "roll_backs", "undo")

    def __init__(self) -> None:
        #: Rows, key and former value (None: not there) of each change, oldest first.
        self.undo: list[tuple[dict[Any, Any], Any, Any]] = []
        #: How often rows were put back.
        self.roll_backs = 0
        #: Rows of all tables that differ from what the state hash counts.
        self.dirty_count = 0

    def roll_back(self) -> None:
        """Puts every row back to what it was when `undo` was last cleared."""
        self.roll_backs += 1
        for rows, key, old in reversed(self.undo):
            if old is None:
                rows.pop(key, None)
            else:
                rows[key] = old
        self.undo.clear()


class Table(Mapping[K, V], Generic[K, V]):
    """One kind of rows. Owned by one ClusterState; everybody else only reads.

    Invariant: `dirty` has, for each row changed since the state hash was last
    brought up to date, what it was then (None: it was not there); in a table
    that is not `hashed`, because it follows from others, it is empty.
    """

    __slots__ = ("_hashed", "_ledger", "_ordered", "_roll_backs", "counted", "dirty", "kind", "rows")

    def __init__(self, kind: str, ledger: Ledger, *, hashed: bool = True) -> None:
        self.kind = kind
        self._hashed = hashed
        #: Unordered view for single look-ups and counts; never iterated by readers.
        self.rows: dict[K, V] = {}
        self.dirty: dict[K, V | None] = {}
        #: What each row adds to the state hash, as of when that was last brought up to date.
        self.counted: dict[K, int] = {}
        self._ledger = ledger
        #: The rows in key order, as of so many roll backs; None: not asked for since the last change.
        self._ordered: dict[K, V] | None = None
        self._roll_backs = 0

    def put(self, key: K, value: V) -> None:
        """Sets a row; a row already there keeps its place in `rows`."""
        rows = self.rows
        old = rows.get(key)
        self._note(key, old)
        rows[key] = value

    def put_last(self, key: K, value: V) -> None:
        """Sets a row and makes it the last one in `rows`."""
        self._note(key, self.rows.pop(key, None))
        self.rows[key] = value

    def drop(self, key: K) -> None:
        """Takes a row away, if it is there."""
        old = self.rows.pop(key, None)
        if old is not None:
            self._note(key, old)

    def _note(self, key: K, old: V | None) -> None:
        self._ordered = None
        self._ledger.undo.append((self.rows, key, old))
        if self._hashed and key not in self.dirty:
            self.dirty[key] = old
            self._ledger.dirty_count += 1

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...
    def get(self, key: K, /, default: V | D | None = None) -> V | D | None:
        return self.rows.get(key, default)

    def __getitem__(self, key: K) -> V:
        return self.rows[key]

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[K]:
        return iter(self._in_order())

    def values(self) -> ValuesView[V]:
        """In key order, as they are now: what changes while they are gone through is not seen."""
        return self._in_order().values()

    def items(self) -> ItemsView[K, V]:
        """As `values`."""
        return self._in_order().items()

    def _in_order(self) -> dict[K, V]:
        ordered, roll_backs = self._ordered, self._ledger.roll_backs
        if ordered is None or self._roll_backs != roll_backs:
            rows = self.rows
            ordered = self._ordered = {key: rows[key] for key in sorted(rows)}
            self._roll_backs = roll_backs
        return ordered

    def forget_order(self) -> None:
        """`rows` were changed by other means than this table's own."""
        self._ordered = None
