"""Whoever lets clients in as the database's primary has every commit that was ever acknowledged.

Proves: no failover, rewind or copy loses what a client was told to be safe.
Would not notice: a commit that is lost and comes back before anybody is open; what readers see.
"""

from typing import ClassVar

from tests.sim.postgres.events import Acknowledged, Opened
from tests.sim.trace import Event, Facts, Violation


class AcknowledgedCommits:
    name: ClassVar[str] = "acknowledged-commits"
    wants: ClassVar[tuple[type[Event], ...]] = (Acknowledged, Opened)

    def __init__(self, facts: Facts) -> None:
        self._acknowledged: set[int] = set()

    def seen(self, event: Event) -> None:
        if type(event) is Acknowledged:
            self._acknowledged.add(event.number)
        elif type(event) is Opened:
            lost = self._acknowledged.difference(event.held.numbers)
            if lost:
                raise Violation(
                    self.name,
                    f"{event.host} opens on timeline {event.timeline} without {len(lost)} of"
                    f" {len(self._acknowledged)} acknowledged commits, the first of them {min(lost)}",
                )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
