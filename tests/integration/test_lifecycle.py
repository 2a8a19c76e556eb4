"""lcm and the reconciler as services of a real cluster, on a plain PostgreSQL."""

import sys
from collections.abc import Iterator

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb
from trellis.lcm.v1 import lcm_pb2_grpc
from trellis.supervisor.v1 import supervisor_pb2

from mesh.errors import NotFound, StaleTerm
from mesh.ids import FencingTerm, OwnedName
from mesh.settings.declaration import load_declaration
from mesh.state.model import Fence
from mesh.wire.errors import from_rpc_error
from mesh.wire.fencing import fencing_metadata
from mesh.wire.service import encode_spec
from tests.harness.cluster import Cluster
from tests.harness.database import postgres, session_postgres, url
from tests.harness.lcm import a_spec, a_workload, new_key, to_create
from tests.harness.processes import ROOT
from tests.harness.waiting import wait_for
from tests.services.reconciler.suite import check_supervisor

pytestmark = pytest.mark.integration
__all__ = ["postgres", "session_postgres", "url"]


@pytest.fixture
def declared(cluster: Cluster, url: str) -> Iterator[Cluster]:
    """A cluster with lcm and the reconciler, ready; without them and what they declared afterwards."""
    stub = cluster.hosts[0].services
    for name in ("lcm", "reconciler"):
        spec = encode_spec(load_declaration(ROOT / f"services/{name}/{name}.toml"))
        spec.database = False  # this cluster carries none: it is given one beside it
        del spec.command[:]
        spec.command.extend([sys.executable, "-m", f"services.{name}.main"])
        spec.environment.update(
            DATABASE_URL=url, LCM_ANONYMOUS="deployer", PYTHONPATH=f"{ROOT}:{ROOT / 'protos'}"
        )
        stub.ApplyService(supervisor_pb2.ApplyServiceRequest(spec=spec), timeout=10.0)
    cluster.wait_whole(60.0)
    yield cluster
    for name in ("reconciler", "lcm"):
        stub.StopService(supervisor_pb2.StopServiceRequest(name=name), timeout=10.0)


def reconcilers_fence(cluster: Cluster) -> Fence:
    """Of its present owner, as a host that runs has it."""
    status = wait_for(next(each for each in cluster.hosts if each.is_running()).status, "a status")
    found = next(each for each in status.owners if each.name == "service/reconciler")
    return Fence(OwnedName(found.name), FencingTerm(found.fencing_term))


def check_is_fenced(cluster: Cluster, former: Fence) -> None:
    """A stop for a former owner is refused on every host that runs; the present one could."""
    present = reconcilers_fence(cluster)
    assert present.fencing_term > former.fencing_term
    for host in cluster.hosts:
        if not host.is_running():
            continue
        for fence, name, kind in ((former, "shop-api", StaleTerm), (present, "nobody", NotFound)):
            request = supervisor_pb2.StopServiceRequest(name=name)
            with pytest.raises(grpc.RpcError) as refused:
                host.services.StopService(request, timeout=10.0, metadata=fencing_metadata(fence))
            assert isinstance(from_rpc_error(refused.value), kind)


async def test_a_sidecar_is_as_the_toy(cluster: Cluster) -> None:
    """Goal: the reconciler's tests mean something. Method: the toy's suite, on the operators' socket."""
    await check_supervisor(f"unix:{cluster.hosts[0].run_dir / 'admin.sock'}")


def test_a_deployment_runs_survives_its_reconcilers_host_and_goes(declared: Cluster) -> None:
    """Goal: the whole way, northbound to processes. Method: create through the virtual IP, kill the leader's
    sidecar (and with it the reconciler), update, delete. What the former owner asks for is refused."""
    with grpc.insecure_channel(declared.virtual_address) as channel:
        deployments = lcm_pb2_grpc.DeploymentServiceStub(channel)
        operations = lcm_pb2_grpc.OperationServiceStub(channel)

        def wait_done(operation: pb.Operation) -> None:
            def look() -> bool:
                request = pb.GetOperationRequest(id=operation.id)
                try:
                    found = operations.GetOperation(request, timeout=5, wait_for_ready=True).operation
                except grpc.RpcError:
                    return False  # between two leaders
                return bool(found.state == pb.OPERATION_STATE_SUCCEEDED)

            wait_for(look, f"operation {operation.id} has succeeded", 60.0)

        made = deployments.CreateDeployment(
            to_create(a_spec("shop", a_workload("api", instances_min=2))), timeout=15, wait_for_ready=True
        )
        wait_done(made.operation)
        before = reconcilers_fence(declared)
        leader = declared.wait_leader()
        leader.kill()
        update = pb.UpdateDeploymentRequest(
            spec=a_spec("shop", a_workload("api", instances_min=3)), idempotency_key=new_key()
        )

        def change() -> pb.UpdateDeploymentResponse | None:
            try:  # under the same key: however often it is sent, it counts once
                return deployments.UpdateDeployment(update, timeout=15, wait_for_ready=True)
            except grpc.RpcError:
                return None

        changed = wait_for(change, "the update is answered", 60.0)
        assert changed.deployment.version == 2
        wait_done(changed.operation)
        check_is_fenced(declared, before)
        leader.start()
        declared.wait_whole(60.0)
        request = pb.DeleteDeploymentRequest(name="shop", idempotency_key=new_key())
        deleted = deployments.DeleteDeployment(request, timeout=15, wait_for_ready=True)
        wait_done(deleted.operation)
    status = declared.hosts[0].status()
    assert status is not None
    assert [service.spec.name for service in status.services if service.spec.name.startswith("shop")] == []
