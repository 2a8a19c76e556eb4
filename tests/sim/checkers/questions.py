"""A question changes nothing: no member enters a term because it was asked for a pre-vote (thesis §9.6).

Proves: no pre-vote request raises the term of who is asked, so a member that hears nobody cannot depose
a leader. Would not notice: another change that a question makes, of which nobody is told.
"""

from typing import ClassVar

from tests.sim.trace import Event, Facts, TermRaised, Violation


class Questions:
    name: ClassVar[str] = "questions"
    wants: ClassVar[tuple[type[Event], ...]] = (TermRaised,)

    def __init__(self, facts: Facts) -> None:
        pass

    def seen(self, event: Event) -> None:
        assert type(event) is TermRaised
        if event.was_asked:
            raise Violation(
                self.name, f"{event.member} entered term {event.term}, which {event.by} only asked about"
            )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
