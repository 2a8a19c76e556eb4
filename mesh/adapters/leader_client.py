"""The leader's services as other members call them: propose and read index.

One stream per leader carries all proposals; answers find their question by
number. When it breaks, what was written is of unknown outcome and what was not
written is refused for certain.
"""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from trellis.common.v1.common_pb2 import MessageHeader
from trellis.replication.v1 import replication_pb2 as replication
from trellis.replication.v1.replication_pb2_grpc import ReplicationServiceStub

from mesh import failpoints, limits
from mesh.adapters.alongside import BROKEN, alongside
from mesh.adapters.channel import is_accepted
from mesh.adapters.outbox import Outbox
from mesh.errors import OutcomeUnknown, PeerUnreachable, QueueFull
from mesh.ids import ClusterId, Index, MemberId
from mesh.wire.failure import from_failure

ChannelTo = Callable[[MemberId], grpc.aio.Channel | None]


class LeaderClient:
    """Asks whichever member leads, over the channels of the transport."""

    def __init__(self, cluster: ClusterId, member: MemberId, channel_to: ChannelTo) -> None:
        self._cluster = cluster
        self._member = member
        self._channel_to = channel_to
        self._streams: dict[MemberId, ProposeStream] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Carry proposals until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    async def propose(
        self, leader: MemberId, data: bytes, *, timeout_s: float, traceparent: str = ""
    ) -> tuple[Index, bytes]:
        """Have *leader* add a command; its index and encoded outcome once applied.

        Cancellation: the command may still be applied.
        Fails: a `Refused` or `Unavailable` for certain; `OutcomeUnknown`.
        """
        stream = self._stream_to(leader)
        answer = stream.send(data, traceparent)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise OutcomeUnknown(f"{leader} did not answer within {timeout_s} s", leader=leader) from None

    def _stream_to(self, leader: MemberId) -> "ProposeStream":
        stream, channel = self._streams.get(leader), self._channel_to(leader)
        if channel is None or self._tasks is None:
            raise PeerUnreachable(f"there is no connection to {leader}", leader=leader)
        if stream is None or stream.is_over or stream.channel is not channel:
            header = MessageHeader(cluster_id=self._cluster, sender=self._member, to=leader)
            stream = self._streams[leader] = ProposeStream(leader, channel, header)
            running = self._tasks.create_task(stream.run(), name=f"propose:{leader}")
            running.add_done_callback(partial(self._forget, leader, stream))
        return stream

    def _forget(self, leader: MemberId, ended: "ProposeStream", _: object) -> None:
        if self._streams.get(leader) is ended:
            del self._streams[leader]

    def abandon_all_but(self, leader: MemberId) -> None:
        """Others lead no more: what they were asked and have not answered is of unknown outcome."""
        for member, stream in list(self._streams.items()):
            if member != leader:
                stream.abandon(f"{member} no longer leads and has not answered")

    async def read_index(self, leader: MemberId, *, timeout_s: float) -> Index:
        """A read point confirmed by *leader*. Fails: `PeerUnreachable`."""
        channel = self._channel_to(leader)
        if channel is None:
            raise PeerUnreachable(f"there is no connection to {leader}", leader=leader)
        header = MessageHeader(cluster_id=self._cluster, sender=self._member, to=leader)
        request = replication.ReadIndexRequest(header=header)
        try:
            response = await ReplicationServiceStub(channel).ReadIndex(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise PeerUnreachable(
                f"{leader} did not confirm a read: {error.details()}", leader=leader
            ) from error
        return Index(response.index)


class ProposeStream:
    """Proposals to one leader, many under way.

    Bound: `limits.PROPOSALS_PENDING_MAX` without an answer.
    """

    def __init__(self, leader: MemberId, channel: grpc.aio.Channel, header: MessageHeader) -> None:
        self._leader = leader
        self.channel = channel
        self._header = header
        self._numbers = itertools.count(1)
        self._outbox: Outbox[replication.ProposeRequest] = Outbox(limits.PROPOSALS_PENDING_MAX)
        self._pending: dict[int, asyncio.Future[tuple[Index, bytes]]] = {}
        self._written = 0
        #: Takes no more commands.
        self.is_over = False

    def send(self, data: bytes, traceparent: str) -> "asyncio.Future[tuple[Index, bytes]]":
        """Queue a command; the future of its answer. Fails: `QueueFull`."""
        if len(self._pending) >= limits.PROPOSALS_PENDING_MAX:
            raise QueueFull(f"{len(self._pending)} commands wait for {self._leader}; try again shortly")
        number = next(self._numbers)
        answer: asyncio.Future[tuple[Index, bytes]] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        self._outbox.put(replication.ProposeRequest(request=number, command=data, traceparent=traceparent))
        return answer

    async def run(self) -> None:
        """Write and read until the stream ends; then nothing is left pending."""
        call: Any = ReplicationServiceStub(self.channel).Propose()
        try:
            name = f"propose-writer:{self._leader}"
            async with alongside(self._write(call), name=name, failed=call.cancel):
                while (response := await call.read()) is not grpc.aio.EOF:
                    self._answer(response)
                    for each in response.more:
                        self._answer(each)
        except BROKEN:
            pass  # what it means for each command is said below
        finally:
            call.cancel()
            self.is_over = True
            self.abandon(f"the stream to {self._leader} broke")

    async def _write(self, call: Any) -> None:
        if not is_accepted(await call.initial_metadata()):
            return  # the reader gets the reason
        while True:
            first, *more = await self._outbox.take_some(
                limits.PROPOSALS_PER_MESSAGE_MAX, limits.PROPOSALS_PER_MESSAGE_BYTES_MAX, _weigh
            )
            await failpoints.passing("leader-client.before-write")
            self._written = (more[-1] if more else first).request
            first.header.CopyFrom(self._header)
            first.more.extend(more)
            await call.write(first)
            await failpoints.passing("leader-client.written")

    def _answer(self, response: replication.ProposeResponse) -> None:
        answer = self._pending.pop(response.request, None)
        if answer is None or answer.done():
            return
        outcome = response.WhichOneof("outcome")
        if outcome == "applied":
            answer.set_result((Index(response.index), response.applied))
        elif outcome == "refused":
            answer.set_exception(from_failure(response.refused, is_certain=True))
        else:
            answer.set_exception(from_failure(response.unknown, is_certain=False))

    def abandon(self, reason: str) -> None:
        """Answer everything that is pending with the error."""
        for number, answer in self._pending.items():
            if answer.done():
                continue
            if number > self._written:
                answer.set_exception(PeerUnreachable(f"{reason}; the command was not sent"))
            else:
                answer.set_exception(OutcomeUnknown(reason))
        self._pending.clear()
        self._outbox.clear()


def _weigh(request: replication.ProposeRequest) -> int:
    return len(request.command)
