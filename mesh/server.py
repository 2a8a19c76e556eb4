"""The services that members offer each other: elections, entries, proposals, read points."""

from functools import partial
from typing import Any

import grpc
from trellis.common.v1.common_pb2 import MessageHeader
from trellis.election.v1.election_pb2_grpc import ElectionServiceServicer
from trellis.replication.v1 import replication_pb2 as replication
from trellis.replication.v1.replication_pb2_grpc import ReplicationServiceServicer

from mesh import failpoints, limits
from mesh.adapters.alongside import alongside
from mesh.adapters.channel import ACCEPTED
from mesh.adapters.outbox import Outbox
from mesh.adapters.transport import GrpcTransport
from mesh.driver import RaftDriver
from mesh.errors import Denied, InvalidRequest, Refused, TrellisError, Unavailable
from mesh.ids import ClusterId
from mesh.ports import MeshIdentity, OutcomeCodec
from mesh.waiting import Answer, Applied
from mesh.wire.failure import to_failure
from mesh.wire.raft import Lane

#: A read that no quorum confirms is given up after this long if the caller set no deadline.
READ_TIMEOUT_S = 5.0


class ElectionServicer(ElectionServiceServicer):
    """Takes in other members' election streams."""

    def __init__(self, transport: GrpcTransport) -> None:
        self._transport = transport

    async def Elect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._transport.serve(Lane.ELECTION, context)


class ReplicationServicer(ReplicationServiceServicer):
    """Takes in entries and snapshots; on the leader also proposals and questions for read points."""

    def __init__(
        self,
        *,
        cluster: ClusterId,
        identity: MeshIdentity,
        transport: GrpcTransport,
        driver: RaftDriver,
        codec: OutcomeCodec,
    ) -> None:
        self._cluster = cluster
        self._identity = identity
        self._transport = transport
        self._driver = driver
        self._codec = codec

    async def Append(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._transport.serve(Lane.APPEND, context)

    async def InstallSnapshot(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._transport.serve(Lane.SNAPSHOT, context)

    async def Propose(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        self._identity.check_peer(context.auth_context())
        await context.send_initial_metadata(ACCEPTED)
        answers: Outbox[replication.ProposeResponse] = Outbox(limits.PROPOSALS_PENDING_MAX)
        async with alongside(_write(context, answers), name="propose-answers"):
            while (request := await context.read()) is not grpc.aio.EOF:
                if refusal := self._misdirected(request.header):
                    for each in (request, *request.more):
                        self._answer(each.request, answers, refusal)
                    continue
                self._submit(request, answers)
                for each in request.more:
                    self._submit(each, answers)

    def _misdirected(self, header: MessageHeader) -> Denied | None:
        if header.cluster_id == self._cluster and header.to == self._driver.id:
            return None
        return Denied(
            f"this is {self._driver.id} of cluster {self._cluster}, but the call is for"
            f" {header.to!r} of {header.cluster_id!r}; look up the members again"
        )

    def _submit(
        self, request: replication.ProposeRequest, answers: Outbox[replication.ProposeResponse]
    ) -> None:
        try:
            failpoints.hit("server.propose.taken")
            if len(request.command) > limits.COMMAND_BYTES_MAX:
                raise InvalidRequest(
                    f"a command has {len(request.command)} bytes, more than {limits.COMMAND_BYTES_MAX};"
                    " split it",
                )
            self._driver.submit(request.command, partial(self._answer, request.request, answers))
        except TrellisError as error:
            self._answer(request.request, answers, error)

    def _answer(self, request: int, answers: Outbox[replication.ProposeResponse], answer: Answer) -> None:
        failpoints.hit("server.propose.before-answer")
        response = replication.ProposeResponse(request=request)
        if isinstance(answer, Applied):
            response.index = answer.index
            response.applied = self._codec.encode(answer.outcome)
        elif isinstance(answer, Refused | Unavailable):
            response.refused.CopyFrom(to_failure(answer))
        else:
            response.unknown.CopyFrom(to_failure(answer))
        answers.put(response)

    async def ReadIndex(
        self, request: replication.ReadIndexRequest, context: Any
    ) -> replication.ReadIndexResponse:
        self._identity.check_peer(context.auth_context())
        if refusal := self._misdirected(request.header):
            raise refusal
        left_s = context.time_remaining()
        index = await self._driver.read_index(timeout_s=READ_TIMEOUT_S if left_s is None else left_s)
        return replication.ReadIndexResponse(index=index, term=self._driver.term)


async def _write(context: Any, answers: Outbox[replication.ProposeResponse]) -> None:
    while True:
        first, *more = await answers.take_some(
            limits.PROPOSALS_PER_MESSAGE_MAX, limits.PROPOSALS_PER_MESSAGE_BYTES_MAX, _weigh
        )
        first.more.extend(more)
        await context.write(first)


def _weigh(response: replication.ProposeResponse) -> int:
    return len(response.applied)
