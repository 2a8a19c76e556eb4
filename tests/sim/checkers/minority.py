"""A minority acknowledges nothing: what a client is told is committed, or on a quorum's disks.

Checked when the answer leaves, for writes and linearizable reads: the log index it rests on has been
told to be committed (and `committed_is_durable` checks that), or a quorum's disks have it.
Would not notice: an answer without an index; a read by a leader that was cut off, before anything
newer is written elsewhere: no client can tell it from a right one.
"""

from typing import ClassVar

from tests.sim.checkers.durable_log import DISK_EVENTS, followed, is_quorum
from tests.sim.trace import Committed, Event, Facts, Return, Violation


class Minority:
    name: ClassVar[str] = "minority"
    wants: ClassVar[tuple[type[Event], ...]] = (*DISK_EVENTS, Committed, Return)

    def __init__(self, facts: Facts) -> None:
        self._disks = followed(facts).disks
        self._committed = 1 if facts.founders else 0

    def seen(self, event: Event) -> None:
        if type(event) is Committed:
            self._committed = max(self._committed, event.entries[-1].index)
        elif type(event) is not Return:
            self._disks.seen(event)
        elif event.result == "ok" and event.at_index > self._committed:
            self._check(event)

    def _check(self, event: Return) -> None:
        index = event.at_index
        for log in self._disks.logs.values():
            term = log.term_at(index)
            if index < log.base:
                return
            if term is not None:
                holders = self._disks.holders(index, term)
                if any(is_quorum(each, holders.__contains__) for each in log.memberships_for(index)):
                    return
        raise Violation(
            self.name,
            f"operation {event.operation} of {event.client} was acknowledged at {event.host}"
            f" for entry {index}, which no quorum holds; committed so far: {self._committed}",
        )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
