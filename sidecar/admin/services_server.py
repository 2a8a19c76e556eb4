"""SupervisorService: declarations, instances, logs, and what services push."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import grpc
from trellis.supervisor.v1 import supervisor_pb2 as pb
from trellis.supervisor.v1 import supervisor_pb2_grpc

from mesh import failpoints
from mesh.adapters.clock import wall_ns
from mesh.adapters.deadline import remaining_s
from mesh.errors import InvalidRequest, NotFound, Problem, TrellisError
from mesh.identity.interceptor import forwarding_metadata
from mesh.ids import FencingTerm, HostId, InstanceId, MemberId, ServiceName, host_of, owned_service
from mesh.limits import SERVICES_MAX
from mesh.replica import Replica
from mesh.state import ClusterState
from mesh.state.commands import ApplyService, RestartService, StopService
from mesh.state.model import DeclaredService, HostStatus, MemberRole
from mesh.state.service import InstanceStatus, ServiceMode, ServiceSpec
from mesh.state.spec_rules import check_spec
from mesh.wire.errors import from_rpc_error
from mesh.wire.fencing import fence_of
from mesh.wire.service import decode_spec, encode_service

LINES_DEFAULT = 100
LINES_MAX = 10_000
LINES_QUEUED_MAX = 1_000


class Instances(Protocol):
    """What runs on this host."""

    def pushed(self, instance: InstanceId, ok: bool) -> None: ...
    def is_draining(self, instance: InstanceId) -> bool: ...
    def tail(self, service: ServiceName, lines: int) -> Sequence[tuple[InstanceId, bytes]]: ...
    def follow(self, service: ServiceName) -> AsyncIterator[tuple[InstanceId, bytes]]: ...
    def check_command(self, spec: ServiceSpec) -> Problem | None: ...


def service_row(state: ClusterState, service: DeclaredService) -> pb.Service:
    """One service with its instances, and why it is not as declared."""
    name = service.spec.name
    instances = state.instances_of(name)
    fencing_term = FencingTerm(0)
    if service.spec.mode is ServiceMode.ACTIVE_STANDBY:
        owner = state.owners.get(owned_service(name))
        if owner is not None and owner.holder is not None:
            fencing_term = owner.fencing_term
    return encode_service(
        service,
        instances,
        degraded_reason=degraded_reason(state, service, instances),
        fencing_term=fencing_term,
    )


def degraded_reason(
    state: ClusterState, service: DeclaredService, instances: Sequence[InstanceStatus]
) -> str:
    """Why fewer instances are ready than declared; empty when enough are."""
    ready, wanted = sum(instance.ready for instance in instances), service.spec.instances_min
    if service.stopped or ready >= wanted:
        return ""
    placement = state.placements.get(service.spec.name)
    placed = len(placement.slots) if placement is not None else 0
    reasons = sorted({instance.reason for instance in instances if instance.reason})
    if not instances and (nowhere := why_nowhere(state)):
        reasons.append(nowhere)
    return "; ".join([f"{ready} of {wanted} ready, {placed} placed", *reasons])


def why_nowhere(state: ClusterState) -> str:
    """Why no host may be given anything to run or to own; empty while one may.

    What a drained host owns stays with it while there is no other: moving it would only stop it.
    """
    hosts = [
        record
        for record in state.hosts.values()
        if state.members[record.member].role is not MemberRole.WITNESS
    ]
    if any(record.status is not HostStatus.LOST and not record.draining for record in hosts):
        return ""
    whys = [
        f"{record.host} is {'lost' if record.status is HostStatus.LOST else 'drained'}" for record in hosts
    ]
    return f"no host may run it: {', '.join(whys)} (trellis host undrain NAME)"


def service_rows(state: ClusterState) -> list[pb.Service]:
    """Every declared service, sorted by name."""
    return [service_row(state, service) for service in state.services.values()]


class SupervisorServicer(supervisor_pb2_grpc.SupervisorServiceServicer):
    """Declarations go through the log; logs come from the hosts that have them."""

    def __init__(
        self,
        *,
        replica: Replica,
        instances: Instances,
        channel_to: Callable[[MemberId], grpc.aio.Channel],
    ) -> None:
        self._replica = replica
        self._instances = instances
        self._channel_to = channel_to

    async def ApplyService(self, request: pb.ApplyServiceRequest, context: Any) -> pb.ApplyServiceResponse:
        """See the contract."""
        fence = fence_of(context.invocation_metadata())
        await self._replica.barrier(timeout_s=remaining_s(context))
        spec = decode_spec(request.spec)
        state = self._replica.state
        beside = {each.name: each for each in _beside(request)}
        declared = {row.spec.name: row.spec for row in state.services.values()}
        problems = check_spec(spec, tuple((declared | beside).values()))
        missing = self._instances.check_command(spec)
        if missing is not None:
            problems = (*problems, missing)
        if problems:
            raise InvalidRequest(f"The declaration of {spec.name or 'the service'} cannot be used.", problems)
        present = state.services.get(spec.name)
        unchanged = present is not None and present.spec == spec and not present.stopped
        if not request.dry_run and not unchanged:
            expected = request.expected_version if request.HasField("expected_version") else None
            await failpoints.passing("services.before-propose")
            applied = await self._replica.propose(
                ApplyService(spec, expected), at_ns=wall_ns(), timeout_s=remaining_s(context), fence=fence
            )
            await failpoints.passing("services.proposed")
            try:
                await self._replica.barrier(timeout_s=remaining_s(context))
            except TrellisError:  # it is declared; only this host may not have it yet
                return pb.ApplyServiceResponse(service=pb.Service(spec=request.spec, version=applied.version))
        row = self._replica.state.services.get(spec.name)
        service = service_row(self._replica.state, row) if row is not None else pb.Service(spec=request.spec)
        return pb.ApplyServiceResponse(service=service, unchanged=unchanged)

    async def StopService(self, request: pb.StopServiceRequest, context: Any) -> pb.StopServiceResponse:
        """See the contract."""
        expected = request.expected_version if request.HasField("expected_version") else None
        await self._replica.propose(
            StopService(ServiceName(request.name), request.keep, expected),
            at_ns=wall_ns(),
            timeout_s=remaining_s(context),
            fence=fence_of(context.invocation_metadata()),
        )
        return pb.StopServiceResponse()

    async def RestartService(
        self, request: pb.RestartServiceRequest, context: Any
    ) -> pb.RestartServiceResponse:
        """See the contract."""
        await self._replica.propose(
            RestartService(ServiceName(request.name)),
            at_ns=wall_ns(),
            timeout_s=remaining_s(context),
            fence=fence_of(context.invocation_metadata()),
        )
        return pb.RestartServiceResponse()

    async def ListServices(self, request: pb.ListServicesRequest, context: Any) -> pb.ListServicesResponse:
        """See the contract."""
        self._replica.check_holds_state()
        if not request.stale_ok:
            await self._replica.barrier(timeout_s=remaining_s(context))
        return pb.ListServicesResponse(services=service_rows(self._replica.state))

    async def PushHeartbeat(self, request: pb.PushHeartbeatRequest, context: Any) -> pb.PushHeartbeatResponse:
        """See the contract."""
        instance = InstanceId(request.instance)
        self._instances.pushed(instance, not request.failing)
        return pb.PushHeartbeatResponse(draining=self._instances.is_draining(instance))

    # ---- logs -----------------------------------------------------------------------

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.ReadLogsResponse]:
        """See the contract. A host asked by name answers for itself; else hosts are asked side by side."""
        service = ServiceName(request.service)
        if service not in self._replica.state.services:
            raise NotFound(f"There is no service {service}; see trellis services list.", service=service)
        lines = min(request.lines or LINES_DEFAULT, LINES_MAX)
        own = host_of(self._replica.member)
        if request.host == own:
            async for line in self._own_lines(service, lines, request.follow):
                yield line
            return
        members = [
            record.member
            for record in self._replica.state.hosts.values()
            if request.host in ("", record.host)
        ]
        if not members:
            raise NotFound(f"There is no host {request.host}; see trellis hosts.", host=request.host)
        queue: asyncio.Queue[pb.ReadLogsResponse | None] = asyncio.Queue(LINES_QUEUED_MAX)
        async with asyncio.TaskGroup() as group:
            for member in members:
                copy = pb.ReadLogsRequest(
                    service=service, host=host_of(member), lines=lines, follow=request.follow
                )
                group.create_task(self._collect(copy, member, queue), name=f"logs:{member}")
            open_streams = len(members)
            while open_streams:
                collected = await queue.get()
                if collected is None:
                    open_streams -= 1
                else:
                    yield collected

    async def _collect(
        self,
        request: pb.ReadLogsRequest,
        member: MemberId,
        queue: "asyncio.Queue[pb.ReadLogsResponse | None]",
    ) -> None:
        try:
            if member == self._replica.member:
                async for line in self._own_lines(
                    ServiceName(request.service), request.lines, request.follow
                ):
                    await queue.put(line)
            else:
                stub = supervisor_pb2_grpc.SupervisorServiceStub(self._channel_to(member))
                async for line in stub.ReadLogs(
                    request,
                    timeout=None if request.follow else 5.0,
                    metadata=forwarding_metadata(),
                ):
                    await queue.put(line)
        except grpc.aio.AioRpcError as error:
            await queue.put(_note(host_of(member), from_rpc_error(error)))
        except TrellisError as error:
            await queue.put(_note(host_of(member), error))
        await queue.put(None)  # not when cancelled: nobody takes anything out any more

    async def _own_lines(
        self, service: ServiceName, lines: int, follow: bool
    ) -> AsyncIterator[pb.ReadLogsResponse]:
        for instance, line in self._instances.tail(service, lines):
            yield pb.ReadLogsResponse(instance=instance, line=line)
        if follow:
            async for instance, line in self._instances.follow(service):
                yield pb.ReadLogsResponse(instance=instance, line=line)


def _beside(request: pb.ApplyServiceRequest) -> Sequence[ServiceSpec]:
    if request.beside and not request.dry_run:
        problem = Problem(
            "beside", "is for checking only: what is applied counts on nothing undeclared", "dry_run"
        )
        raise InvalidRequest("The declaration cannot be checked so.", [problem])
    if len(request.beside) > SERVICES_MAX:
        problem = Problem("beside", f"has {len(request.beside)} declarations, more than {SERVICES_MAX}")
        raise InvalidRequest("The declaration cannot be checked so.", [problem])
    return [decode_spec(each) for each in request.beside]


def _note(host: HostId, error: TrellisError) -> pb.ReadLogsResponse:
    """A line in the place of a host's output that could not be had."""
    return pb.ReadLogsResponse(instance=f"@{host}", line=f"(no output from {host}: {error})".encode())
