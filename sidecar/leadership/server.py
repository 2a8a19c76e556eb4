"""HeartbeatService: hosts beat, the leader answers."""

import itertools
from collections.abc import AsyncIterator, Callable

import grpc
from trellis.heartbeat.v1 import heartbeat_pb2, heartbeat_pb2_grpc

from mesh.errors import Denied, InvalidRequest
from mesh.ids import ClusterId, FencingTerm, HostId, Index, MemberId, OwnedName, host_of
from mesh.wire.database import decode_database_status
from mesh.wire.service import decode_instance
from sidecar.leadership.answers import BeatAnswers
from sidecar.leadership.beat import Beat, BeatReply


class HeartbeatServicer(heartbeat_pb2_grpc.HeartbeatServiceServicer):
    """Takes in beats of this cluster, each from the host that it is of."""

    def __init__(
        self,
        *,
        cluster: ClusterId,
        answers: BeatAnswers,
        leader: Callable[[], MemberId | None],
        caller: Callable[[], HostId | None],
    ) -> None:
        self._cluster = cluster
        self._answers = answers
        self._leader = leader
        self._caller = caller
        self._streams = itertools.count(1)

    async def Beat(
        self,
        request_iterator: AsyncIterator[heartbeat_pb2.BeatRequest],
        context: "grpc.aio.ServicerContext[heartbeat_pb2.BeatRequest, heartbeat_pb2.BeatResponse]",
    ) -> AsyncIterator[heartbeat_pb2.BeatResponse]:
        """Answer each beat; a beat to a follower is answered without a grant."""
        source = next(self._streams)
        caller = self._caller()
        async for request in request_iterator:
            member = MemberId(request.member)
            if request.cluster_id != self._cluster:
                raise InvalidRequest("This beat is of another cluster; check which hosts share addresses.")
            if caller is not None and host_of(member) != caller:
                raise Denied(f"{caller} may not beat for {member}", host=caller)
            yield self._encode(self._answers.answer(member, _decode(request), source))

    def _encode(self, reply: BeatReply) -> heartbeat_pb2.BeatResponse:
        answer = reply.answer
        response = heartbeat_pb2.BeatResponse(
            sequence=answer.sequence,
            granted=answer.granted,
            term=answer.term,
            leader=self._leader() or "",
            state_diverged=reply.state_diverged,
        )
        response.lease.FromNanoseconds(answer.lease_ns)
        return response


def _decode(request: heartbeat_pb2.BeatRequest) -> Beat:
    host = host_of(MemberId(request.member))
    return Beat(
        sequence=request.sequence,
        applied=Index(request.applied_index),
        state_hash_index=Index(request.state_hash_index),
        state_hash=request.state_hash,
        complete=request.complete,
        draining=request.draining,
        instances=tuple(decode_instance(report, host) for report in request.instances),
        releases=tuple(
            (OwnedName(release.name), FencingTerm(release.fencing_term)) for release in request.releases
        ),
        database=decode_database_status(request.database) if request.HasField("database") else None,
    )
