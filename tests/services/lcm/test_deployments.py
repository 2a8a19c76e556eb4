"""Deployments through the contract, on a real database: create, read, update, delete."""

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb

from mesh.errors import Conflict, InvalidRequest, NotFound, VersionConflict
from mesh.wire.errors import from_rpc_error
from tests.harness.lcm import Lcm, a_spec, a_workload, new_key, to_create

pytestmark = pytest.mark.integration


def test_what_was_created_is_there(lcm: Lcm) -> None:
    """Goal: an answer means that it is durable and readable. Method: create, get, list, operation."""
    made = lcm.deployments.CreateDeployment(to_create(a_spec("shop", tier="web")), timeout=10)
    assert (made.deployment.version, made.deployment.state) == (1, pb.DEPLOYMENT_STATE_REQUESTED)
    got = lcm.deployments.GetDeployment(pb.GetDeploymentRequest(name="shop"), timeout=10).deployment
    assert got == made.deployment
    listed = lcm.deployments.ListDeployments(pb.ListDeploymentsRequest(), timeout=10)
    assert list(listed.deployments) == [got]
    operation = lcm.operations.GetOperation(pb.GetOperationRequest(id=got.operation_id), timeout=10).operation
    assert operation == made.operation
    assert (operation.kind, operation.state) == (pb.OPERATION_KIND_CREATE, pb.OPERATION_STATE_PENDING)
    assert (operation.steps_done, operation.steps_all) == (0, 2)


def test_a_name_is_taken_once(lcm: Lcm) -> None:
    """Goal: no deployment replaces another by accident. Method: the same name under another key."""
    lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    with pytest.raises(grpc.RpcError) as refused:
        lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    assert isinstance(from_rpc_error(refused.value), Conflict)


def test_every_problem_is_reported_at_once(lcm: Lcm) -> None:
    """Goal: one round is enough to mend a request. Method: a request with eight mistakes."""
    bad = a_workload(
        "Bad Name",
        command=[],
        environment={"TRELLIS_X": "1", "LCM_Y": "1"},
        mode=0,
        instances_min=5,
        instances_max=2,
        depends_on=["nobody"],
        directory="relative",
    )
    request = pb.CreateDeploymentRequest(spec=a_spec("", bad))
    with pytest.raises(grpc.RpcError) as refused:
        lcm.deployments.CreateDeployment(request, timeout=10)
    error = from_rpc_error(refused.value)
    assert isinstance(error, InvalidRequest)
    assert sorted(problem.path for problem in error.problems) == [
        "idempotency_key",
        "spec.name",
        "spec.workloads[0].command",
        "spec.workloads[0].depends_on",
        "spec.workloads[0].directory",
        "spec.workloads[0].environment.LCM_Y",
        "spec.workloads[0].environment.TRELLIS_X",
        "spec.workloads[0].instances_max",
        "spec.workloads[0].mode",
        "spec.workloads[0].name",
    ]


def test_an_update_overtakes_and_a_stale_one_is_refused(lcm: Lcm) -> None:
    """Goal: nobody overwrites what they have not seen. Method: versions, before and after."""
    first = lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    request = pb.UpdateDeploymentRequest(
        spec=a_spec("shop", a_workload("api"), a_workload("web", depends_on=["api"])),
        expected_version=1,
        idempotency_key=new_key(),
    )
    second = lcm.deployments.UpdateDeployment(request, timeout=10)
    assert (second.deployment.version, second.deployment.uid) == (2, first.deployment.uid)
    overtaken = lcm.operations.GetOperation(
        pb.GetOperationRequest(id=first.operation.id), timeout=10
    ).operation
    assert overtaken.state == pb.OPERATION_STATE_CANCELLED
    assert overtaken.message == "Overtaken by version 2."
    request.idempotency_key = new_key()
    with pytest.raises(grpc.RpcError) as refused:
        lcm.deployments.UpdateDeployment(request, timeout=10)
    error = from_rpc_error(refused.value)
    assert isinstance(error, VersionConflict)
    assert error.metadata["version"] == "2"


def test_deleting_is_an_operation_and_joins_one_under_way(lcm: Lcm) -> None:
    """Goal: a deletion is requested once. Method: delete twice, then what is not there."""
    lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)

    def delete(name: str) -> pb.DeleteDeploymentResponse:
        request = pb.DeleteDeploymentRequest(name=name, idempotency_key=new_key())
        return lcm.deployments.DeleteDeployment(request, timeout=10)

    first, second = delete("shop"), delete("shop")
    assert first.operation.id == second.operation.id
    assert second.deployment.state == pb.DEPLOYMENT_STATE_DELETING
    with pytest.raises(grpc.RpcError) as refused:
        delete("nobody")
    assert isinstance(from_rpc_error(refused.value), NotFound)


def test_only_what_has_not_begun_is_cancelled(lcm: Lcm) -> None:
    """Goal: a cancelled creation never was; no word without effect. Method: creations and a deletion."""
    made = lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)

    def cancel(operation_id: str) -> pb.Operation:
        request = pb.CancelOperationRequest(id=operation_id, idempotency_key=new_key())
        return lcm.operations.CancelOperation(request, timeout=10).operation

    assert cancel(made.operation.id).state == pb.OPERATION_STATE_CANCELLED
    with pytest.raises(grpc.RpcError) as gone:
        lcm.deployments.GetDeployment(pb.GetDeploymentRequest(name="shop"), timeout=10)
    assert isinstance(from_rpc_error(gone.value), NotFound)
    with pytest.raises(grpc.RpcError) as refused:
        cancel(made.operation.id)
    assert "is done" in from_rpc_error(refused.value).message
    lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    request = pb.DeleteDeploymentRequest(name="shop", idempotency_key=new_key())
    deletion = lcm.deployments.DeleteDeployment(request, timeout=10)
    cancel(deletion.operation.id)
    kept = lcm.deployments.GetDeployment(pb.GetDeploymentRequest(name="shop"), timeout=10).deployment
    assert kept.state == pb.DEPLOYMENT_STATE_REQUESTED
