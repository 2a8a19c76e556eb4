"""HeartbeatService: hosts beat, the leader answers."""

import itertools
from collections.abc import AsyncIterator, Callable

import grpc
from trellis.heartbeat.v1 import heartbeat_pb2, heartbeat_pb2_grpc

from mesh.errors import Denied, InvalidRequest
from mesh.ids import ClusterId, FencingTerm, HostId, Index, MemberId, OwnedName, Term, host_of
from mesh.lease.timers import LeaseTimers
from mesh.wire.service import decode_instance
from sidecar.leadership.driver import LeaderDuty

HASHES_REMEMBERED_MAX = 16


class HeartbeatServicer(heartbeat_pb2_grpc.HeartbeatServiceServicer):
    """Passes beats to the leadership of this host, if it has one.

    `duty` is None while this host does not lead; `state_hash` is this host's
    newest checkpoint, compared with the beats of others.
    """

    def __init__(
        self,
        *,
        cluster: ClusterId,
        timers: LeaseTimers,
        duty: Callable[[], LeaderDuty | None],
        term: Callable[[], Term],
        leader: Callable[[], MemberId | None],
        state_hash: Callable[[], tuple[Index, bytes]],
        caller: Callable[[], HostId | None],
    ) -> None:
        self._cluster = cluster
        self._lease = heartbeat_pb2.BeatResponse().lease
        self._lease.FromNanoseconds(timers.lease_ns)
        self._duty = duty
        self._term = term
        self._leader = leader
        self._state_hash = state_hash
        self._caller = caller
        self._streams = itertools.count(1)
        self._hashes: dict[Index, bytes] = {}

    async def Beat(
        self,
        request_iterator: AsyncIterator[heartbeat_pb2.BeatRequest],
        context: "grpc.aio.ServicerContext[heartbeat_pb2.BeatRequest, heartbeat_pb2.BeatResponse]",
    ) -> AsyncIterator[heartbeat_pb2.BeatResponse]:
        """Answer each beat; a beat to a follower is answered without a grant."""
        source = next(self._streams)
        caller = self._caller()
        async for beat in request_iterator:
            if beat.cluster_id != self._cluster:
                raise InvalidRequest("This beat is of another cluster; check which hosts share addresses.")
            if caller is not None and host_of(MemberId(beat.member)) != caller:
                raise Denied(f"{caller} may not beat for {beat.member}", host=caller)
            yield self._answer(beat, source)

    def _answer(self, beat: heartbeat_pb2.BeatRequest, source: int) -> heartbeat_pb2.BeatResponse:
        duty = self._duty()
        granted = False
        host = host_of(MemberId(beat.member))
        if duty is not None:
            granted = duty.beat(
                MemberId(beat.member),
                source=source,
                applied=Index(beat.applied_index),
                statuses=tuple(decode_instance(report, host) for report in beat.instances),
                complete=beat.complete,
                draining=beat.draining,
                releases=tuple(
                    (OwnedName(release.name), FencingTerm(release.fencing_term)) for release in beat.releases
                ),
            )
        return heartbeat_pb2.BeatResponse(
            sequence=beat.sequence,
            granted=granted,
            lease=self._lease,
            term=self._term(),
            leader=self._leader() or "",
            state_diverged=self._diverged(beat),
        )

    def _diverged(self, beat: heartbeat_pb2.BeatRequest) -> bool:
        """The host's state at some index is not what this host's was at the same index."""
        index, digest = self._state_hash()
        if index and index not in self._hashes:
            self._hashes[index] = digest
            while len(self._hashes) > HASHES_REMEMBERED_MAX:
                del self._hashes[next(iter(self._hashes))]
        known = self._hashes.get(Index(beat.state_hash_index))
        return known is not None and known != beat.state_hash
