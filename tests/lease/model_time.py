"""Real time, each host's own clock, and messages that take their time or get lost."""

import heapq
from collections.abc import Callable
from random import Random

from mesh.ids import HostId
from tests.lease.model_host import MS, Host


class SimulatedTime:
    """Events in the order of real time, in nanoseconds; all chance comes from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        #: Links that carry nothing.
        self.cut: set[frozenset[HostId]] = set()
        #: Some messages take much longer.
        self.slow = False

    def at(self, real: int, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (max(real, self.now), self._count, event))

    def after(self, delay: int, event: Callable[[], None]) -> None:
        self.at(self.now + delay, event)

    def run(self, until: int) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def local(self, host: Host) -> int:
        return int(self.now * host.rate) + host.offset

    def real_delay(self, host: Host, local_at: int) -> int:
        return max(0, int((local_at - self.local(host)) / host.rate)) + 2  # never early by rounding

    def deliver(self, sender: Host, to: Host, what: Callable[[], None]) -> None:
        """Run `what` at `to` unless the link is cut now or either process is another one by then."""
        if frozenset((sender.id, to.id)) in self.cut:
            return
        process = to.process
        worst = 600 * MS if self.slow and self.random.random() < 0.3 else 15 * MS
        delay = 0 if sender is to else self.random.randrange(MS // 10, worst)

        def arrive() -> None:
            if to.up and to.process == process:
                (to.inbox.append if to.frozen else lambda act: act())(what)

        self.after(delay, arrive)

    def each(self, host: Host, every: int, act: Callable[[Host], None]) -> None:
        """A loop of the present process of `host`."""
        process = host.process

        def turn() -> None:
            if host.process != process or not host.up:
                return
            if not host.frozen:
                act(host)
            self.after(every, turn)

        self.after(self.random.randrange(every), turn)
