"""Any published quorum of voters has every acknowledged commit among them.

Judged when a commit is acknowledged, against the newest set that some host has applied, and when a set
is applied for the first time, against all commits acknowledged by then. Voters without whole data do not
count: they do not answer.
Would not notice: what a voter loses later; a promotion by such a set shows it (`acknowledged_commits`).
"""

from typing import ClassVar

from tests.sim.postgres.events import Acknowledged, Published
from tests.sim.trace import Event, Facts, Violation


class PublishedQuorums:
    name: ClassVar[str] = "published-quorums"
    wants: ClassVar[tuple[type[Event], ...]] = (Acknowledged, Published)

    def __init__(self, facts: Facts) -> None:
        self._acknowledged: set[int] = set()

    def seen(self, event: Event) -> None:
        if type(event) is Acknowledged:
            self._acknowledged.add(event.number)
            self._judge({event.number: len(event.lacking)}, event.quorum, "is acknowledged")
        elif type(event) is Published:
            lacking: dict[int, int] = {}
            for _, held in event.held:
                for number in self._acknowledged.difference(held.numbers):
                    lacking[number] = lacking.get(number, 0) + 1
            self._judge(lacking, event.quorum, f"was acknowledged before set {event.version} was published")

    def _judge(self, lacking: dict[int, int], quorum: int, what: str) -> None:
        for number, hosts in lacking.items():
            if 0 < quorum <= hosts:
                raise Violation(
                    self.name,
                    f"commit {number} {what}: {hosts} voters lack it, and {quorum} suffice to promote",
                )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
