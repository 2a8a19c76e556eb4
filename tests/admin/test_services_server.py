"""What operators are told about services: what is certain, and why something runs nowhere."""

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from trellis.supervisor.v1 import supervisor_pb2 as pb

from mesh.errors import NoLeader, Problem, StaleTerm, VersionConflict
from mesh.ids import FencingTerm, HostId, Index, InstanceId, MemberId, ServiceName, owned_service
from mesh.replica import Replica
from mesh.state.commands import ApplyService, DrainHost, SetHostStatus
from mesh.state.model import Fence, HostStatus
from mesh.state.service import ServiceMode, ServiceSpec
from mesh.wire.fencing import fencing_metadata
from mesh.wire.service import encode_spec
from sidecar.admin.services_server import SupervisorServicer, service_row
from tests.app.test_replica_lanes import OneMember
from tests.state.model_state import A, B, C, Cluster, member

SPEC = ServiceSpec(ServiceName("echo"), ("/bin/true",))


class Cut(OneMember):
    """A log whose member is cut off once something has been proposed."""

    async def read_barrier(self, *, timeout_s: float) -> Index:
        del timeout_s
        if self.applied:
            raise NoLeader("no quorum confirmed the read")
        return self.applied


class NothingRuns:
    """A host without instances, that has every program."""

    def pushed(self, instance: InstanceId, ok: bool) -> None: ...
    def is_draining(self, instance: InstanceId) -> bool:
        return False

    def tail(self, service: ServiceName, lines: int) -> Sequence[tuple[InstanceId, bytes]]:
        return ()

    async def follow(self, service: ServiceName) -> AsyncIterator[tuple[InstanceId, bytes]]:
        return
        yield

    def check_command(self, spec: ServiceSpec) -> Problem | None:
        return None


class Context:
    """Of a call with a deadline far off."""

    def __init__(self, fence: Fence | None = None) -> None:
        self._metadata = fencing_metadata(fence)

    def time_remaining(self) -> float:
        return 5.0

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def no_channel(_: MemberId) -> grpc.aio.Channel:
    raise AssertionError("nobody is asked")


async def test_what_was_declared_is_told_as_declared_though_this_host_is_cut_off() -> None:
    """Goal: success is never told as failure. Method: the host loses the leader right after the commit."""
    replica = Replica(MemberId("host1.1"))
    replica.attach(Cut(replica))
    servicer = SupervisorServicer(replica=replica, instances=NothingRuns(), channel_to=no_channel)
    answer = await servicer.ApplyService(pb.ApplyServiceRequest(spec=encode_spec(SPEC)), Context())
    assert answer.service.version == 1
    assert answer.service.spec.name == "echo"
    assert not answer.unchanged


async def test_a_change_for_an_owner_that_is_overtaken_is_refused() -> None:
    """Goal: the term in the metadata reaches the log. Method: declare, stop and restart under a term that
    nobody has, and of another version than the present one."""
    replica = Replica(MemberId("host1.1"))
    replica.attach(OneMember(replica))
    servicer = SupervisorServicer(replica=replica, instances=NothingRuns(), channel_to=no_channel)
    stale = Context(Fence(owned_service(ServiceName("reconciler")), FencingTerm(1)))
    apply = pb.ApplyServiceRequest(spec=encode_spec(SPEC))
    with pytest.raises(StaleTerm):
        await servicer.ApplyService(apply, stale)
    assert not replica.state.services
    await servicer.ApplyService(apply, Context())
    with pytest.raises(StaleTerm):
        await servicer.StopService(pb.StopServiceRequest(name="echo"), stale)
    with pytest.raises(StaleTerm):
        await servicer.RestartService(pb.RestartServiceRequest(name="echo"), stale)
    with pytest.raises(VersionConflict):
        await servicer.StopService(pb.StopServiceRequest(name="echo", expected_version=2), Context())
    assert replica.state.services[SPEC.name].version == 1
    await servicer.StopService(pb.StopServiceRequest(name="echo", expected_version=1), Context())
    assert not replica.state.services


@pytest.mark.parametrize("mode", ServiceMode)
def test_a_service_that_no_host_may_run_says_which_hosts_and_why(mode: ServiceMode) -> None:
    """Goal: who drained everything sees it. Method: drain all but one, then that one too, and lose one."""
    cluster = Cluster()
    cluster.do(ApplyService(ServiceSpec(ServiceName("echo"), ("/bin/true",), mode=mode)))
    row = cluster.state.services[ServiceName("echo")]
    for host in (A, B):
        cluster.do(DrainHost(HostId(host), True))
    assert "no host may run it" not in service_row(cluster.state, row).degraded_reason
    cluster.do(SetHostStatus(C, member(C).member, HostStatus.LOST))
    told = service_row(cluster.state, row).degraded_reason
    assert "no host may run it: host1 is drained, host2 is drained, host3 is lost" in told
    assert "trellis host undrain" in told
