"""The network between simulated machines: what a link does to messages, and streams that keep their order.

Raft's messages travel alone: they may be lost, doubled, delayed and overtaken. Calls and beats travel
on `Stream`s, as on a TCP connection: in order, late rather than lost, until the stream breaks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from mesh.ids import HostId
from tests.sim.clock import MS
from tests.sim.loop import Scheduler, SimLoop

#: A segment that found the link cut is sent again after so long, doubling.
RESEND_NS = 200 * MS
RESEND_NS_MAX = 1_600 * MS


@dataclass(slots=True)
class Link:
    """One direction between two machines, as it is now."""

    delay_ns: int = 300_000
    #: Up to so much more, for each message by itself: they overtake each other.
    jitter_ns: int = 0
    loss: float = 0.0
    twice: float = 0.0
    is_cut: bool = False
    #: Held back while clogged: what is to be done once released.
    clogged: list[Callable[[], None]] | None = None
    #: Nothing of the above: one addition is all a message costs.
    is_plain: bool = field(default=True)

    def settle(self) -> None:
        """Call after a change."""
        self.is_plain = not (
            self.jitter_ns or self.loss or self.twice or self.is_cut or self.clogged is not None
        )


class Receiver(Protocol):
    """Whose code runs at the end of a link."""

    def call_true(self, when: int, callback: Callable[..., None], *args: Any) -> object:
        """Call at a true time, if it runs then."""


class Network:
    """All links. Counts what it did to messages."""

    def __init__(
        self, scheduler: Scheduler, hosts: list[HostId], chance: Random, count: Callable[[str], None]
    ) -> None:
        self._scheduler = scheduler
        self._chance = chance
        self._count = count
        self.links = {(a, b): Link() for a in hosts for b in hosts if a != b}
        #: Messages that left, in all.
        self.sent = 0

    def carry(self, source: HostId, to: HostId, loop: SimLoop, act: Callable[[Any], None], what: Any) -> None:
        """Have *act(what)* called on *loop*, which runs on *to*, if and when the link lets it."""
        self.sent += 1
        link = self.links[source, to]
        now = self._scheduler.now
        if link.is_plain:
            loop.call_true(now + link.delay_ns, act, what)
            return
        if link.is_cut:
            self._count("net-cut")
            return
        chance = self._chance
        if link.loss and chance.random() < link.loss:
            self._count("net-lost")
            return
        if link.clogged is not None:
            self._count("net-clogged")
            link.clogged.append(lambda: self._pass(link, loop, act, what))
            return
        times = 1
        if link.twice and chance.random() < link.twice:
            self._count("net-doubled")
            times = 2
        for _ in range(times):
            late = int(chance.random() * link.jitter_ns) if link.jitter_ns else 0
            loop.call_true(now + link.delay_ns + late, act, what)

    def _pass(self, link: Link, loop: SimLoop, act: Callable[[Any], None], what: Any) -> None:
        loop.call_true(self._scheduler.now + link.delay_ns, act, what)

    def is_cut(self, source: HostId, to: HostId) -> bool:
        """Nothing gets from one to the other now."""
        link = self.links[source, to]
        return link.is_cut or link.clogged is not None

    def release(self, link: Link, shuffle: bool) -> None:
        """Let a clogged link go, in another order if so wanted."""
        held, link.clogged = link.clogged or [], None
        link.settle()
        if shuffle:
            self._chance.shuffle(held)
        for each in held:
            each()

    def delay(self, source: HostId, to: HostId) -> int:
        """How long one segment takes now, with resending where the link loses."""
        link = self.links[source, to]
        late = link.delay_ns
        if not link.is_plain:
            late += int(self._chance.random() * link.jitter_ns)
            wait = RESEND_NS
            while link.loss and self._chance.random() < link.loss:
                late += wait
                wait = min(2 * wait, RESEND_NS_MAX)
        return late


class Stream:
    """One direction of a connection: in order, and nothing is lost before it breaks."""

    def __init__(
        self,
        network: Network,
        scheduler: Scheduler,
        source: HostId,
        to: HostId,
        loop: Receiver,
        on_silence: Callable[[], None] = lambda: None,
        is_open: Callable[[], bool] = lambda: True,
    ) -> None:
        """*loop* runs on *to*; *on_silence*: nothing got through for the keepalive's time.

        Nothing leaves before *is_open*: it is asked when the way there is free.
        """
        self._on_silence = on_silence
        self._is_open = is_open
        self._network = network
        self._scheduler = scheduler
        self._source = source
        self._to = to
        self._loop = loop
        self._free_at = 0
        self._waiting: list[tuple[Callable[[Any], None], Any]] = []
        self._is_resending = False
        self.is_broken = False

    @property
    def backlog(self) -> int:
        """What waits because the link is cut."""
        return len(self._waiting)

    def put(self, act: Callable[[Any], None], what: Any) -> None:
        """Have *act(what)* called at the other end after everything before it."""
        if self.is_broken:
            return
        if self._waiting or self._is_held():
            self._waiting.append((act, what))
            if not self._is_resending:
                self._is_resending = True
                self._scheduler.at(self._scheduler.now + RESEND_NS, self._resend, RESEND_NS)
            return
        self._send(act, what)

    def _is_held(self) -> bool:
        return self._network.is_cut(self._source, self._to) or not self._is_open()

    def _send(self, act: Callable[[Any], None], what: Any) -> None:
        at = self._scheduler.now + self._network.delay(self._source, self._to)
        self._free_at = at = max(at, self._free_at)
        self._loop.call_true(at, self._arrive, act, what)

    def _arrive(self, act: Callable[[Any], None], what: Any) -> None:
        if not self.is_broken:
            act(what)

    def _resend(self, waited: int) -> None:
        if self.is_broken:
            return
        if self._is_held():
            if waited >= RESEND_NS_MAX:  # longer than the keepalive waits
                self._on_silence()
                return
            wait = min(2 * waited, RESEND_NS_MAX)
            self._scheduler.at(self._scheduler.now + wait, self._resend, wait)
            return
        self._is_resending = False
        waiting, self._waiting = self._waiting, []
        for act, what in waiting:
            self._send(act, what)

    def break_off(self) -> None:
        """Nothing more arrives."""
        self.is_broken = True
        self._waiting.clear()
