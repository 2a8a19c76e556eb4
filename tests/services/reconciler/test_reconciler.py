"""The reconciler as a process, on a real database and a toy of the sidecar."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb
from trellis.supervisor.v1 import supervisor_pb2

from mesh.errors import NotLeader, QueueFull, UnknownCommand
from tests.harness.lcm import Lcm, a_spec, a_workload, new_key, to_create
from tests.harness.postgres import Postgres
from tests.harness.processes import ROOT, Processes
from tests.harness.toy_supervisor import ToySupervisor
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def toy() -> Iterator[ToySupervisor]:
    """What the reconciler declares services in."""
    made = ToySupervisor()
    yield made
    made.close()


StartReconciler = Callable[..., int]
CLUSTER = "c" * 32


@pytest.fixture
def start_reconciler(url: str, processes: Processes, tmp_path: Path, toy: ToySupervisor) -> StartReconciler:
    """Starts an owner with a fencing term; its process id."""

    def start(term: int, cluster: str = CLUSTER) -> int:
        toy.terms["service/reconciler"] = term  # as the mesh does before it starts an owner
        given = {
            "TRELLIS_CLUSTER": cluster,
            "DATABASE_URL": url,
            "RECONCILER_SOCKET": f"ipv4:{toy.address}",
            "TRELLIS_FENCING_TERM": str(term),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
        }
        words = [f"{name}={value}" for name, value in given.items()]
        argv = ["/usr/bin/env", *words, sys.executable, "-m", "services.reconciler.main"]
        return processes.start(argv, tmp_path / f"reconciler-{cluster[:1]}-{term}.log")

    return start


def deployment(lcm: Lcm, name: str = "shop") -> pb.Deployment:
    return lcm.deployments.GetDeployment(pb.GetDeploymentRequest(name=name), timeout=10).deployment


def wait_state(lcm: Lcm, state: pb.DeploymentState.ValueType, name: str = "shop") -> pb.Deployment:
    wait_for(
        lambda: deployment(lcm, name).state == state, f"{name} is {pb.DeploymentState.Name(state)}", 20.0
    )
    return deployment(lcm, name)


def wait_done(lcm: Lcm, operation_id: str) -> pb.Operation:
    request = pb.WaitOperationRequest(id=operation_id)
    found = lcm.operations.WaitOperation(request, timeout=40).operation
    assert found.state not in (pb.OPERATION_STATE_PENDING, pb.OPERATION_STATE_RUNNING), found
    return found


def delete(lcm: Lcm, name: str = "shop") -> pb.Operation:
    request = pb.DeleteDeploymentRequest(name=name, idempotency_key=new_key())
    return lcm.deployments.DeleteDeployment(request, timeout=10).operation


def test_a_deployment_goes_from_requested_to_running_to_gone(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler
) -> None:
    """Goal: the whole life. Method: create with a dependency, update, delete; look at services."""
    start_reconciler(1)
    spec = a_spec("shop", a_workload("web", depends_on=["api"]), a_workload("api", instances_min=2))
    made = lcm.deployments.CreateDeployment(to_create(spec), timeout=10)
    done = wait_done(lcm, made.operation.id)
    assert (done.state, done.steps_done, done.steps_all) == (pb.OPERATION_STATE_SUCCEEDED, 4, 4)
    running = deployment(lcm)
    assert running.state == pb.DEPLOYMENT_STATE_RUNNING
    assert [(each.service, each.ready, each.reason) for each in running.workloads] == [
        ("shop-web", 1, ""),
        ("shop-api", 2, ""),
    ]
    assert toy.done == [("apply", "shop-api"), ("apply", "shop-web")]
    update = pb.UpdateDeploymentRequest(
        spec=a_spec("shop", a_workload("api", environment={"LEVEL": "debug"})), idempotency_key=new_key()
    )
    changed = lcm.deployments.UpdateDeployment(update, timeout=10)
    assert wait_done(lcm, changed.operation.id).state == pb.OPERATION_STATE_SUCCEEDED
    wait_for(lambda: list(toy.services) == ["shop-api"], "the workload that was left out is gone")
    assert toy.services["shop-api"].spec.environment["LEVEL"] == "debug"
    assert wait_done(lcm, delete(lcm).id).state == pb.OPERATION_STATE_SUCCEEDED
    assert toy.services == {}
    with pytest.raises(grpc.RpcError):
        deployment(lcm)


def test_progress_is_told_in_steps_and_a_sentence(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler
) -> None:
    """Goal: whoever waits sees how far it is, and why. Method: a service that does not get ready."""
    toy.held.add("shop-api")
    start_reconciler(1)
    made = lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    wanted = "1 of 1 workloads declared, 0 ready. shop-api has 0 of 1 instances ready: held back."
    asked = pb.GetOperationRequest(id=made.operation.id)
    wait_for(lambda: lcm.operations.GetOperation(asked, timeout=10).operation.message == wanted, wanted)
    assert lcm.operations.GetOperation(asked, timeout=10).operation.steps_done == 1
    assert deployment(lcm).state == pb.DEPLOYMENT_STATE_DEPLOYING
    toy.held.clear()
    assert wait_done(lcm, made.operation.id).state == pb.OPERATION_STATE_SUCCEEDED


def test_what_differs_is_healed(lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler) -> None:
    """Goal: a running deployment stays as requested. Method: stop a service, change one, hold one back."""
    start_reconciler(1)
    lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING)
    toy.forget("shop-api")
    wait_for(lambda: "shop-api" in toy.services, "it is declared again")
    toy.services["shop-api"].spec.environment["LEVEL"] = "by hand"
    wait_for(lambda: "LEVEL" not in toy.services["shop-api"].spec.environment, "it is as requested again")
    toy.held.add("shop-api")
    wait_for(lambda: "held back" in deployment(lcm).reason, "it is told why")
    assert deployment(lcm).state == pb.DEPLOYMENT_STATE_DEGRADED
    toy.held.clear()
    assert wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING).reason == ""


def test_a_refusal_that_passes_fails_no_operation(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler
) -> None:
    """Goal: a busy mesh costs time only. Method: what a full queue, an election and an older leader
    answer."""
    passing = [QueueFull("64 commands are under way"), NotLeader("host2 leads"), UnknownCommand("upgrade")]
    toy.refusals["shop-api"] = [*passing]
    start_reconciler(1)
    made = lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    assert wait_done(lcm, made.operation.id).state == pb.OPERATION_STATE_SUCCEEDED
    assert toy.refusals["shop-api"] == []


def test_a_deployment_that_is_put_off_again_and_again_holds_up_no_other(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler
) -> None:
    """Goal: every deployment has its turn. Method: of three the first by name is put off without end."""
    toy.refusals["a-api"] = [QueueFull("full") for _ in range(1000)]
    start_reconciler(1)
    made = [
        lcm.deployments.CreateDeployment(to_create(a_spec(name)), timeout=10).operation.id
        for name in ("a", "b", "c")
    ]
    assert [wait_done(lcm, each).state for each in made[1:]] == [pb.OPERATION_STATE_SUCCEEDED] * 2
    asked = pb.GetOperationRequest(id=made[0])
    assert lcm.operations.GetOperation(asked, timeout=10).operation.state == pb.OPERATION_STATE_RUNNING


def test_a_service_of_somebody_else_is_never_touched(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler
) -> None:
    """Goal: no deployment takes over what an operator declared. Method: the same name is there already."""
    theirs = supervisor_pb2.ServiceSpec(name="shop-api", command=["/usr/bin/theirs"])
    toy.services["shop-api"] = supervisor_pb2.Service(spec=theirs, version=1)
    toy.services["shop-api"].spec.mode = supervisor_pb2.SERVICE_MODE_ACTIVE_ACTIVE
    toy.services["shop-api"].spec.restart_when = supervisor_pb2.RESTART_WHEN_ALWAYS
    toy.services["shop-api"].spec.instances_min = toy.services["shop-api"].spec.instances_max = 1
    start_reconciler(1)
    made = lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    failed = wait_done(lcm, made.operation.id)
    assert (failed.state, failed.reason) == (pb.OPERATION_STATE_FAILED, "CONFLICT")
    assert "declared by an operator" in deployment(lcm).reason
    assert wait_done(lcm, delete(lcm).id).state == pb.OPERATION_STATE_SUCCEEDED
    assert list(toy.services["shop-api"].spec.command) == ["/usr/bin/theirs"]
    assert toy.done == []


def test_a_later_owner_goes_on_and_the_earlier_one_ends(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler, processes: Processes
) -> None:
    """Goal: of two owners one acts. Method: freeze the first, start a second, thaw the first: code 3."""
    first = start_reconciler(5)
    lcm.deployments.CreateDeployment(to_create(a_spec("one")), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING, "one")
    processes.signal(first, signal.SIGSTOP)
    second = start_reconciler(6)
    toy.held.add("two-api")  # so that the first has something to write when it wakes
    made = lcm.deployments.CreateDeployment(to_create(a_spec("two")), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_DEPLOYING, "two")
    processes.signal(second, signal.SIGSTOP)
    processes.signal(first, signal.SIGCONT)
    toy.held.clear()
    assert processes.wait_exit(first, 20.0) == 3
    assert deployment(lcm, "two").state == pb.DEPLOYMENT_STATE_DEPLOYING
    processes.signal(second, signal.SIGCONT)
    assert wait_done(lcm, made.operation.id).state == pb.OPERATION_STATE_SUCCEEDED
    assert toy.done == [("apply", "one-api"), ("apply", "two-api")]


def test_an_owner_whom_only_the_mesh_knows_to_be_overtaken_ends(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler, processes: Processes
) -> None:
    """Goal: nothing is stopped for an owner of before, also when its successor has not come to the
    database yet. Method: freeze it, have the mesh assign the next term, request a deletion, thaw it."""
    first = start_reconciler(5)
    lcm.deployments.CreateDeployment(to_create(a_spec("one")), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING, "one")
    processes.signal(first, signal.SIGSTOP)
    toy.terms["service/reconciler"] = 6
    deletion = delete(lcm, "one")
    processes.signal(first, signal.SIGCONT)
    assert processes.wait_exit(first, 20.0) == 3
    assert list(toy.services) == ["one-api"]
    start_reconciler(6)
    assert wait_done(lcm, deletion.id).state == pb.OPERATION_STATE_SUCCEEDED
    assert toy.done == [("apply", "one-api"), ("stop", "one-api")]


def test_a_restored_database_is_taken_over_by_the_cluster_that_it_came_to(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler, processes: Processes
) -> None:
    """Goal: terms of a lost cluster hold nobody up, and it acts no more. Method: an owner of one cluster
    with term 7, one of another with term 1, then the first cluster's next."""
    first = start_reconciler(7)
    lcm.deployments.CreateDeployment(to_create(a_spec("one")), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING, "one")
    processes.signal(first, signal.SIGKILL)
    second = start_reconciler(1, "d" * 32)
    lcm.deployments.CreateDeployment(to_create(a_spec("two")), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING, "two")
    assert processes.wait_exit(start_reconciler(8), 20.0) == 3
    toy.terms["service/reconciler"] = 1  # the other cluster's mesh counted by itself
    lcm.deployments.CreateDeployment(to_create(a_spec("three")), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING, "three")
    assert processes.code(second) is None


