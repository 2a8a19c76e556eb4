"""What only the leader knows of the hosts, asked of it: how far each has applied, when it beat last."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import grpc
import structlog
from trellis.membership.v1 import membership_pb2 as pb
from trellis.membership.v1 import membership_pb2_grpc

from mesh.errors import TrellisError
from mesh.identity.interceptor import forwarding_metadata
from mesh.ids import HostId
from mesh.wire.errors import from_rpc_error

LOG = structlog.get_logger(__name__)

#: A leader that answers, answers in milliseconds; without its answer the rest is told all the same.
ASK_S: Final = 1.0

#: The way to the leader; None where this host leads, or nobody does. Fails: TrellisError for a stranger.
LeaderChannel = Callable[[], grpc.aio.Channel | None]


async def seen_by_leader(leader: LeaderChannel, *, timeout_s: float) -> Mapping[HostId, pb.Host]:
    """The hosts as the leader sees them; empty when there is none to ask or it does not answer.

    It is asked for its own view, so it asks nobody in turn.
    """
    try:
        channel = leader()
        if channel is None:
            return {}
        answer = await membership_pb2_grpc.MembershipServiceStub(channel).ListHosts(
            pb.ListHostsRequest(stale_ok=True), timeout=min(timeout_s, ASK_S), metadata=forwarding_metadata()
        )
    except (grpc.aio.AioRpcError, TrellisError) as failure:
        error = failure if isinstance(failure, TrellisError) else from_rpc_error(failure)
        LOG.info("leader-not-asked", reason=str(error))
        return {}
    return {HostId(host.host): host for host in answer.hosts}


def completed(hosts: Iterable[pb.Host], seen: Mapping[HostId, pb.Host]) -> list[pb.Host]:
    """This host's rows with what the leader knows put in; its answer for another incarnation is left out."""
    rows = []
    for row in hosts:
        better = seen.get(HostId(row.host))
        if better is not None and better.member == row.member:
            row.applied_index = better.applied_index or row.applied_index
            if better.HasField("last_beat_age"):
                row.last_beat_age.CopyFrom(better.last_beat_age)
        rows.append(row)
    return rows
