"""Every queue keeps within its bound, and its bound is the one that was written down.

Proves: at each sample, no more items than the bound it was told with; where the queue is in
`mesh.limits`, the bound is not above that. Would not notice: what grows and is not sampled, or grows
and shrinks again between two samples.
"""

from typing import ClassVar, Final

from mesh import limits
from mesh.lease.holder import BEATS_REMEMBERED_MAX
from mesh.replica import LANES_MAX
from tests.sim.trace import Event, Facts, Queues, Violation

LIMITS: Final = {
    "proposals": limits.PROPOSALS_PENDING_MAX,
    "reads": limits.READS_PENDING_MAX,
    "far-reads": limits.READS_PENDING_MAX,
    "confirmations": limits.READS_PENDING_MAX,
    "outbox": limits.OUTBOX_MESSAGES_MAX,
    #: The first entry is taken whatever its size.
    "uncommitted-bytes": limits.UNCOMMITTED_BYTES_MAX + limits.COMMAND_BYTES_MAX,
    "beats": BEATS_REMEMBERED_MAX,
    "lanes": LANES_MAX,
    "watchers": limits.WATCHERS_MAX,
    "sessions": limits.SESSIONS_MAX,
    "events": limits.EVENTS_MAX,
    "documents": limits.DOCUMENTS_MAX,
    "tombstones": limits.TOMBSTONES_MAX,
}


class QueueBounds:
    name: ClassVar[str] = "queues"
    wants: ClassVar[tuple[type[Event], ...]] = (Queues,)

    def __init__(self, facts: Facts) -> None:
        pass

    def seen(self, event: Event) -> None:
        assert type(event) is Queues
        for name, items, bound in event.sizes:
            if items > bound or bound > LIMITS.get(name, bound):
                raise Violation(
                    self.name,
                    f"{event.member} has {items} in {name}, its bound is {bound}"
                    f" (written down: {LIMITS.get(name, 'nowhere')})",
                )

    def finished(self, at_ns: int) -> None:
        """Nothing is left to judge."""
