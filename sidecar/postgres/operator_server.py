"""DatabaseService: what operators ask about the database, and of it. Served on every host."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
import structlog
from trellis.database.v1 import database_pb2 as pb
from trellis.database.v1 import database_pb2_grpc

from mesh.adapters.clock import boottime_ns, wall_ns
from mesh.adapters.deadline import remaining_s
from mesh.errors import Conflict, InvalidRequest, NoLeader, NotFound, Problem, TrellisError, Unavailable
from mesh.identity.interceptor import forwarding_metadata, present_caller
from mesh.ids import PRIMARY, FencingTerm, HostId, MemberId, host_of
from mesh.replica import Replica
from mesh.state import ClusterState
from mesh.state.commands import RequestRelease
from mesh.state.database_commands import AcceptDataLoss, DeclareDatabase
from mesh.wire.database import database_to_wire, decode_database_spec
from mesh.wire.errors import from_rpc_error
from sidecar.postgres.backup_wire import encode_backup, encode_restore
from sidecar.postgres.backups import Backups
from sidecar.postgres.engine.config import check_parameters
from sidecar.postgres.engine.restore import Restored, Until
from sidecar.postgres.model import Lsn

LOG = structlog.get_logger(__name__)

LOOK_S = 0.02
BARRIER_S = 5.0
KNOWN_S = 10.0
_Answer = TypeVar("_Answer")


class Leadership(Protocol):
    """The planner of the leadership that this host has."""

    problem: str

    def successor(
        self, state: ClusterState, wanted: HostId | None, now: int
    ) -> tuple[HostId | None, str]: ...


class Members(Protocol):
    """The other hosts, as this one reaches them."""

    @property
    def leader(self) -> MemberId | None: ...
    def channel_to(self, member: MemberId) -> grpc.aio.Channel: ...


class DatabaseServicer(database_pb2_grpc.DatabaseServiceServicer):
    """Changes go through the log; a switchover is the leader's, and is passed on to it."""

    def __init__(
        self,
        *,
        own: MemberId,
        replica: Replica,
        members: Members,
        leadership: Callable[[], Leadership | None],
        look: Callable[[HostId], Awaitable[pb.ServerView | None]],
        checkpoint: Callable[[HostId, FencingTerm], Awaitable[Lsn]],
        backups: Backups | None,
    ) -> None:
        """*leadership*: None while this host does not lead. *look* and *checkpoint* at any host.

        *backups*: None where this host carries no database.
        """
        self._own = own
        self._replica = replica
        self._members = members
        self._leadership = leadership
        self._look = look
        self._checkpoint = checkpoint
        self._backups = backups

    async def Declare(self, request: pb.DeclareRequest, context: Any) -> pb.DeclareResponse:
        """See the contract."""
        spec = decode_database_spec(request.spec)
        problems = check_parameters(spec.parameters)
        if problems:
            raise InvalidRequest("The database cannot be declared so.", problems)
        expected = request.expected_version if request.HasField("expected_version") else None
        applied = await self._replica.propose(
            DeclareDatabase(spec, expected), timeout_s=remaining_s(context), at_ns=wall_ns()
        )
        return pb.DeclareResponse(version=applied.version)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """See the contract. What is in the way only the leader knows, so it is asked."""
        leading = self._leadership()
        if leading is None and not request.stale_ok:
            stub = self._leader_stub()
            return await _asked(
                stub.GetStatus(request, timeout=remaining_s(context), metadata=forwarding_metadata())
            )
        if request.stale_ok:
            self._replica.check_holds_state()
        else:
            await self._replica.barrier(timeout_s=remaining_s(context))
        state = self._replica.state
        problems = [leading.problem] if leading is not None and leading.problem else []
        response = database_to_wire(state, problems)
        seen = await asyncio.gather(*(self._seen(row.host) for row in state.database_members.values()))
        response.servers.extend(view for view in seen if view is not None)
        return response

    async def _seen(self, host: HostId) -> pb.ServerView | None:
        """One that does not answer is left out."""
        try:
            return await self._look(host)
        except TrellisError as error:
            LOG.info("database-look", host=host, error=str(error))
            return None

    async def Switchover(self, request: pb.SwitchoverRequest, context: Any) -> pb.SwitchoverResponse:
        """See the contract."""
        leading = self._leadership()
        if leading is None:
            stub = self._leader_stub()
            return await _asked(
                stub.Switchover(request, timeout=remaining_s(context), metadata=forwarding_metadata())
            )
        await self._replica.barrier(timeout_s=remaining_s(context))
        state = self._replica.state
        wanted = HostId(request.host) if request.host else None
        if wanted is not None and wanted not in state.hosts:
            raise NotFound(f"There is no host {wanted}; see trellis hosts.", host=wanted)
        successor, why = leading.successor(state, wanted, boottime_ns())
        if successor is None or why:
            raise Conflict(f"The database is not moved: {why}.")
        owner = state.owners.get(PRIMARY)
        if owner is None or owner.holder is None:
            raise Conflict("The database is not moved: nobody is primary.")
        response = pb.SwitchoverResponse(primary=successor, fencing_term=owner.fencing_term)
        if not request.dry_run:
            # While it still takes writes: the one at its end is short then.
            await self._checkpoint(owner.holder, owner.fencing_term)
            began = time.monotonic_ns()
            await self._replica.propose(
                RequestRelease(PRIMARY, successor, owner.fencing_term),
                timeout_s=remaining_s(context),
                at_ns=wall_ns(),
            )
            response.fencing_term = await self._moved(successor, owner.fencing_term, remaining_s(context))
            response.outage.FromNanoseconds(time.monotonic_ns() - began)
        return response

    async def _moved(self, to: HostId, before: FencingTerm, timeout_s: float) -> FencingTerm:
        """The number under which *to* takes writes. Fails: `Unavailable` when another host does, or none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    state = self._replica.state
                    owner = state.owners.get(PRIMARY)
                    if owner is not None and owner.fencing_term > before and owner.holder is not None:
                        row = state.database_members.get(owner.holder)
                        is_open = row is not None and row.status.is_open
                        if is_open and row is not None and row.status.fencing_term == owner.fencing_term:
                            if owner.holder == to:
                                return owner.fencing_term
                            raise Unavailable(f"The switchover was called off: {owner.holder} is primary.")
                    await asyncio.sleep(LOOK_S)
        raise Unavailable(f"{to} does not take writes yet; see trellis db status.")

    async def Backup(self, request: pb.BackupRequest, context: Any) -> AsyncIterator[pb.BackupResponse]:
        """See the contract."""
        backups = self._own_backups()
        if request.kib_per_second and not 32 <= request.kib_per_second <= 1 << 20:
            problem = Problem("kib_per_second", "is not between 32 and 1048576", "10240")
            raise InvalidRequest("The backup cannot be made so.", [problem])
        async for each in backups.make(Path(request.folder), request.keep, request.kib_per_second):
            yield encode_backup(each)

    async def Restore(self, request: pb.RestoreRequest, context: Any) -> AsyncIterator[pb.RestoreResponse]:
        """See the contract. What is declared elsewhere is known here before it begins."""
        backups, until = self._own_backups(), Until.parse(request.until)
        await self._replica.barrier(timeout_s=BARRIER_S)
        archive = Path(request.archive) if request.archive else None
        async for each in backups.restore(Path(request.folder), archive, until):
            if isinstance(each, Restored):
                await self._known(each)
            yield encode_restore(each, host_of(self._own))

    async def _known(self, restored: Restored) -> None:
        """Until whoever decides where the database is made knows of it. Fails: `Unavailable`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KNOWN_S):
                while True:
                    row = self._replica.state.database_members.get(host_of(self._own))
                    if row is not None and row.status.timeline == restored.timeline:
                        return
                    await asyncio.sleep(LOOK_S)
        raise Unavailable(
            "The data are restored, and the cluster does not know of them yet: declare the database when"
            f" trellis db status shows timeline {restored.timeline} here."
        )

    def _own_backups(self) -> Backups:
        if self._backups is None:
            raise NotFound("This host carries no database (no [database] in its settings): ask another host.")
        return self._backups

    async def AcceptDataLoss(
        self, request: pb.AcceptDataLossRequest, context: Any
    ) -> pb.AcceptDataLossResponse:
        """See the contract."""
        by = present_caller().name
        await self._replica.propose(
            AcceptDataLoss(FencingTerm(request.fencing_term), by, request.why),
            timeout_s=remaining_s(context),
            at_ns=wall_ns(),
        )
        return pb.AcceptDataLossResponse()

    def _leader_stub(self) -> "database_pb2_grpc.DatabaseServiceAsyncStub":
        leader = self._members.leader
        if leader is None or leader == self._own:
            raise NoLeader("No leader is known here; try again shortly.")
        return database_pb2_grpc.DatabaseServiceStub(self._members.channel_to(leader))


async def _asked(call: Awaitable[_Answer]) -> _Answer:
    """The leader's answer, or its refusal."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
