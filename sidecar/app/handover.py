"""Handing leadership over in order, on request or because this sidecar ends."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import structlog
from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

from mesh import failpoints
from mesh.errors import NoLeader, TrellisError, Unavailable
from mesh.identity.interceptor import forwarding_metadata
from mesh.ids import PRIMARY, VIP, HostId, host_of
from mesh.raft.model import Role
from mesh.wire.errors import from_rpc_error
from sidecar.app.core import Core

LOG = structlog.get_logger(__name__)

LEAVE_S = 3.0
#: While the database is being handed over, which begins with a checkpoint; clients are served meanwhile.
LEAVE_DATABASE_S = 20.0


class HandOver:
    """What this host does to lead no longer, and to own nothing any more."""

    def __init__(self, core: Core, ask_leader: Callable[[HostId | None, float], Awaitable[HostId]]) -> None:
        """*ask_leader* to transfer, for a host that does not lead."""
        self._core = core
        self._ask_leader = ask_leader

    async def transfer(self, to: HostId | None, *, timeout_s: float) -> HostId:
        """Hand leadership to a host, or to the most advanced; returns when it leads and owns.

        Asked on a follower, it is passed on to the leader.
        Fails: `NotFound`, `Conflict`, `NoLeader`; `Unavailable` when it takes too long.
        """
        made = self._core
        if made.node.role is not Role.LEADER:
            return await self._ask_leader(to, timeout_s)
        target = made.leading.transfer_target(to)
        if target == made.member:
            return made.host_id
        try:
            async with asyncio.timeout(timeout_s):
                await made.node.driver.transfer_leadership(target, timeout_s=timeout_s)
                await self._wait_owner(host_of(target))
        except TimeoutError as error:
            raise Unavailable(
                f"{host_of(target)} has not taken over within {timeout_s:.1f} s; see trellis status"
            ) from error
        return host_of(target)

    async def _wait_owner(self, host: HostId) -> None:
        """The virtual IP has moved to the new leader, as the applied state has it."""
        made = self._core
        while True:
            owner = made.replica.state.owners.get(VIP)
            if owner is None or (owner.holder == host and owner.successor in (None, host)):
                return
            await made.host.wait_step()

    async def leave(self) -> None:
        """Give leadership and everything owned to others, as far as there are others.

        Order: `leaving` is set on `observed` and `host` before.

        Bound: `LEAVE_S`; `LEAVE_DATABASE_S` once the database has a successor and as long as it has. What is
        still owned then is waited out by the next leader.
        """
        made = self._core
        await failpoints.passing("hand-over.leaving")
        made.host.wake()
        try:
            async with asyncio.timeout(LEAVE_S) as bound:
                began = asyncio.get_running_loop().time()
                if made.node.role is Role.LEADER and len(made.replica.state.hosts) > 1:
                    await made.node.driver.transfer_leadership(
                        made.leading.transfer_target(None), timeout_s=LEAVE_S
                    )
                # Without a lease this host can no longer be told that its releases were noted.
                while len(made.replica.state.hosts) > 1 and self._owns_something() and made.host.is_live():
                    bound.reschedule(began + (LEAVE_DATABASE_S if self._hands_database_over() else LEAVE_S))
                    await made.host.wait_step()
        except TimeoutError:
            LOG.warning("left-without-hand-over", reason="it took too long")
        except TrellisError as error:
            LOG.warning("left-without-hand-over", reason=str(error))

    def _hands_database_over(self) -> bool:
        owner = self._core.replica.state.owners.get(PRIMARY)
        if owner is None or owner.holder != self._core.host_id:
            return False
        return owner.successor not in (None, owner.holder)

    def _owns_something(self) -> bool:
        made = self._core
        return any(row.holder == made.host_id for row in made.replica.state.owners.values())


async def ask_to_transfer(channel: grpc.aio.Channel | None, to: HostId | None, timeout_s: float) -> HostId:
    """Pass a transfer on to the leader behind *channel*. Fails: `NoLeader`, and as the leader says."""
    if channel is None:
        raise NoLeader("No leader is known here; try again shortly.")
    try:
        answer = await cluster_pb2_grpc.ClusterServiceStub(channel).TransferLeadership(
            cluster_pb2.TransferLeadershipRequest(host=to or ""),
            timeout=timeout_s,
            metadata=forwarding_metadata(),
        )
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    return HostId(answer.leader)
