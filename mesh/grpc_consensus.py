"""Consensus over gRPC: the connections to other members, and the services offered to them."""

import grpc
from trellis.election.v1.election_pb2_grpc import add_ElectionServiceServicer_to_server
from trellis.replication.v1.replication_pb2_grpc import add_ReplicationServiceServicer_to_server

from mesh.adapters.leader_client import LeaderClient
from mesh.adapters.transport import GrpcTransport
from mesh.consensus import Consensus
from mesh.driver import RaftDriver
from mesh.ids import ClusterId
from mesh.ports import MeshIdentity, OutcomeCodec
from mesh.server import ElectionServicer, ReplicationServicer


class GrpcConsensus(Consensus):
    """One member's consensus, live.

    Order: `add_to` before the server starts; `run` around everything else.
    """

    def __init__(
        self, *, cluster: ClusterId, identity: MeshIdentity, driver: RaftDriver, codec: OutcomeCodec
    ) -> None:
        self.transport = GrpcTransport(
            cluster=cluster,
            member=driver.id,
            identity=identity,
            counters=driver.counters,
            deliver=driver.deliver,
            on_unreachable=driver.report_unreachable,
            on_crash=driver.report_crash,
        )
        client = LeaderClient(cluster, driver.id, self.transport.channel_to)
        super().__init__(driver=driver, codec=codec, transport=self.transport, client=client)
        self._servicer = ReplicationServicer(
            cluster=cluster, identity=identity, transport=self.transport, driver=driver, codec=codec
        )

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the servicers."""
        add_ElectionServiceServicer_to_server(ElectionServicer(self.transport), server)
        add_ReplicationServiceServicer_to_server(self._servicer, server)

    def renew_channels(self) -> None:
        """Connect anew to all peers, after this host's credentials were replaced."""
        self.transport.reopen()
