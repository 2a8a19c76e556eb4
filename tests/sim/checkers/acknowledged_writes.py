"""An acknowledged write is in every linearizable read that begins later.

Checked when a read returns: it saw the log at least up to every write that had been acknowledged when
it was asked for, and every document in it at least at the version acknowledged by then.
Would not notice: a wrong value under a right version (`exactly_once` compares values); operations beside
each other in an impossible order (`linearizable` judges the whole history in the end).
"""

from typing import ClassVar

from tests.sim.checkers.seen_by_clients import READS, WRITES, Told
from tests.sim.trace import Event, Facts, Invoke, Return, Violation


class AcknowledgedWrites:
    name: ClassVar[str] = "acknowledged-writes"
    wants: ClassVar[tuple[type[Event], ...]] = (Invoke, Return)

    def __init__(self, facts: Facts) -> None:
        self._told = Told()
        self._asked: dict[int, Invoke] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Invoke:
            if event.kind in READS or event.kind in WRITES:
                self._asked[event.operation] = event
                self._told.invoked(event)
            return
        assert type(event) is Return
        asked = self._asked.pop(event.operation, None)
        if asked is None:
            return
        self._told.delete_returned(event)
        floor = self._told.floor(event)
        if event.result != "ok":
            return
        if asked.kind in WRITES:
            self._told.show(event.at_index, asked.name, event.version)
        elif floor is not None and (missed := self._told.missed(event, asked.kind, floor)):
            raise Violation(
                self.name, f"{asked.kind} of {asked.name} at {asked.host}: {missed} (acknowledged)"
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
