"""A member that is removed, or revoked with its host, never changes a term of the others.

Proves: once a host has applied that a member is gone, no message of that member raises the host's term.
Would not notice: a term raised on a host that has not heard of the removal yet, which is no fault; a
removed member that costs others time without a new term.
"""

from typing import ClassVar

from mesh.ids import HostId, Index, MemberId
from tests.sim.trace import Event, Facts, Removed, Start, TermRaised, Violation


class RemovedMembers:
    name: ClassVar[str] = "removed-members"
    wants: ClassVar[tuple[type[Event], ...]] = (Start, Removed, TermRaised)

    def __init__(self, facts: Facts) -> None:
        self._gone: dict[HostId, dict[MemberId, Index]] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Removed:
            self._gone.setdefault(event.host, {})[event.gone] = event.at_index
        elif type(event) is Start:
            self._gone.pop(event.host, None)  # it knows only what it will apply again
        elif type(event) is TermRaised:
            gone = self._gone.get(event.host)
            if gone and event.by in gone:
                raise Violation(
                    self.name,
                    f"{event.by} raised the term of {event.member} to {event.term},"
                    f" which has applied its removal at {gone[event.by]}",
                )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