def test_a_reconciler_that_is_killed_anywhere_is_followed_by_one_that_finishes(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler, processes: Processes
) -> None:
    """Goal: nothing is forgotten halfway. Method: kill each owner a moment after it acted."""
    made = [
        lcm.deployments.CreateDeployment(to_create(a_spec(f"d{number}")), timeout=10).operation.id
        for number in range(12)
    ]
    for term in range(1, 5):
        before = len(toy.done)
        pid = start_reconciler(term)
        wait_for(lambda before=before: len(toy.done) > before, "it acts", 20.0)  # type: ignore[misc]
        processes.signal(pid, signal.SIGKILL)
    start_reconciler(9)
    assert {wait_done(lcm, each).state for each in made} == {pb.OPERATION_STATE_SUCCEEDED}
    assert sorted(toy.done) == sorted(("apply", f"d{number}-api") for number in range(12))


def test_what_is_left_of_a_deployment_that_is_not_there_is_stopped(
    lcm: Lcm, toy: ToySupervisor, start_reconciler: StartReconciler, postgres: Postgres
) -> None:
    """Goal: nothing runs that nobody asked for. Method: remove a row; another database's service stays."""
    start_reconciler(1)
    lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    wait_state(lcm, pb.DEPLOYMENT_STATE_RUNNING)
    copy = supervisor_pb2.Service()
    copy.CopyFrom(toy.services["shop-api"])
    copy.spec.name = "other-api"
    copy.spec.environment["LCM_OWNER"] = "00000000-0000-0000-0000-000000000000/other"
    toy.services["other-api"] = copy
    postgres.ask("DELETE FROM deployments", url=lcm.url)
    wait_for(lambda: list(toy.services) == ["other-api"], "only the other database's service is there")


def test_it_acts_for_no_term(start_reconciler: StartReconciler, processes: Processes) -> None:
    """Goal: nobody acts without an ownership. Method: term 0."""
    assert processes.wait_exit(start_reconciler(0), 20.0) == 1
