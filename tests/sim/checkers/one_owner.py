"""Never do two hosts act for one exclusive thing at the same true time.

Looks at the hands alone: an address that is up, a process that runs, from `Acted` to `Stopped`,
whatever state, lease or clock said. True time is the simulator's, which no host knows.
Would not notice: harm done by one host alone, as by acting after it was told not to while nobody
else acts; see `acting_under_lease`.
"""

from typing import ClassVar

from mesh.ids import FencingTerm, HostId, OwnedName
from tests.sim.trace import Acted, Event, Facts, Stopped, Violation


class OneOwner:
    name: ClassVar[str] = "one-owner"
    wants: ClassVar[tuple[type[Event], ...]] = (Acted, Stopped)

    def __init__(self, facts: Facts) -> None:
        #: Who acts for each name: since when, and under which fencing term.
        self._acting: dict[OwnedName, dict[HostId, tuple[int, FencingTerm]]] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Stopped:
            self._acting.get(event.name, {}).pop(event.host, None)
        elif type(event) is Acted:
            acting = self._acting.setdefault(event.name, {})
            for host, (since, term) in acting.items():
                if host != event.host:
                    raise Violation(
                        self.name,
                        f"{event.host} acts for {event.name} under fencing term {event.fencing_term},"
                        f" while {host} has done so under {term} for {(event.at_ns - since) / 1e9:.3f} s",
                    )
            acting.setdefault(event.host, (event.at_ns, event.fencing_term))

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
