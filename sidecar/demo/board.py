"""What the demo knows at this moment: the one thing that is drawn.

Owned by the demo's event loop; readers draw it, they never keep parts of it.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.demo.calls import CallLedger
from sidecar.demo.phases import MS, Sight

#: Newest lines that the screen keeps.
LINES_MAX = 12


@dataclass(slots=True)
class Board:
    """Hosts, calls, writes and what is going on."""

    hosts: tuple[str, ...]
    virtual_address: str
    #: Told every line, for a log without a screen.
    tell: Callable[[float, str], None]
    started_ns: int = field(default_factory=time.monotonic_ns)
    phase: str = "starting"
    #: Newest sight of each host; a host that does not answer has none.
    sights: dict[str, Sight] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    killed: set[str] = field(default_factory=set)
    lines: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=LINES_MAX))
    #: Moment → what happened, for the strip chart.
    marks: dict[int, str] = field(default_factory=dict)
    acknowledged: int = 0
    #: Deployments that were acknowledged; None: the demo has no database.
    deployed: int | None = None
    calls_per_bucket: float = 1.0
    ledger: CallLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = CallLedger(self.started_ns)

    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return (time.monotonic_ns() - self.started_ns) / (1000 * MS)

    def begin(self, phase: str) -> None:
        """Enter a part of the story."""
        self.phase = phase
        self.say(phase)

    def say(self, text: str) -> None:
        """Tell that something happened."""
        at_s = self.elapsed_s()
        self.lines.append((at_s, text))
        self.tell(at_s, text)

    def mark(self, at_ns: int, sign: str) -> None:
        """Put a sign of one character under the strip chart."""
        self.marks[at_ns] = sign

    def leader(self) -> str:
        """The leader in the newest term that any host speaks of."""
        known = [sight for sight in self.sights.values() if sight.leader]
        return max(known, key=lambda sight: (sight.term, sight.at_ns)).leader if known else ""

    def ready(self, service: str) -> frozenset[str]:
        """Hosts with a ready instance of a service, as the most advanced host sees it."""
        newest = max(self.sights.values(), key=lambda sight: sight.applied_index, default=None)
        return newest.ready.get(service, frozenset()) if newest else frozenset()
