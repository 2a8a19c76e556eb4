"""The streams from this member to one other member.

One stream each for elections and entries, opened at once and reopened for
ever; one for snapshots on a connection of its own, opened when there is something
to send. Answers of the peer arrive on the same streams.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import grpc
from trellis.election.v1 import election_pb2_grpc
from trellis.replication.v1 import replication_pb2_grpc

from mesh import failpoints, limits
from mesh.adapters.alongside import BROKEN, alongside
from mesh.adapters.channel import is_accepted, open_channel
from mesh.adapters.outbox import Outbox
from mesh.ids import ClusterId, MemberId
from mesh.ports import MeshIdentity
from mesh.raft.model import Append, Message
from mesh.wire.raft import Lane, Wire, encode

#: Pause before a broken stream is reopened; gRPC has its own back-off for connecting.
REOPEN_PAUSE_S = (0.02, 0.06)
#: A snapshot stream that has had nothing to send for so long is closed.
SNAPSHOT_IDLE_S = 10.0
#: Calls that others make over this link's channel may go on for so long when the link ends.
CLOSE_GRACE_S = 1.0
#: How long news of the commit index alone may wait for entries to travel with.
COMMIT_NEWS_DELAY_S = 0.004

OUTBOX_BOUNDS = {
    Lane.ELECTION: limits.HEARTBEAT_OUTBOX_MAX,
    Lane.APPEND: limits.OUTBOX_MESSAGES_MAX,
    Lane.SNAPSHOT: limits.HEARTBEAT_OUTBOX_MAX,
}


class PeerLink:
    """Everything this member sends to *member*, and what comes back.

    Bound: one outbox per lane, dropping the oldest; a broken stream drops its own.
    Messages are encoded when their turn comes: an outbox holds references, not copies.
    """

    def __init__(
        self,
        member: MemberId,
        address: str,
        *,
        cluster: ClusterId,
        identity: MeshIdentity,
        received: Callable[[MemberId, Wire], None],
        broken: Callable[[MemberId], None],
    ) -> None:
        self.member = member
        self.address = address
        self._cluster = cluster
        self._identity = identity
        self._received = received
        self._broken = broken
        self.channel = open_channel(address, member, identity)
        self._outboxes: dict[Lane, Outbox[Message]] = {
            lane: Outbox(bound) for lane, bound in OUTBOX_BOUNDS.items()
        }
        self._held: asyncio.TimerHandle | None = None
        self._news: Append | None = None

    def send(self, lane: Lane, message: Message) -> bool:
        """Queue *message*; False when an older one was dropped for it.

        An append that only raises the commit index waits a moment: most often the next
        entries bring the same news for free.
        """
        if lane is Lane.APPEND and isinstance(message, Append):
            if message.entries:
                self._cancel_held()
            else:
                self._hold(message)
                return True
        return self._outboxes[lane].put(message)

    def _hold(self, news: Append) -> None:
        """Newer news replaces older, but does not start the wait again."""
        self._news = news
        if self._held is None:
            self._held = asyncio.get_running_loop().call_later(COMMIT_NEWS_DELAY_S, self._tell_news)

    def _tell_news(self) -> None:
        self._held = None
        if self._news is not None:
            self._outboxes[Lane.APPEND].put(self._news)
            self._news = None

    def _cancel_held(self) -> None:
        self._news = None
        if self._held is not None:
            self._held.cancel()
            self._held = None

    async def run(self) -> None:
        """Keep the streams open until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._run_lane(Lane.ELECTION), name=f"elect:{self.member}")
                tasks.create_task(self._run_lane(Lane.APPEND), name=f"append:{self.member}")
                tasks.create_task(self._run_snapshots(), name=f"snapshot:{self.member}")
        finally:
            self._cancel_held()
            await self.channel.close(CLOSE_GRACE_S)

    async def _run_lane(self, lane: Lane) -> None:
        outbox = self._outboxes[lane]
        while True:
            await self._converse(self._open(self.channel, lane), outbox, idle_s=None)
            outbox.clear()
            await asyncio.sleep(random.uniform(*REOPEN_PAUSE_S))  # noqa: S311 - spreads reconnects

    async def _run_snapshots(self) -> None:
        outbox = self._outboxes[Lane.SNAPSHOT]
        while True:
            await outbox.wait_filled()
            channel = open_channel(self.address, self.member, self._identity)
            try:
                await self._converse(self._open(channel, Lane.SNAPSHOT), outbox, idle_s=SNAPSHOT_IDLE_S)
            finally:
                await channel.close(None)
            await asyncio.sleep(random.uniform(*REOPEN_PAUSE_S))  # noqa: S311 - spreads reconnects

    def _open(self, channel: grpc.aio.Channel, lane: Lane) -> Any:
        if lane is Lane.ELECTION:
            return election_pb2_grpc.ElectionServiceStub(channel).Elect(wait_for_ready=True)
        stub = replication_pb2_grpc.ReplicationServiceStub(channel)
        open_stream = stub.Append if lane is Lane.APPEND else stub.InstallSnapshot
        return open_stream(wait_for_ready=True)

    async def _converse(self, call: Any, outbox: Outbox[Message], *, idle_s: float | None) -> None:
        """Write and read until the stream breaks."""
        was_open = False
        try:
            was_open = is_accepted(await call.initial_metadata())
            await failpoints.passing("link.opened")
            writing = self._write(call, outbox, idle_s)
            async with alongside(writing, name=f"write:{self.member}", failed=call.cancel):
                while (wire := await call.read()) is not grpc.aio.EOF:
                    self._received(self.member, wire)
        except BROKEN:
            pass  # reopened by the caller; `broken` tells the others
        finally:
            call.cancel()
        if was_open and idle_s is None:
            self._broken(self.member)

    async def _write(self, call: Any, outbox: Outbox[Message], idle_s: float | None) -> None:
        if idle_s is None:
            while True:
                message = await outbox.take()
                await failpoints.passing("link.before-write")
                await call.write(encode(message, self._cluster))
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(idle_s):
                    message = await outbox.take()
                await call.write(encode(message, self._cluster))
        await call.done_writing()
