"""Fencing terms strictly rise with each change of owner, and who acts was given the term it acts under.

Proves: in the order of true time, the first act under each fencing term of a name comes after all first
acts under smaller ones, so that a resource which refuses smaller terms is only ever used by the newest
owner that reached it; along the log, no owner is named under a term that is not above the former one;
one term names one host.
Would not notice: an old owner that a resource must refuse and does not; resources are not simulated.
"""

from typing import ClassVar

from mesh.ids import FencingTerm, HostId, Index, OwnedName
from tests.sim.trace import Acted, Event, Facts, Owned, Violation


class FencingTerms:
    name: ClassVar[str] = "fencing-terms"
    wants: ClassVar[tuple[type[Event], ...]] = (Owned, Acted)

    def __init__(self, facts: Facts) -> None:
        self._holders: dict[tuple[OwnedName, FencingTerm], HostId] = {}
        #: Where in the log the newest owner of a name was named, and under which term.
        self._newest: dict[OwnedName, tuple[Index, FencingTerm]] = {}
        #: Highest term anybody acted under.
        self._acted: dict[OwnedName, FencingTerm] = {}

    def seen(self, event: Event) -> None:
        if type(event) is Acted:
            self._act(event)
        elif type(event) is Owned and event.holder is not None:
            self._own(event, event.holder)

    def _own(self, event: Owned, holder: HostId) -> None:
        known = self._holders.setdefault((event.name, event.fencing_term), holder)
        if known != holder:
            raise Violation(
                self.name,
                f"fencing term {event.fencing_term} of {event.name} names {holder} at {event.at_index}"
                f" on {event.host}, and {known} elsewhere",
            )
        index, term = self._newest.get(event.name, (Index(0), FencingTerm(0)))
        if event.at_index > index:
            if event.fencing_term < term:
                raise Violation(
                    self.name,
                    f"{event.name} is owned under fencing term {event.fencing_term} at {event.at_index},"
                    f" after {term} at {index}",
                )
            self._newest[event.name] = event.at_index, event.fencing_term

    def _act(self, event: Acted) -> None:
        key = event.name, event.fencing_term
        if self._holders.get(key) != event.host:
            raise Violation(
                self.name,
                f"{event.host} acts for {event.name} under fencing term {event.fencing_term},"
                f" which was given to {self._holders.get(key) or 'nobody'}",
            )
        highest = self._acted.get(event.name, FencingTerm(0))
        if event.fencing_term < highest:
            raise Violation(
                self.name,
                f"{event.host} begins to act for {event.name} under fencing term {event.fencing_term},"
                f" after somebody acted under {highest}",
            )
        self._acted[event.name] = event.fencing_term

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
