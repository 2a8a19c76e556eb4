"""What a host says it has given up has stopped there, and it does not begin again under that fencing term.

The leader gives it to another one at once (mesh/lease/grantor.py: a release is waited for by nobody).
Proves: when a release leaves a host, nothing acts there under its number, and nothing that this life of the
sidecar begins afterwards does. Would not notice: a release that the leader tells itself (`one_owner`); a
number taken up again by the next life, which is not granted before it is heard of.
"""

from typing import ClassVar

from mesh.ids import FencingTerm, HostId, OwnedName
from tests.sim.trace import Acted, Event, Facts, Released, Start, Stopped, Violation


class ReleasedIsGone:
    name: ClassVar[str] = "released-is-gone"
    wants: ClassVar[tuple[type[Event], ...]] = (Start, Acted, Stopped, Released)

    def __init__(self, facts: Facts) -> None:
        self._acts: dict[HostId, dict[OwnedName, FencingTerm]] = {}
        self._released: dict[HostId, dict[OwnedName, FencingTerm]] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Acted:
            if event.fencing_term <= self._released.get(event.host, {}).get(event.name, 0):
                raise Violation(
                    self.name,
                    f"{event.host} begins to act for {event.name} under fencing term {event.fencing_term},"
                    f" which it has told to have given up",
                )
            self._acts.setdefault(event.host, {})[event.name] = event.fencing_term
        elif type(event) is Stopped:
            self._acts.get(event.host, {}).pop(event.name, None)
        elif type(event) is Released:
            self._released.setdefault(event.host, {})[event.name] = event.fencing_term
            acts = self._acts.get(event.host, {}).get(event.name)
            if acts is not None and acts <= event.fencing_term:
                raise Violation(
                    self.name,
                    f"{event.host} tells that it has given up {event.name} under fencing term"
                    f" {event.fencing_term}, but acts for it",
                )
        elif type(event) is Start:
            self._released.pop(event.host, None)

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
