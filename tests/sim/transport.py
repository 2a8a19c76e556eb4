"""`Transport` of one life: Raft's messages, and how breaking connections become crash proofs."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mesh.adapters.crash_probe import CONNECT_TIMEOUT_S, CrashProbe
from mesh.adapters.peer_link import COMMIT_NEWS_DELAY_S
from mesh.ids import HostId, MemberId
from mesh.raft.model import (
    Append,
    AppendReply,
    Message,
    RequestVote,
    RequestVoteReply,
    SnapshotChunk,
    SnapshotReply,
)
from mesh.wire.raft import lane_of
from sidecar.membership.standing import is_removed
from tests.sim.trace import Acked, TermRaised, Voted

if TYPE_CHECKING:
    from tests.sim.host import Life


class SimTransport:
    """Hands messages to the network, and takes in what it brings."""

    def __init__(self, life: "Life") -> None:
        self._life = life
        self._addresses: dict[MemberId, str] = {}
        self._probe = CrashProbe(self._proven, self._is_refused)
        self._tasks: asyncio.TaskGroup | None = None
        self._held: dict[MemberId, Append] = {}

    async def run(self) -> None:
        """See Transport."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await asyncio.Event().wait()

    def set_peers(self, addresses: Mapping[MemberId, str]) -> None:
        """See Transport."""
        self._addresses = {m: a for m, a in sorted(addresses.items()) if m != self._life.member}

    def knows(self, member: MemberId) -> bool:
        """There is an address to reach it at."""
        return member in self._addresses

    # ---- sending ----------------------------------------------------------------------

    def send(self, messages: Iterable[Message]) -> None:
        """See Network."""
        for message in messages:
            kind = type(message)
            if kind is Append:
                assert isinstance(message, Append)
                if message.entries:
                    self._held.pop(message.to, None)
                else:  # as PeerLink: news of the commit index waits for entries to travel with
                    if message.to not in self._held:
                        self._life.loop.call_later(COMMIT_NEWS_DELAY_S, self._tell_news, message.to)
                    self._held[message.to] = message
                    continue
            elif kind is not AppendReply and kind is not RequestVoteReply and kind is not SnapshotReply:
                pass
            else:
                self._promise(message)
            self._put(message)

    def _tell_news(self, to: MemberId) -> None:
        message = self._held.pop(to, None)
        if message is not None:
            self._put(message)

    def _put(self, message: Message) -> None:
        life = self._life
        to = message.to
        if type(message) is SnapshotChunk and life.machine.garbles:
            message = self._garbled(message)
        if to in self._addresses or lane_of(message)[1]:  # answers go back by the question's stream
            peer = life.world.life_of(to)
            if peer is not None:
                life.world.network.carry(life.host, peer.host, peer.loop, peer.transport.receive, message)

    def _garbled(self, chunk: SnapshotChunk) -> SnapshotChunk:
        life = self._life
        if not chunk.data or life.chance.random() >= life.machine.garbles:
            return chunk
        life.world.count("chunk-garbled")
        return replace(chunk, data=bytes((chunk.data[0] ^ 1, *chunk.data[1:])))

    def _promise(self, message: Message) -> None:
        life = self._life
        now, host, member = life.world.now, life.host, life.member
        if isinstance(message, AppendReply):
            if not message.rejected:
                life.world.emit(Acked(now, host, member, message.term, message.to, message.matched))
        elif isinstance(message, RequestVoteReply):
            if message.granted and not message.pre_vote:
                life.world.emit(Voted(now, host, member, message.term, message.to))
        elif isinstance(message, SnapshotReply) and message.installed:
            life.world.emit(Acked(now, host, member, message.term, message.to, message.last.index))

    # ---- receiving --------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """The network brings *message*."""
        life = self._life
        sender = message.sender
        if message.to != life.member or is_removed(life.replica.state, sender):
            return
        message = life.world.recode(life, message)
        self._probe.heard(sender)
        driver = life.driver
        before = driver.term
        driver.deliver(message)
        if driver.term != before:
            was_asked = isinstance(message, RequestVote) and message.pre_vote
            raised = TermRaised(life.world.now, life.host, life.member, driver.term, sender, was_asked)
            life.world.emit(raised)

    # ---- breaking ---------------------------------------------------------------------

    def broken(self, member: MemberId) -> None:
        """A stream from or to *member* ended: it may be dead."""
        address = self._addresses.get(member)
        if self._tasks is not None and address is not None:
            self._life.driver.report_unreachable(member)
            self._probe.start(member, address, self._tasks)

    def _proven(self, member: MemberId) -> None:
        self._life.world.count("crash-proof")
        self._life.driver.report_crash(member)

    async def _is_refused(self, address: str) -> bool:
        """As `crash_probe.is_refused`: the kernel over there says that nobody listens."""
        life, there = self._life, HostId(address.partition(":")[0])
        began = life.clock.boottime_ns()
        network = life.world.network
        await asyncio.sleep(network.delay(life.host, there) / 1e9)
        if network.is_cut(life.host, there) or network.is_cut(there, life.host):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            return False
        is_refused = life.world.refuses(there)
        await asyncio.sleep(network.delay(there, life.host) / 1e9)
        return is_refused and life.clock.boottime_ns() - began < CONNECT_TIMEOUT_S * 1e9
