"""A number of a timeline is used once: two branches of one database never bear the same.

Proves: whoever compares two servers by their histories compares what they are.
Would not notice: two histories that name the same branch with different ends.
"""

from typing import ClassVar

from mesh.ids import HostId
from tests.sim.postgres.events import Branched
from tests.sim.trace import Event, Facts, Violation


class TimelinesOnce:
    name: ClassVar[str] = "timelines-once"
    wants: ClassVar[tuple[type[Event], ...]] = (Branched,)

    def __init__(self, facts: Facts) -> None:
        self._begun: dict[tuple[str, int], HostId] = {}

    def seen(self, event: Event) -> None:
        assert type(event) is Branched
        before = self._begun.get((event.system_identifier, event.timeline))
        if before is not None or event.timeline <= 1:
            raise Violation(
                self.name,
                f"{event.host} begins timeline {event.timeline}, which {before or 'the database'} has begun",
            )
        self._begun[event.system_identifier, event.timeline] = event.host

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
