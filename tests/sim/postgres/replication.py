"""From a walsender to a walreceiver: a connection over the simulated links, in order, until it breaks.

The receiver writes and flushes what comes and says how far it is; the sender counts that as long as it has
the connection. Either end may be gone for a while before the other hears of it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar.postgres.history import Position, can_follow, end_on
from sidecar.postgres.model import NO_LSN, Lsn, ProcessKind, TimelineHistory
from tests.sim.clock import MS, NS
from tests.sim.network import Stream
from tests.sim.postgres.wal import Record

if TYPE_CHECKING:
    from tests.sim.postgres.server import Server

#: A receiver that was refused, or broke off, tries again after so long (wal_retrieve_retry_interval).
RETRY_NS: Final = 100 * MS
#: Nobody answered.
CONNECT_NS: Final = 2 * NS
BATCH: Final = 200

News = tuple[tuple[Record, ...], TimelineHistory]


class Sending:
    """One connection; on the primary, its walsender."""

    def __init__(self, server: "Server", to: "Server") -> None:
        self.server, self.to = server, to
        world = server.machine.world
        network, scheduler = world.network, world.scheduler
        self._out = Stream(network, scheduler, server.host, to.host, to, self.silence)
        self._back = Stream(network, scheduler, to.host, server.host, server, self.silence)
        self.is_streaming = False
        self.flushed: Lsn = NO_LSN
        self._sent = len(to.data.wal)
        self.is_over = False
        server.sending.append(self)

    def send(self) -> None:
        """What is flushed and not sent yet."""
        data = self.server.data
        while self._sent < data.durable and not self.is_over:
            batch = tuple(data.wal[self._sent : min(data.durable, self._sent + BATCH)])
            self._sent += len(batch)
            self._out.put(self._arrive, (batch, data.history))

    def _arrive(self, news: News) -> None:
        if not self.is_over and self.to.receiving.sending is self:
            self.to.receiving.take(*news)

    def confirm(self, flushed: Lsn) -> None:
        """Of the receiver: it has this."""
        self._back.put(self._confirmed, flushed)

    def _confirmed(self, flushed: Lsn) -> None:
        if self not in self.server.sending:
            return
        self.flushed = max(self.flushed, flushed)
        self.is_streaming = self.is_streaming or self.flushed >= self.server.data.flushed
        self.server.release()

    def silence(self) -> None:
        """Nothing got through for long: both ends give up, each in its own time."""
        self.broken_here()
        self.broken_there()

    def broken_here(self) -> None:
        """The sender's end is gone; the other hears of it, or does not."""
        if self in self.server.sending:
            self.server.sending.remove(self)
            self._tell(self.broken_there)

    def broken_there(self) -> None:
        """The receiver's end is gone."""
        if not self.is_over:
            self.is_over = True
            self.to.receiving.lost(self)
            self._tell(self.broken_here)

    def _tell(self, act: Callable[[], None]) -> None:
        """What is under way arrives before that."""
        server = self.server
        world, network = server.machine.world, server.machine.world.network
        if network.is_cut(server.host, self.to.host) or network.is_cut(self.to.host, server.host):
            after = server.draw(1_000, 5_000)
        else:
            after = network.delay(server.host, self.to.host)
        world.scheduler.at(world.now + after, act)


class Receiving:
    """A machine's walreceiver, if it has one."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.sending: Sending | None = None
        self._attempt = 0

    @property
    def is_wanted(self) -> bool:
        """There is somebody to receive from."""
        return self._server.disk.source is not None

    def begin(self) -> None:
        """Receive from whoever is named."""
        self._attempt += 1
        if self.is_wanted:
            self._server.after(self._server.draw(1, 10), self._connect, self._attempt)

    def end(self) -> None:
        """Receive from nobody."""
        self._attempt += 1
        self.broken_here()

    def broken_here(self) -> None:
        """This end of the connection is gone."""
        sending, self.sending = self.sending, None
        if sending is not None:
            sending.broken_there()

    def lost(self, sending: Sending) -> None:
        """The connection is over."""
        if self.sending is sending:
            self.sending = None
            self._again(self._attempt)

    def _again(self, attempt: int) -> None:
        if self._server.can_receive:
            self._server.after(RETRY_NS, self._connect, attempt)

    def _connect(self, attempt: int) -> None:
        server, source = self._server, self._server.disk.source
        if attempt != self._attempt or source is None or not server.can_receive:
            return
        world = server.machine.world
        network, there = world.network, world.machines[source.host]
        if network.is_cut(server.host, source.host) or network.is_cut(source.host, server.host):
            server.after(CONNECT_NS, self._connect, attempt)
            return
        if not there.is_up or there.is_frozen or there.postgres is None:
            server.after(CONNECT_NS, self._connect, attempt)
            return
        took = network.delay(server.host, source.host) + network.delay(source.host, server.host)
        server.after(took, self._connected, attempt, there.postgres)

    def _connected(self, attempt: int, primary: "Server") -> None:
        server = self._server
        if attempt != self._attempt or not server.can_receive or self.sending is not None:
            return
        world = server.machine.world
        if not _would_send(primary, server):
            self._again(attempt)
            return
        if not server.data.is_prefix_of(primary.data):
            world.violated(
                "database-line",
                f"{server.host} streams from {primary.host}, whose WAL is another than histories say",
            )
        left = end_on(primary.data.history, server.data.history.timeline)
        if left is not None and left < server.data.consistent_at:
            # "requested timeline does not contain minimum recovery point"
            world.count("database-beyond-the-line")
            server.end("another line")
            return
        server.data.fetch_histories(primary.data)
        self.sending = Sending(primary, server)
        self.sending.confirm(server.data.flushed)
        self.sending.send()

    def take(self, records: tuple[Record, ...], history: TimelineHistory) -> None:
        """Write them down, and flush a moment later."""
        server = self._server
        data = server.data
        data.take(records, history)
        server.flush_soon()

    def confirm(self) -> None:
        """Say how far it is."""
        if self.sending is not None:
            self.sending.confirm(self._server.data.flushed)


def _would_send(primary: "Server", standby: "Server") -> bool:
    """As a walsender judges: by identifiers and histories, not by what the records are."""
    if primary.kind is not ProcessKind.PRIMARY or primary.is_stopping:
        return False
    ours, theirs = primary.data, standby.data
    if ours.system_identifier != theirs.system_identifier or theirs.end > ours.flushed:
        return False
    return can_follow(Position(theirs.history, theirs.end), ours.history)
