"""Beats over gRPC, from the host's side."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
from trellis.heartbeat.v1 import heartbeat_pb2, heartbeat_pb2_grpc

from mesh.errors import PeerUnreachable
from mesh.ids import ClusterId, MemberId, Term
from mesh.lease.model import BeatAnswer
from mesh.wire.database import encode_database_status
from mesh.wire.service import encode_instance
from sidecar.leadership.beat import Beat, BeatReply

Call: TypeAlias = "grpc.aio.StreamStreamCall[heartbeat_pb2.BeatRequest, heartbeat_pb2.BeatResponse]"


class GrpcBeatStream:
    """One call of `Beat`."""

    def __init__(self, cluster: ClusterId, member: MemberId, channel: grpc.aio.Channel) -> None:
        self._cluster = cluster
        self._member = member
        self._call: Call = heartbeat_pb2_grpc.HeartbeatServiceStub(channel).Beat()

    async def send(self, beat: Beat) -> None:
        """See BeatStream."""
        try:
            await self._call.write(self._encode(beat))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise PeerUnreachable(f"the leader takes no beats: {error}") from error

    def _encode(self, beat: Beat) -> heartbeat_pb2.BeatRequest:
        request = heartbeat_pb2.BeatRequest(
            cluster_id=self._cluster,
            member=self._member,
            sequence=beat.sequence,
            applied_index=beat.applied,
            state_hash_index=beat.state_hash_index,
            state_hash=beat.state_hash,
            complete=beat.complete,
            draining=beat.draining,
        )
        request.instances.extend(encode_instance(status) for status in beat.instances)
        for name, term in beat.releases:
            request.releases.add(name=name, fencing_term=term)
        if beat.capacity is not None:
            request.capacity.CopyFrom(beat.capacity)
        if beat.database is not None:
            request.database.CopyFrom(encode_database_status(beat.database))
        return request

    async def replies(self) -> AsyncIterator[BeatReply]:
        """See BeatStream."""
        try:
            async for response in self._call:
                yield BeatReply(
                    BeatAnswer(
                        sequence=response.sequence,
                        granted=response.granted,
                        lease_ns=response.lease.ToNanoseconds(),
                        term=Term(response.term),
                    ),
                    response.state_diverged,
                )
        except grpc.aio.AioRpcError as error:
            raise PeerUnreachable(f"{error.code().name}: {error.details()}") from error

    def close(self) -> None:
        """See BeatStream."""
        self._call.cancel()
