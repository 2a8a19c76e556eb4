"""The whole history of the clients is linearizable: judged by `tests.sim.linearizability` in the end.

Times are places in the trace, so that what happens in one instant is ordered too.
Would not notice: stale reads (`exactly_once` looks at those); histories with more unknown outcomes than
can be judged, which it passes over.
"""

import contextlib
from dataclasses import replace
from typing import ClassVar, Final

from tests.sim.history import NEVER, Kind, Operation, Outcome, Seen
from tests.sim.linearizability import judge
from tests.sim.one_document import UndecidedError
from tests.sim.trace import Event, Facts, Invoke, Return, Violation

KINDS: Final = {
    "put": Kind.PUT,
    "cas": Kind.PUT,
    "delete": Kind.DELETE,
    "get": Kind.GET,
    "list": Kind.LIST,
}


class Linearizable:
    name: ClassVar[str] = "linearizable"
    wants: ClassVar[tuple[type[Event], ...]] = (Invoke, Return)

    def __init__(self, facts: Facts) -> None:
        self._place = 0
        self._begun: dict[int, Operation] = {}
        self._ended: list[Operation] = []

    def seen(self, event: Event) -> None:
        self._place += 1
        if type(event) is Invoke and event.kind in KINDS:
            client = f"{event.at_ns / 1e9:.3f} s {event.client} at {event.host}"
            self._begun[event.operation] = Operation(
                client, KINDS[event.kind], event.name, self._place, value=event.value, expected=event.expected
            )
        elif type(event) is Return and event.result != "unknown":
            begun = self._begun.pop(event.operation, None)
            if begun is not None:
                self._ended.append(self._end(begun, event))

    def _end(self, begun: Operation, event: Return) -> Operation:
        if event.result == "refused":
            is_absent = event.reason == "NOT_FOUND" and begun.kind is Kind.DELETE
            is_conflict = event.reason == "VERSION_CONFLICT" or is_absent
            outcome = Outcome.CONFLICT if is_conflict else Outcome.REFUSED
            return replace(begun, returned=self._place, outcome=outcome, version=event.version)
        value = event.value if begun.kind is Kind.GET else begun.value
        rows = tuple(Seen(name, version) for name, version in event.names)
        return replace(
            begun, returned=self._place, outcome=Outcome.OK, version=event.version, value=value, rows=rows
        )

    def finished(self, at_ns: int) -> None:
        """Judge everything. What was not answered may have happened."""
        unknown = [replace(each, returned=NEVER) for each in self._begun.values()]
        with contextlib.suppress(UndecidedError):
            found = judge([*self._ended, *unknown])
            if found is not None:
                raise Violation(self.name, str(found))
