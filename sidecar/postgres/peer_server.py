"""What other hosts ask of this host's database."""

import time
from collections.abc import Callable
from typing import Any

from trellis.database.v1 import database_pb2 as pb
from trellis.database.v1 import database_pb2_grpc

from mesh.errors import Denied, InvalidRequest, NotFound
from mesh.ids import ClusterId, FencingTerm, HostId
from sidecar.postgres.driver import DatabaseDriver
from sidecar.postgres.model import NO_LSN, NO_TIMELINE, ProcessKind
from sidecar.postgres.wire import encode_seal_report


class DatabasePeerServicer(database_pb2_grpc.DatabasePeerServiceServicer):
    """What other hosts ask of this host's database."""

    def __init__(
        self,
        *,
        cluster: ClusterId,
        host: HostId,
        driver: DatabaseDriver | None,
        leader: Callable[[], HostId | None],
        caller: Callable[[], HostId | None],
    ) -> None:
        self._cluster = cluster
        self._host = host
        self._driver = driver
        self._leader = leader
        self._caller = caller

    async def Seal(self, request: pb.SealRequest, context: Any) -> pb.SealResponse:
        """See the contract. Only the leader may ask: a former one would stop a primary that is well."""
        driver = self._checked(request.cluster_id)
        if self._caller() != self._leader():
            raise Denied(
                f"{self._caller()} does not lead, as far as {self._host} knows; {self._leader()} does"
            )
        report = await driver.seal(FencingTerm(request.fencing_term))
        return pb.SealResponse(report=encode_seal_report(report))

    async def Checkpoint(self, request: pb.CheckpointRequest, context: Any) -> pb.CheckpointResponse:
        """See the contract."""
        began = time.monotonic_ns()
        lsn = await self._checked(request.cluster_id).checkpoint(FencingTerm(request.fencing_term))
        response = pb.CheckpointResponse(lsn=lsn)
        response.took.FromNanoseconds(time.monotonic_ns() - began)
        return response

    async def Look(self, request: pb.LookRequest, context: Any) -> pb.LookResponse:
        """See the contract."""
        if self._driver is None:
            return pb.LookResponse()
        return pb.LookResponse(server=server_view(self._host, self._driver))

    def _checked(self, cluster: str) -> DatabaseDriver:
        if cluster != self._cluster:
            raise InvalidRequest("This is asked of another cluster; check which hosts share addresses.")
        if self._driver is None:
            raise NotFound(f"{self._host} carries no database: its settings have no [database]")
        return self._driver


def server_view(host: HostId, driver: DatabaseDriver) -> pb.ServerView:
    """The server as its driver saw it last."""
    sight, local = driver.sight, driver.sight.local
    history = local.data.history
    is_primary = local.process.kind is ProcessKind.PRIMARY
    flushed = local.process.flushed if local.process.kind is not ProcessKind.DOWN else local.data.end
    standbys, needed = driver.sync_names if is_primary else ((), 0)
    view = pb.ServerView(
        host=host,
        timeline=history.timeline if history is not None else NO_TIMELINE,
        flushed_lsn=flushed,
        receives_from=local.process.receives_from or "",
        sync_standbys=standbys,
        sync_needed=needed,
        doing=driver.doing,
    )
    for each in sight.receivers if is_primary else ():
        found = view.receivers.add(
            host=each.host,
            state=each.state,
            flushed_lsn=each.flushed,
            lag_bytes=max(NO_LSN, local.process.flushed - each.flushed) if each.flushed else 0,
            is_synchronous=each.is_standby and each.host in standbys,
        )
        found.lag.FromNanoseconds(int(each.lag_s * 1e9))
    return view
