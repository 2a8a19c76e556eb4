"""The host's side of the heartbeat: beat to the leader, and learn how long the lease runs.

One stream to the present leader. A beat leaves with the answer to each of the
leader's append-heartbeats, at its own pace while those stay away, and at once
after `wake`. The leader's own host does not beat over the network: its lease
runs from the newest append-heartbeat round that a quorum confirmed.

Bound: one beat waits to be written at a time; a stream that cannot take it in
`WRITE_TIMEOUT_S` is reopened.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog
from trellis.heartbeat.v1 import heartbeat_pb2

from mesh import failpoints
from mesh.errors import PeerUnreachable, TrellisError
from mesh.ids import FencingTerm, Index, InstanceId, MemberId, OwnedName, Term
from mesh.lease.holder import NO_TERM, HostLease
from mesh.lease.timers import LeaseTimers
from mesh.state.database_model import DatabaseStatus
from mesh.state.service import InstanceState, InstanceStatus
from mesh.waiting import wake_or_wait
from sidecar.leadership.beat import Beat, BeatReply, BeatStream

LOG = structlog.get_logger(__name__)

WRITE_TIMEOUT_S = 1.0
REOPEN_S = 0.05
#: More than are needed in a row to be taken for alive again.
KNOCK_BEATS = 6
CAPACITY_EVERY_NS = 1_000_000_000


class Consensus(Protocol):
    """What beating needs to know of the local member."""

    @property
    def leader(self) -> MemberId | None: ...
    @property
    def term(self) -> Term: ...
    @property
    def applied(self) -> Index: ...
    def quorum_confirmed_at(self) -> int | None:
        """On the leader: when the newest confirmed round was sent, CLOCK_BOOTTIME ns."""


class Observed(Protocol):
    """What a host has to say about itself."""

    def instances(self) -> tuple[InstanceStatus, ...]: ...
    def state_hash(self) -> tuple[Index, bytes]: ...
    def capacity(self) -> heartbeat_pb2.Capacity: ...
    def is_draining(self) -> bool: ...
    def database(self) -> DatabaseStatus | None:
        """The host's database; None: it carries none."""


