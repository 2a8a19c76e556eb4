"""What hosts ask of each other by calls: proposals and read points of the leader, and beats.

Stands in for gRPC: a `Connection` belongs to the two lives at its ends and breaks when one is killed
(at once, as the kernel says so) or falls silent (after the keepalive). What was asked and not answered
by then is of unknown outcome.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mesh.errors import NoLeader, OutcomeUnknown, PeerUnreachable, Refused, TrellisError, Unavailable
from mesh.ids import Index, MemberId
from mesh.waiting import Answer, Applied
from mesh.wire.failure import from_failure, to_failure
from sidecar.leadership.beat import Beat, BeatReply
from sidecar.membership.standing import is_removed
from tests.sim.network import Stream
from tests.sim.trace import Granted, Released

if TYPE_CHECKING:
    from tests.sim.host import Life

#: Beats that may wait on a link that takes none, before `send` waits.
BEATS_WAITING_MAX = 4

Given = Callable[["asyncio.Future[Any]"], None]


class Connection:
    """A client's connection to a server, one way each."""

    def __init__(self, client: "Life", server: "Life", on_broken: Callable[[], None]) -> None:
        world = client.world
        self.client, self.server = client, server
        self._on_broken = on_broken
        network, scheduler = world.network, world.scheduler
        here, there = client.host, server.host
        self._network = network
        self._is_established = False
        self.out = Stream(network, scheduler, here, there, server.loop, self._silence, self._is_open)
        self.back = Stream(network, scheduler, there, here, client.loop, self._silence)
        self.is_broken = False
        server.incoming.append(self)

    def _is_open(self) -> bool:
        """It opens once each end hears the other: the kernel over there must be heard to answer."""
        if not self._is_established:
            self._is_established = not self._network.is_cut(self.server.host, self.client.host)
        return self._is_established

    def _silence(self) -> None:
        """Keepalive: the client's end gives up, on its own loop."""
        self.client.loop.call_true(self.client.world.now, self.broken)

    def broken(self) -> None:
        """The client's end learns that nothing more comes."""
        if not self.is_broken:
            self.is_broken = True
            self.out.break_off()
            self.back.break_off()
            if self in self.server.incoming:
                self.server.incoming.remove(self)
            self._on_broken()


