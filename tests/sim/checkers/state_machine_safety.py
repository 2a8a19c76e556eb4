"""State machine safety: every member commits the same entry at an index, in order, and gets the same state.

Proves: equal entries at equal index on all members that tell them; no gap and no repetition within a
life; equal state hashes at equal index, also after a snapshot was taken over.
Would not notice: a difference in state between indexes at which hashes are computed that is gone by
the next one.
"""

from typing import ClassVar

from mesh.ids import Index, MemberId
from tests.sim.checkers.durable_log import followed
from tests.sim.checkers.log_matching import is_same
from tests.sim.trace import Applied, Committed, Event, Facts, Restored, Start, Stored, Violation


class StateMachineSafety:
    name: ClassVar[str] = "state-machine-safety"
    wants: ClassVar[tuple[type[Event], ...]] = (Start, Stored, Committed, Applied, Restored)

    def __init__(self, facts: Facts) -> None:
        self._committed = followed(facts).committed
        self._hashes: dict[Index, tuple[MemberId, bytes]] = {}
        #: The newest index told in this life.
        self._told: dict[MemberId, int] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Committed:
            self._commit(event)
        elif type(event) is Start:
            self._committed.started(event)
            self._told.pop(event.member, None)
        elif type(event) is Stored:
            if event.snapshot is not None:  # a witness, whose snapshots hold no data, restores nothing
                self._told.pop(event.member, None)
        elif type(event) is Restored:
            # The snapshot may cover more than the last command in it.
            self._told.pop(event.member, None)
            self._compare_state(event)
        elif type(event) is Applied:
            self._compare_state(event)

    def _commit(self, event: Committed) -> None:
        told = self._told.get(event.member)
        if told is not None and event.entries[0].index != told + 1:
            raise Violation(
                self.name, f"{event.member} goes on with entry {event.entries[0].index} after entry {told}"
            )
        self._told[event.member] = event.entries[-1].index
        self._committed.extend(event)
        for entry in event.entries:
            known = self._committed.entries[entry.index - 1]
            if known is not None and known is not entry and not is_same(known, entry):
                raise Violation(
                    self.name,
                    f"{event.member} committed {entry.kind.name} {entry.data[:60]!r} of term {entry.term}"
                    f" at {entry.index}, another member {known.kind.name} {known.data[:60]!r}"
                    f" of term {known.term}",
                )

    def _compare_state(self, event: Applied | Restored) -> None:
        if event.state_hash:
            member, state_hash = self._hashes.setdefault(event.at_index, (event.member, event.state_hash))
            if state_hash != event.state_hash:
                raise Violation(
                    self.name,
                    f"after entry {event.at_index} the states of {member} and {event.member} differ:"
                    f" {state_hash.hex()[:16]}, {event.state_hash.hex()[:16]}",
                )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