class Beats:
    """One host's heartbeats and lease, for the life of its sidecar."""

    def __init__(
        self,
        *,
        member: MemberId,
        timers: LeaseTimers,
        lease: HostLease,
        consensus: Consensus,
        observed: Observed,
        open_stream: Callable[[MemberId], BeatStream],
        others: Callable[[], Sequence[MemberId]],
        on_lease: Callable[[], None],
        on_diverged: Callable[[], None],
        boottime_ns: Callable[[], int],
    ) -> None:
        """*open_stream* to a leader; it fails with `PeerUnreachable` for a stranger."""
        self._member = member
        self._timers = timers
        self._lease = lease
        self._consensus = consensus
        self._observed = observed
        self._open_stream = open_stream
        self._others = others
        self._knocks = 0
        self._on_lease = on_lease
        self._on_diverged = on_diverged
        self._now = boottime_ns
        self._wake = asyncio.Event()
        self._sequence = 0
        self._reported: dict[InstanceId, InstanceStatus] = {}
        #: As last told on this stream.
        self._database: DatabaseStatus | None = None
        self._releases: dict[OwnedName, FencingTerm] = {}
        self._capacity_at = 0
        #: When the newest beat was made, CLOCK_BOOTTIME ns.
        self._beat_at = 0

    def wake(self) -> None:
        """Something changed that the leader should know now."""
        self._wake.set()

    def leader_heard(self) -> None:
        """The leader's append-heartbeat came: a beat reaches it together with the answer."""
        if self._now() - self._beat_at >= self._timers.heartbeat_ns // 2:
            self._wake.set()

    def paced(self) -> None:
        """The time between two heartbeats has passed here: beat, unless the leader's paces it."""
        is_own = self._consensus.leader == self._member
        if is_own or self._now() - self._beat_at >= self._timers.heartbeat_ns * 11 // 10:
            self._wake.set()

    def released(self, name: OwnedName, fencing_term: FencingTerm) -> None:
        """This host has stopped acting for `name` and will not under this number again.

        Repeated with every beat until `release_seen`: an answer may be lost.
        """
        self._releases[name] = fencing_term
        self._wake.set()

    def release_seen(self, name: OwnedName) -> None:
        """The applied state shows another fencing term: the release has done its work."""
        self._releases.pop(name, None)

    @property
    def releases(self) -> dict[OwnedName, FencingTerm]:
        """What was given up and is not yet known to have been taken note of."""
        return dict(self._releases)

    async def run(self) -> None:
        """Beat until cancelled, to whoever leads."""
        while True:
            leader = self._consensus.leader
            if leader is None:
                await self._knock()
            elif leader == self._member:
                self._confirm_own()
                await self._wait_for_turn()
            else:
                await self._beat_to(leader)

    async def _pause(self, seconds: float) -> None:
        """Wait for `wake`, at most this long."""
        await wake_or_wait(self._wake, seconds)
        self._wake.clear()

    async def _wait_for_turn(self) -> None:
        """Wait for `wake` or the pace."""
        await self._wake.wait()
        self._wake.clear()

    def _confirm_own(self) -> None:
        sent = self._consensus.quorum_confirmed_at()
        failpoints.hit("beats.own-lease")
        if sent is not None and self._lease.leadership_confirmed(
            sent, self._timers.lease_ns, self._consensus.term
        ):
            self._on_lease()

    async def _knock(self) -> None:
        """Wait for a leader to be known here.

        A host that Raft does not count yet hears of none, and a witness is taken in only once the leader
        has heard it: until then it beats to one member after the other.
        """
        others = self._others() if self._consensus.term == NO_TERM else ()
        if not others:
            await self._pause(REOPEN_S)
            return
        self._knocks += 1
        await self._beat_to(others[self._knocks % len(others)], beats_max=KNOCK_BEATS)

    async def _beat_to(self, to: MemberId, *, beats_max: int = sys.maxsize) -> None:
        leader = self._consensus.leader
        try:
            stream = self._open_stream(to)
        except PeerUnreachable:  # the address comes with the state
            await self._pause(REOPEN_S)
            return
        self._reported.clear()
        self._capacity_at = 0
        reader = asyncio.ensure_future(self._read(stream))
        try:
            complete = True
            while self._consensus.leader == leader and not reader.done() and beats_max:
                beats_max -= 1
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    beat = self._beat(complete)
                    await failpoints.passing("beats.before-send")
                    await stream.send(beat)
                    await failpoints.passing("beats.sent")
                complete = False
                await self._wait_for_turn()
        except (PeerUnreachable, TimeoutError) as error:
            LOG.debug("beat-stream-broken", leader=leader, error=str(error))
        finally:
            stream.close()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        if self._consensus.leader == leader:
            await asyncio.sleep(REOPEN_S)

    async def _read(self, stream: BeatStream) -> None:
        try:
            async for reply in stream.replies():
                self._answered(reply)
        except PeerUnreachable as error:
            LOG.debug("beat-stream-ended", error=str(error))
        except TrellisError as error:
            LOG.warning("beat-answer-refused", error=str(error))

    def _answered(self, reply: BeatReply) -> None:
        failpoints.hit("beats.answered")
        if reply.state_diverged:
            self._on_diverged()
            return
        self._lease.term_seen(self._consensus.term)
        if self._lease.answered(reply.answer):
            self._on_lease()

    def _news(self) -> list[InstanceStatus]:
        """What changed since the last beat of this stream; what is gone is told as stopped."""
        present = {status.instance: status for status in self._observed.instances()}
        news = [status for key, status in present.items() if self._reported.get(key) != status]
        news += [
            replace(status, state=InstanceState.STOPPED, ready=False, pid=0)
            for key, status in self._reported.items()
            if key not in present
        ]
        self._reported = dict(present)
        return news

    def _beat(self, complete: bool) -> Beat:
        now = self._now()
        self._sequence += 1
        self._beat_at = now
        index, digest = self._observed.state_hash()
        former, self._database = self._database, self._observed.database()
        if former is not None and self._database is None:
            # Only a complete beat can say that there is none any more.
            complete = True
            self._reported.clear()
        tells_capacity = now - self._capacity_at >= CAPACITY_EVERY_NS
        if tells_capacity:
            self._capacity_at = now
        beat = Beat(
            sequence=self._sequence,
            applied=self._consensus.applied,
            state_hash_index=index,
            state_hash=digest,
            complete=complete,
            draining=self._observed.is_draining(),
            instances=tuple(self._news()),
            releases=tuple(self._releases.items()),
            capacity=self._observed.capacity() if tells_capacity else None,
            database=self._database if complete or self._database != former else None,
        )
        self._lease.beat_sent(self._sequence, now)
        return beat
