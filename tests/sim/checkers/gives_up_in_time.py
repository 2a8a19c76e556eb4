"""What a host is asked to give up it gives up, and does not wait for the watch that ends the sidecar instead.

Proves: no sidecar ends because it could not do, or give up, something in time (`HostDriver._watch_hands`):
simulated hands always do as they are told, well within that time. Would not notice: something that is given
up late, but within it.
"""

from typing import ClassVar

from mesh.errors import Unavailable
from tests.sim.trace import End, Event, Facts, Violation


class GivesUpInTime:
    name: ClassVar[str] = "gives-up-in-time"
    wants: ClassVar[tuple[type[Event], ...]] = (End,)

    def __init__(self, facts: Facts) -> None:
        pass

    def seen(self, event: Event) -> None:
        assert type(event) is End
        if event.error == Unavailable.__name__:
            raise Violation(self.name, f"{event.member} ends: it could not give up, or do, something in time")

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
