"""The databases of other hosts, as their sidecars are asked about them."""

import grpc
from trellis.database.v1 import database_pb2 as pb
from trellis.database.v1 import database_pb2_grpc

from mesh.ids import ClusterId, FencingTerm
from mesh.wire.errors import from_rpc_error
from sidecar.postgres.model import Lsn, SealReport
from sidecar.postgres.wire import decode_seal_report

#: A seal waits for what is final a while itself; what does not answer by then is asked again.
SEAL_S = 3.0
LOOK_S = 1.0
CHECKPOINT_S = 300.0


class Peer:
    """Another host's database, by a channel to its sidecar. Every method fails with a `TrellisError`."""

    def __init__(self, cluster: ClusterId, channel: grpc.aio.Channel) -> None:
        self._cluster = cluster
        self._stub = database_pb2_grpc.DatabasePeerServiceStub(channel)

    async def seal(self, fencing_term: FencingTerm) -> SealReport:
        """See DatabaseDriver.seal."""
        request = pb.SealRequest(cluster_id=self._cluster, fencing_term=fencing_term)
        try:
            answer = await self._stub.Seal(request, timeout=SEAL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return decode_seal_report(answer.report)

    async def checkpoint(self, fencing_term: FencingTerm) -> Lsn:
        """See DatabaseDriver.checkpoint."""
        request = pb.CheckpointRequest(cluster_id=self._cluster, fencing_term=fencing_term)
        try:
            answer = await self._stub.Checkpoint(request, timeout=CHECKPOINT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return Lsn(answer.lsn)

    async def look(self) -> pb.ServerView | None:
        """What its server says of itself; None: it carries none."""
        try:
            answer = await self._stub.Look(pb.LookRequest(), timeout=LOOK_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return answer.server if answer.HasField("server") else None
