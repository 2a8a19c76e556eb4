"""Carries Raft messages between members by gRPC over mTLS.

Questions leave on this member's own streams (peer_link.py); answers go back on
the stream by which the question came, which the peer opened and a servicer
hands to `serve`. A message is delivered only if cluster, receiver and sender in its
header are right and the sender's host is the one its certificate names.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from mesh import failpoints
from mesh.adapters.alongside import alongside
from mesh.adapters.channel import ACCEPTED
from mesh.adapters.crash_probe import CrashProbe
from mesh.adapters.outbox import Outbox
from mesh.adapters.peer_link import OUTBOX_BOUNDS, PeerLink
from mesh.counters import ConsensusCounters
from mesh.errors import InvalidRequest
from mesh.ids import ClusterId, HostId, MemberId, host_of
from mesh.ports import CrashCallback, MeshIdentity
from mesh.raft.model import Message
from mesh.wire.raft import Lane, Wire, decode, encode, lane_of


class GrpcTransport:
    """One member's connections to all others.

    Order: within one lane to one peer messages keep their order; a broken
    stream loses what it held.
    """

    def __init__(
        self,
        *,
        cluster: ClusterId,
        member: MemberId,
        identity: MeshIdentity,
        counters: ConsensusCounters,
        deliver: Callable[[Message], None],
        on_unreachable: Callable[[MemberId], None],
        on_crash: CrashCallback,
    ) -> None:
        self._cluster = cluster
        self._member = member
        self._identity = identity
        self._counters = counters
        self._deliver = deliver
        self._on_unreachable = on_unreachable
        self._probe = CrashProbe(on_crash)
        self._tasks: asyncio.TaskGroup | None = None
        self._addresses: dict[MemberId, str] = {}
        self._links: dict[MemberId, PeerLink] = {}
        self._running: dict[MemberId, asyncio.Task[None]] = {}
        #: Where answers to a member's questions go, by lane.
        self._answers: dict[tuple[Lane, MemberId], Outbox[Message]] = {}

    async def run(self) -> None:
        """Keep links to all peers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._reconcile()
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None

    def set_peers(self, addresses: Mapping[MemberId, str]) -> None:
        """The members to be linked to from now on, with their mesh addresses; itself is left out."""
        self._addresses = {m: a for m, a in sorted(addresses.items()) if m != self._member}
        self._reconcile()

    def reopen(self) -> None:
        """Replace every connection; what is under way on the old ones has a moment to end."""
        for member in list(self._links):
            self._end_link(member)
        self._reconcile()

    def _end_link(self, member: MemberId) -> None:
        del self._links[member]
        self._running.pop(member).cancel()

    def channel_to(self, member: MemberId) -> grpc.aio.Channel | None:
        """The channel to *member*, for the leader's services; None for a stranger."""
        link = self._links.get(member)
        return link.channel if link else None

    def _reconcile(self) -> None:
        if self._tasks is None:
            return
        for member, link in list(self._links.items()):
            if self._addresses.get(member) != link.address:
                self._end_link(member)
        for member, address in self._addresses.items():
            if member not in self._links:
                link = PeerLink(
                    member,
                    address,
                    cluster=self._cluster,
                    identity=self._identity,
                    received=self._receive,
                    broken=self._note_broken,
                )
                self._links[member] = link
                self._running[member] = self._tasks.create_task(link.run(), name=f"link:{member}")

    # ---- sending --------------------------------------------------------------------

    def send(self, messages: Iterable[Message]) -> None:
        """Queue *messages*; whatever finds no stream is dropped and counted."""
        failpoints.hit("transport.sending")
        counters = self._counters
        for message in messages:
            lane, is_answer = lane_of(message)
            counters.messages_sent += 1
            if is_answer:
                answers = self._answers.get((lane, message.to))
                had_room = answers.put(message) if answers is not None else self._no_way()
            else:
                link = self._links.get(message.to)
                had_room = link.send(lane, message) if link is not None else self._no_way()
            if not had_room:
                counters.dropped["outbox-full"] += 1

    def _no_way(self) -> bool:
        self._counters.dropped["no-stream"] += 1
        return True

    # ---- receiving ------------------------------------------------------------------

    def _receive(self, peer: MemberId, wire: Wire) -> None:
        """An answer on a stream that this member opened to *peer*."""
        if self._is_acceptable(wire, host_of(peer)):
            self._accept(wire)

    def _is_acceptable(self, wire: Wire, host: HostId) -> bool:
        header = wire.header
        if header.cluster_id != self._cluster:
            self._counters.dropped["wrong-cluster"] += 1
        elif header.to != self._member:
            self._counters.dropped["wrong-receiver"] += 1
        elif host_of(MemberId(header.sender)) != host:
            self._counters.dropped["forged-sender"] += 1
        else:
            return True
        return False

    def _accept(self, wire: Wire) -> None:
        try:
            message = decode(wire)
        except InvalidRequest:
            self._counters.dropped["malformed"] += 1
            return
        self._counters.messages_received += 1
        failpoints.hit("transport.received")
        self._probe.heard(message.sender)
        self._deliver(message)

    async def serve(self, lane: Lane, context: Any) -> None:
        """Take in one stream that a peer opened, until it ends. Fails: `Denied`."""
        host = self._identity.check_peer(context.auth_context())
        await failpoints.passing("transport.accepting")
        outbox: Outbox[Message] = Outbox(OUTBOX_BOUNDS[lane])
        senders: set[MemberId] = set()
        try:
            await context.send_initial_metadata(ACCEPTED)
            async with alongside(self._answer(context, outbox), name=f"answer:{lane.value}:{host}"):
                while (wire := await context.read()) is not grpc.aio.EOF:
                    if self._is_acceptable(wire, host):
                        sender = MemberId(wire.header.sender)
                        if self._answers.get((lane, sender)) is not outbox:
                            self._answers[lane, sender] = outbox
                            senders.add(sender)
                        self._accept(wire)
        finally:
            for sender in sorted(senders):
                if self._answers.get((lane, sender)) is outbox:
                    del self._answers[lane, sender]
                    if lane is not Lane.SNAPSHOT:
                        self._note_broken(sender)

    async def _answer(self, context: Any, outbox: Outbox[Message]) -> None:
        while True:
            await context.write(encode(await outbox.take(), self._cluster))

    # ---- breaking -------------------------------------------------------------------

    def _note_broken(self, member: MemberId) -> None:
        """A stream from or to *member* ended: it may be dead."""
        failpoints.hit("transport.broken")
        self._on_unreachable(member)
        address = self._addresses.get(member)
        if self._tasks is not None and address is not None:
            self._probe.start(member, address, self._tasks)
