"""Once a primary has acknowledged a commit, none of an earlier primaryship does so any more.

In the order of true time the fencing terms under which commits are acknowledged never fall, and one
of them belongs to one host.
Would not notice: two that are open while one of them acknowledges nothing; see `one_owner`.
"""

from typing import ClassVar

from mesh.ids import FencingTerm, HostId
from tests.sim.postgres.events import Acknowledged
from tests.sim.trace import Event, Facts, Violation


class OnePrimaryAcknowledges:
    name: ClassVar[str] = "one-primary-acknowledges"
    wants: ClassVar[tuple[type[Event], ...]] = (Acknowledged,)

    def __init__(self, facts: Facts) -> None:
        self._newest: tuple[FencingTerm, HostId] = (FencingTerm(0), HostId(""))

    def seen(self, event: Event) -> None:
        assert type(event) is Acknowledged
        term, host = self._newest
        if event.fencing_term < term or (event.fencing_term == term and event.host != host):
            raise Violation(
                self.name,
                f"{event.host} acknowledges commit {event.number} under fencing term {event.fencing_term},"
                f" after {host} did so under {term}",
            )
        self._newest = event.fencing_term, event.host

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
