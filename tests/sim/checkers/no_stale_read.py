"""No linearizable read sees less than one that had ended when it began.

As for acknowledged writes, with what reads have shown: once any client has seen a version, nobody who
asks later is shown an older one, at whichever host. Reads that are asked to be stale are passed over.
Would not notice: two reads beside each other that saw different orders; see `linearizable`.
"""

from typing import ClassVar

from tests.sim.checkers.seen_by_clients import READS, Told
from tests.sim.trace import Event, Facts, Invoke, Return, Violation


class NoStaleRead:
    name: ClassVar[str] = "no-stale-read"
    wants: ClassVar[tuple[type[Event], ...]] = (Invoke, Return)

    def __init__(self, facts: Facts) -> None:
        self._told = Told()
        self._asked: dict[int, Invoke] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Invoke:
            if event.kind in READS or event.kind == "delete":
                self._asked[event.operation] = event
                self._told.invoked(event)
            return
        assert type(event) is Return
        asked = self._asked.pop(event.operation, None)
        if asked is None:
            return
        self._told.delete_returned(event)
        floor = self._told.floor(event)
        if event.result != "ok" or floor is None:
            return
        if missed := self._told.missed(event, asked.kind, floor):
            raise Violation(self.name, f"{asked.kind} of {asked.name} at {asked.host}: {missed} (by a read)")
        if asked.kind == "get":
            self._told.show(event.at_index, asked.name, event.version)
        else:
            self._told.show(event.at_index)
            for name, version in event.names:
                self._told.show(0, name, version)

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
