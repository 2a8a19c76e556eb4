"""A host begins to act only while its own lease runs, on its own clock.

What was decided within the lease may be carried out up to the release bound after its end: then it is
taken back at once. A lease is held in memory: a new life has none.
Proves: no act without a lease that was extended in this life. Would not notice: acting that begins
rightly and goes on too long; as long as nobody else acts, nothing is harmed (`one_owner`).
"""

from typing import ClassVar

from mesh.ids import HostId
from tests.sim.trace import Acted, Event, Facts, LeaseExtended, Start, Violation


class ActingUnderLease:
    name: ClassVar[str] = "acting-under-lease"
    wants: ClassVar[tuple[type[Event], ...]] = (Start, LeaseExtended, Acted)

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._until: dict[HostId, int] = {}

    def seen(self, event: Event) -> None:
        if type(event) is LeaseExtended:
            self._until[event.host] = event.until_ns
        elif type(event) is Start:
            self._until.pop(event.host, None)
        elif type(event) is Acted:
            until = self._until.get(event.host)
            now = self._facts.boottime_ns(event.host)
            if until is None or now > until + self._facts.timers.release_bound_ns:
                ended = (
                    "which never had a lease" if until is None else f"{(now - until) / 1e9:.3f} s after it"
                )
                raise Violation(self.name, f"{event.host} begins to act for {event.name}, {ended}")

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
