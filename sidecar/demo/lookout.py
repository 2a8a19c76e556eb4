"""Looks at the hosts through their admin sockets, and at the virtual address by connecting."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import grpc
from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc
from trellis.database.v1 import database_pb2, database_pb2_grpc
from trellis.membership.v1 import membership_pb2

from sidecar.demo.board import Board
from sidecar.demo.phases import Sight
from sidecar.demo.plan import HostPlan

#: Pause between looks: in quiet times, and while a failover is measured.
CALM_S: Final = 0.2
CLOSE_S: Final = 0.01


class Lookout:
    """Keeps the board's sights fresh; calls `on_sight` for each, which may measure."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.pause_s = CALM_S
        self.on_sight: Callable[[Sight], None] = lambda _sight: None

    async def watch_host(self, host: HostPlan) -> None:
        """Look at one host until cancelled; a host that does not answer is unseen."""
        async with grpc.aio.insecure_channel(f"unix:{host.admin_socket}", options=_OPTIONS) as channel:
            stub = cluster_pb2_grpc.ClusterServiceStub(channel)
            while True:
                try:
                    status = await stub.GetStatus(cluster_pb2.GetStatusRequest(), timeout=1.0)
                except grpc.aio.AioRpcError:
                    self.board.sights.pop(host.name, None)
                else:
                    sight = sight_of(host.name, status, time.monotonic_ns())
                    self.board.sights[host.name] = sight
                    self.on_sight(sight)
                await asyncio.sleep(self.pause_s)

    async def watch_events(self, host: HostPlan, on_event: Callable[[cluster_pb2.Event], None]) -> None:
        """Tell every event that this host applies from now on; ends when the host does."""
        async with grpc.aio.insecure_channel(f"unix:{host.admin_socket}", options=_OPTIONS) as channel:
            stub = cluster_pb2_grpc.ClusterServiceStub(channel)
            try:
                kept = await stub.ListEvents(cluster_pb2.ListEventsRequest(limit=1))
                last = kept.events[-1].index if kept.events else 0
                async for answer in stub.WatchEvents(cluster_pb2.WatchEventsRequest(after_index=last)):
                    on_event(answer.event)
            except grpc.aio.AioRpcError as error:
                self.board.say(f"events of {host.name} ended: {error.code().name.lower()}")


_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


def sight_of(host: str, status: cluster_pb2.GetStatusResponse, at_ns: int) -> Sight:
    """What a status says, as the demo's own value."""
    ready = {
        service.spec.name: frozenset(
            report.instance.partition("@")[2].rpartition("#")[0]
            for report in service.instances
            if report.ready
        )
        for service in status.services
    }
    return Sight(
        at_ns=at_ns,
        host=host,
        role=status.role,
        term=status.term,
        leader=status.leader,
        lease_ms=status.lease_left.ToNanoseconds() / 1e6,
        applied_index=status.applied_index,
        voters=frozenset(
            member.host for member in status.hosts if member.role == membership_pb2.MEMBER_ROLE_VOTER
        ),
        owners={owner.name: (owner.host, owner.fencing_term) for owner in status.owners},
        ready=ready,
    )


async def watch_address(address: str, on_change: Callable[[bool, int], None]) -> None:
    """Connect again and again, and tell when the address begins or ceases to accept."""
    ip, _, port = address.rpartition(":")
    accepted = True
    while True:
        now_accepted = await _accepts(ip, int(port))
        if now_accepted != accepted:
            accepted = now_accepted
            on_change(accepted, time.monotonic_ns())
        await asyncio.sleep(CLOSE_S)


async def _accepts(ip: str, port: int) -> bool:
    try:
        async with asyncio.timeout(0.5):
            _reader, writer = await asyncio.open_connection(ip, port)
    except OSError:
        return False
    writer.close()
    return True


async def wait_streaming(host: HostPlan, deadline_s: float) -> bool:
    """Wait until a host, asked itself, receives from the primary and counts for commits; whether it came."""
    until = time.monotonic() + deadline_s
    async with grpc.aio.insecure_channel(f"unix:{host.admin_socket}", options=_OPTIONS) as channel:
        stub = database_pb2_grpc.DatabaseServiceStub(channel)
        while time.monotonic() < until:
            try:
                status = await stub.GetStatus(database_pb2.GetStatusRequest(), timeout=1.0)
            except grpc.aio.AioRpcError:
                status = database_pb2.GetStatusResponse()
            streams = [each.host for each in status.members if each.status.is_streaming]
            if host.name in streams and host.name in status.published.voters:
                return True
            await asyncio.sleep(CALM_S / 2)
    return False


async def wait_until(holds: Callable[[], bool], deadline_s: float) -> bool:
    """Wait for a condition on what is known; whether it came true in time."""
    until = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.02)
    return True
