"""ClusterService: status, leadership, events, draining."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from trellis.cluster.v1 import cluster_pb2 as pb
from trellis.cluster.v1 import cluster_pb2_grpc
from trellis.membership.v1 import membership_pb2

from mesh.adapters.clock import boottime_ns, wall_ns
from mesh.adapters.deadline import remaining_s
from mesh.errors import NotFound
from mesh.ids import HostId, Index, MemberId, Term, host_of, incarnation_of
from mesh.replica import Replica
from mesh.state.commands import DrainHost
from mesh.state.model import HostRecord
from mesh.wire.events import event_to_wire, ownership_to_wire
from mesh.wire.membership import host_to_wire
from sidecar.admin.services_server import service_rows

EVENTS_DEFAULT = 100


class Member(Protocol):
    """What this host's own member and leadership can tell and do."""

    @property
    def leader(self) -> MemberId | None: ...
    @property
    def term(self) -> Term: ...
    @property
    def commit(self) -> Index: ...
    @property
    def role(self) -> str: ...
    def lease_ns_left(self) -> int: ...
    def fenced_reason(self) -> str: ...
    def applied_index(self, host: HostId) -> int: ...
    def beat_age_ns(self, host: HostId) -> int | None: ...
    async def transfer_leadership(self, to: HostId | None, *, timeout_s: float) -> HostId:
        """Hand over; returns when the other host leads and owns what moves along."""


class Northbound(Protocol):
    """What Envoy has open on this host."""

    @property
    def northbound_listening(self) -> bool: ...
    def northbound_problems(self) -> tuple[str, ...]: ...


class ClusterServicer(cluster_pb2_grpc.ClusterServiceServicer):
    """Served on every host, from its own applied state."""

    def __init__(self, *, replica: Replica, member: Member, northbound: Northbound, version: str) -> None:
        self._replica = replica
        self._member = member
        self._northbound = northbound
        self._version = version

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """See the contract."""
        if request.linearizable:
            await self._replica.barrier(timeout_s=remaining_s(context))
        own, state, machine = self._replica.member, self._replica.state, self._replica.machine
        leader = self._member.leader
        response = pb.GetStatusResponse(
            cluster_id=state.info.cluster_id if state.info is not None else "",
            host_id=host_of(own),
            incarnation=incarnation_of(own),
            term=self._member.term,
            leader=host_of(leader) if leader is not None else "",
            commit_index=self._member.commit,
            applied_index=self._replica.applied,
            role=self._member.role,
            owners=[ownership_to_wire(row) for row in state.owners.values()],
            hosts=[self._host(record) for record in state.hosts.values()],
            services=service_rows(state),
            virtual_address=state.info.virtual_address if state.info is not None else "",
            northbound_addresses={
                row.host: row.northbound for row in state.members.values() if row.northbound
            },
            version=self._version,
            state_hash=machine.hash,
            state_hash_index=machine.hash_index,
            fenced_reason=self._member.fenced_reason(),
            northbound_listening=self._northbound.northbound_listening,
            northbound_problems=self._northbound.northbound_problems(),
        )
        response.lease_left.FromNanoseconds(self._member.lease_ns_left())
        return response

    def _host(self, record: HostRecord) -> membership_pb2.Host:
        leader = self._member.leader
        age_ns = self._member.beat_age_ns(record.host)
        return host_to_wire(
            record,
            self._replica.state.members[record.member],
            leader=leader is not None and host_of(leader) == record.host,
            applied=Index(self._member.applied_index(record.host)),
            last_beat_age_ms=None if age_ns is None else age_ns // 1_000_000,
        )

    async def TransferLeadership(
        self, request: pb.TransferLeadershipRequest, context: Any
    ) -> pb.TransferLeadershipResponse:
        """See the contract."""
        if request.host and HostId(request.host) not in self._replica.state.hosts:
            raise NotFound(f"There is no host {request.host}; see trellis hosts.", host=request.host)
        began = boottime_ns()
        leader = await self._member.transfer_leadership(
            HostId(request.host) if request.host else None, timeout_s=remaining_s(context, 10.0)
        )
        response = pb.TransferLeadershipResponse(leader=leader)
        response.took.FromNanoseconds(boottime_ns() - began)
        return response

    async def ListEvents(self, request: pb.ListEventsRequest, context: Any) -> pb.ListEventsResponse:
        """See the contract."""
        chosen = [
            event
            for event in self._replica.state.events.values()
            if event.index > request.after_index and request.kind in ("", event.kind)
        ]
        limit = request.limit or EVENTS_DEFAULT
        return pb.ListEventsResponse(events=[event_to_wire(event) for event in chosen[-limit:]])

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract."""
        state = self._replica.state
        first = [event for event in state.events.values() if event.index > request.after_index]
        async with self._replica.watch(state.applied) as changes:
            for event in first:
                yield pb.WatchEventsResponse(event=event_to_wire(event))
            async for change in changes:
                for event in change.events:
                    yield pb.WatchEventsResponse(event=event_to_wire(event))

    async def DrainHost(self, request: pb.DrainHostRequest, context: Any) -> pb.DrainHostResponse:
        """See the contract."""
        await self._replica.propose(
            DrainHost(HostId(request.host), request.drain), at_ns=wall_ns(), timeout_s=remaining_s(context)
        )
        return pb.DrainHostResponse()
