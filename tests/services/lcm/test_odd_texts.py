"""Texts and tokens that no database takes are refused as what they are, never as a failure of the server."""

import base64
import json
from collections.abc import Callable

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb
from trellis.supervisor.v1 import supervisor_pb2

from mesh.errors import InvalidRequest, OutOfRange
from mesh.wire.errors import from_rpc_error
from tests.harness.lcm import Lcm, a_spec, a_workload, new_key, to_create

pytestmark = pytest.mark.integration
NUL = "shop\0"


def refusal(call: Callable[[], object]) -> Exception:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return from_rpc_error(refused.value)


def paths(error: Exception) -> list[str]:
    assert isinstance(error, InvalidRequest), repr(error)
    return [problem.path for problem in error.problems]


def test_a_nul_is_a_problem_of_its_field(lcm: Lcm) -> None:
    """Goal: the caller learns what is wrong, and where. Method: a NUL in every text that is looked up."""
    deployments, operations = lcm.deployments, lcm.operations
    delete = pb.DeleteDeploymentRequest(name=NUL, idempotency_key=new_key())
    labels = {"tier": NUL}
    for call, path in (
        (lambda: deployments.GetDeployment(pb.GetDeploymentRequest(name=NUL), timeout=10), "name"),
        (lambda: deployments.DeleteDeployment(delete, timeout=10), "name"),
        (
            lambda: next(deployments.WatchDeployments(pb.WatchDeploymentsRequest(name=NUL), timeout=10)),
            "name",
        ),
        (
            lambda: deployments.ListDeployments(pb.ListDeploymentsRequest(labels=labels), timeout=10),
            "labels.tier",
        ),
        (
            lambda: operations.ListOperations(pb.ListOperationsRequest(deployment=NUL), timeout=10),
            "deployment",
        ),
    ):
        assert paths(refusal(call)) == [path]


def test_a_nul_in_a_workload_is_a_problem_of_its_field(lcm: Lcm) -> None:
    """Goal: nothing is accepted that no host could start. Method: each text of a workload that was not
    looked at."""
    probe = supervisor_pb2.Probe(kind=supervisor_pb2.PROBE_KIND_GRPC, target=NUL)
    bad = a_workload("api", directory="/srv\0", readiness=probe, routed=True, grpc_services=[NUL])
    error = refusal(lambda: lcm.deployments.CreateDeployment(to_create(a_spec("shop", bad)), timeout=10))
    assert sorted(paths(error)) == [
        "spec.workloads[0].directory",
        "spec.workloads[0].grpc_services",
        "spec.workloads[0].probes.readiness.target",
    ]


def token(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "given",
    [
        token(1, -1, "a", {}),
        token(1, 1 << 64, "a", {}),
        token(1, 1, "a\0", {}),
        token(1, 1, "\ud800", {}),
        token(1, True, "a", {}),
        base64.urlsafe_b64encode(b"5").decode(),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
        "é",
    ],
)
def test_a_token_that_was_not_given_is_refused(lcm: Lcm, given: str) -> None:
    """Goal: whoever makes up a token is told so. Method: numbers and texts out of range, and other shapes."""
    request = pb.ListDeploymentsRequest(page_token=given)
    assert paths(refusal(lambda: lcm.deployments.ListDeployments(request, timeout=10))) == ["page_token"]


@pytest.mark.parametrize("after", [-1, 1 << 63, 1 << 200, True])
def test_a_token_of_operations_is_bounded_too(lcm: Lcm, after: int) -> None:
    """Goal: as above. Method: numbers that no revision has."""
    request = pb.ListOperationsRequest(page_token=token(1, 0, after, {"": ""}))
    assert paths(refusal(lambda: lcm.operations.ListOperations(request, timeout=10))) == ["page_token"]


def test_a_revision_that_no_database_can_have_is_out_of_range(lcm: Lcm) -> None:
    """Goal: it is told as any other that was never reached. Method: the highest that the contract has."""
    request = pb.WatchDeploymentsRequest(after_revision=(1 << 64) - 1)
    assert isinstance(
        refusal(lambda: next(lcm.deployments.WatchDeployments(request, timeout=10))), OutOfRange
    )