class SimLeaderClient:
    """`LeaderServices`: asks the leader's life, wherever it runs."""

    def __init__(self, life: "Life") -> None:
        self._life = life
        self._connections: dict[MemberId, Connection] = {}
        self._pending: dict[MemberId, dict[int, asyncio.Future[Any]]] = {}
        self._numbers = 0

    async def run(self) -> None:
        """See LeaderServices."""
        await asyncio.Event().wait()

    def _connect(self, leader: MemberId) -> Connection:
        connection = self._connections.get(leader)
        if connection is None or connection.is_broken:
            server = self._life.reach(leader)
            if server is None:
                raise PeerUnreachable(f"there is no connection to {leader}", leader=leader)
            connection = Connection(self._life, server, partial(self._lost, leader))
            self._connections[leader] = connection
        return connection

    def _lost(self, leader: MemberId) -> None:
        self._connections.pop(leader, None)
        self._abandon(leader, f"the stream to {leader} broke")

    def _abandon(self, leader: MemberId, reason: str) -> None:
        for answer in self._pending.pop(leader, {}).values():
            if not answer.done():
                answer.set_exception(OutcomeUnknown(reason))

    def abandon_all_but(self, leader: MemberId) -> None:
        """See LeaderServices."""
        for member in list(self._pending):
            if member != leader:
                self._abandon(member, f"{member} no longer leads and has not answered")

    async def propose(self, leader: MemberId, data: bytes, *, timeout_s: float) -> tuple[Index, bytes]:
        """See LeaderServices."""
        answer = self._ask(leader, "serve_proposal", data)
        try:
            async with asyncio.timeout(timeout_s):
                found: tuple[Index, bytes] = await answer
        except TimeoutError:
            raise OutcomeUnknown(f"{leader} did not answer within {timeout_s} s", leader=leader) from None
        return found

    async def read_index(self, leader: MemberId, *, timeout_s: float) -> Index:
        """See LeaderServices."""
        answer = self._ask(leader, "serve_read", timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                index: Index = await answer
        except (TimeoutError, TrellisError) as error:
            raise PeerUnreachable(f"{leader} did not confirm a read: {error}", leader=leader) from error
        return index

    def _ask(self, leader: MemberId, method: str, given: Any) -> "asyncio.Future[Any]":
        connection = self._connect(leader)
        self._numbers += 1
        number, answer = self._numbers, self._life.loop.create_future()
        self._pending.setdefault(leader, {})[number] = answer
        serve = getattr(connection.server.services, method)
        reply = partial(connection.back.put, partial(self._answered, leader, number))
        connection.out.put(serve, (self._life.member, given, reply))
        return answer

    def _answered(self, leader: MemberId, number: int, end: Any) -> None:
        answer = self._pending.get(leader, {}).pop(number, None)
        if answer is None or answer.done():
            return
        if isinstance(end, Exception):
            answer.set_exception(end)
        else:
            answer.set_result(end)


Reply = Callable[[Any], None]


class LeaderServer:
    """The other end: what `ReplicationServicer` does with a proposal and a question for a read point."""

    def __init__(self, life: "Life") -> None:
        self._life = life
        self._reading: set[asyncio.Task[None]] = set()

    def _is_denied(self, caller: MemberId) -> bool:
        return is_removed(self._life.replica.state, caller)

    def serve_proposal(self, call: tuple[MemberId, bytes, Reply]) -> None:
        caller, data, reply = call
        if self._is_denied(caller):
            reply(Refused(f"{caller} is not of this cluster any more"))
            return
        try:
            self._life.driver.submit(data, partial(self._fate, reply))
        except TrellisError as error:
            self._fate(reply, error)

    def _fate(self, reply: Reply, answer: Answer) -> None:
        if isinstance(answer, Applied):
            reply((answer.index, self._life.codec.encode(answer.outcome)))
        else:
            is_certain = isinstance(answer, Refused | Unavailable)
            reply(from_failure(to_failure(answer), is_certain=is_certain))

    def serve_read(self, call: tuple[MemberId, float, Reply]) -> None:
        caller, timeout_s, reply = call
        if not self._is_denied(caller):
            task = self._life.loop.create_task(self._read(timeout_s, reply))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, timeout_s: float, reply: Reply) -> None:
        try:
            reply(await self._life.driver.read_index(timeout_s=timeout_s))
        except TrellisError as error:
            reply(NoLeader(str(error)))


class SimBeatStream:
    """`BeatStream` to the life that runs a leader."""

    def __init__(self, life: "Life", leader: MemberId) -> None:
        server = life.reach(leader)
        if server is None:
            raise PeerUnreachable(f"{leader} is not known here yet")
        self._life = life
        self._server = server
        self._connection = Connection(life, server, self._lost)
        self._source = 0
        self._replies: asyncio.Queue[BeatReply | None] = asyncio.Queue()

    def _lost(self) -> None:
        self._replies.put_nowait(None)

    async def send(self, beat: Beat) -> None:
        """See BeatStream."""
        while self._connection.out.backlog >= BEATS_WAITING_MAX and not self._connection.is_broken:
            await asyncio.sleep(0.05)
        if self._connection.is_broken:
            raise PeerUnreachable("the leader takes no beats")
        life = self._life
        for name, fencing_term in beat.releases:
            life.world.emit(Released(life.world.now, life.host, life.member, name, fencing_term))
        self._connection.out.put(self._arrived, beat)

    def _arrived(self, beat: Beat) -> None:
        """On the leader's loop."""
        server, member = self._server, self._life.member
        if is_removed(server.replica.state, member):
            return
        if not self._source:
            self._source = server.next_source()
        world = server.world
        arrived_ns = world.now
        reply = server.core.answers.answer(member, beat, self._source)
        if reply.answer.granted:
            term = reply.answer.term
            world.emit(Granted(world.now, server.host, server.member, term, member, arrived_ns))
        self._connection.back.put(self._replies.put_nowait, reply)

    async def replies(self) -> AsyncIterator[BeatReply]:
        """See BeatStream."""
        while True:
            reply = await self._replies.get()
            if reply is None:
                raise PeerUnreachable("the stream broke")
            yield reply

    def close(self) -> None:
        """See BeatStream."""
        self._connection.broken()
