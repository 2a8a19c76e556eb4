"""Every request takes effect at most once, and all answers are those of the log applied once.

A naive twin applies the committed requests on documents, counting each session and sequence once. What
clients are told must be what the twin has: a write's version and value, and what a read saw at its index,
stale reads included. And what one operation writes is never written twice, under whatever session.
Would not notice: other commands than those on documents (the state hash compares hosts, not with a
twin); what is never read. Assumes that clients write different values with each operation.
"""

from typing import ClassVar

from mesh.raft.model import Entry, EntryKind
from mesh.wire.command import decode_request
from tests.sim.checkers.naive_documents import NaiveDocuments
from tests.sim.trace import Committed, Event, Facts, Invoke, Return, Violation


class ExactlyOnce:
    name: ClassVar[str] = "exactly-once"
    wants: ClassVar[tuple[type[Event], ...]] = (Committed, Invoke, Return)

    def __init__(self, facts: Facts) -> None:
        self._twin = NaiveDocuments()
        self._applied = 0
        self._asked: dict[int, Invoke] = {}
        #: Who writes each value; None: more than one operation does.
        self._writers: dict[bytes, int | None] = {}
        self._written: dict[bytes, int] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Committed:
            self._commit(event)
        elif type(event) is Invoke:
            self._asked[event.operation] = event
            if event.kind in ("put", "cas"):
                self._writers[event.value] = None if event.value in self._writers else event.operation
        elif type(event) is Return:
            asked = self._asked.pop(event.operation, None)
            if asked is not None and event.result == "ok" and event.at_index:
                self._answer(asked, event)

    def _commit(self, event: Committed) -> None:
        if event.entries[-1].index <= self._applied:
            return
        for entry in event.entries:
            if entry.index > self._applied:
                if entry.kind is EntryKind.COMMAND:
                    if not entry.data:
                        return  # told by a witness, which does not hold what it says
                    self._apply(entry)
                self._applied = entry.index

    def _apply(self, entry: Entry) -> None:
        written = self._twin.apply(entry.index, decode_request(entry.data))
        if written is None or written.value is None or self._writers.get(written.value) is None:
            return
        first = self._written.setdefault(written.value, entry.index)
        if first != entry.index:
            raise Violation(
                self.name,
                f"operation {self._writers[written.value]} took effect at {first} and again at {entry.index}",
            )

    def _answer(self, asked: Invoke, event: Return) -> None:
        told, expected = self._compare(asked, event)
        if told != expected:
            raise Violation(
                self.name,
                f"operation {asked.operation}, {asked.kind} of {asked.name} at {asked.host}: told {told}"
                f" at index {event.at_index}, but the log says {expected}",
            )

    def _compare(self, asked: Invoke, event: Return) -> tuple[object, object]:
        twin, name, index = self._twin, asked.name, event.at_index
        if asked.kind in ("list", "list-stale"):
            expected = twin.present(name, index)
            return (None, None) if twin.doubtful else (list(event.names), expected)
        if name in twin.doubtful:
            return None, None
        if asked.kind in ("get", "get-stale"):
            written = twin.at(name, index)
            seen = (written.version, written.value) if written.value is not None else (0, b"")
            return (event.version, event.value), seen
        if asked.kind in ("put", "cas", "delete"):
            value = None if asked.kind == "delete" else asked.value
            made = twin.made(name, event.version)
            return (event.version, value), (made.version, made.value) if made else "nothing"
        return None, None

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
