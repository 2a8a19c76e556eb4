"""Many writers and repeated requests at several instances: each counts once, nobody overwrites unseen."""

import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb

from mesh.errors import Conflict, TrellisError, VersionConflict
from mesh.wire.errors import from_rpc_error
from tests.harness.lcm import Lcm, a_spec, a_workload, new_key, to_create
from tests.harness.postgres import Postgres
from tests.harness.processes import Processes
from tests.harness.waiting import wait_for
from tests.services.conftest import StartLcm

pytestmark = pytest.mark.integration

WRITERS = 4
UPDATES = 10


def version_of(lcm: Lcm) -> int:
    found = lcm.deployments.GetDeployment(pb.GetDeploymentRequest(name="shop"), timeout=10)
    return found.deployment.version


def test_of_updates_at_one_version_one_succeeds(start_lcm: StartLcm) -> None:
    """Goal: no lost update. Method: writers at two instances read, change, and repeat what is refused."""
    instances = [start_lcm(), start_lcm()]
    instances[0].deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    refused: list[TrellisError] = []

    def write(number: int) -> int:
        lcm, done = instances[number % 2], 0
        while done < UPDATES:
            version = version_of(lcm)
            request = pb.UpdateDeploymentRequest(
                spec=a_spec("shop", a_workload(environment={"BY": f"{number}-{done}"})),
                expected_version=version,
                idempotency_key=new_key(),
            )
            try:
                answer = lcm.deployments.UpdateDeployment(request, timeout=20)
            except grpc.RpcError as error:
                refused.append(from_rpc_error(error))
                continue
            assert answer.deployment.version == version + 1
            done += 1
        return done

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sum(pool.map(write, range(WRITERS))) == WRITERS * UPDATES
    assert version_of(instances[0]) == 1 + WRITERS * UPDATES
    assert {type(error) for error in refused} <= {VersionConflict}
    everything = instances[1].operations.ListOperations(
        pb.ListOperationsRequest(deployment="shop"), timeout=10
    )
    unfinished = [each for each in everything.operations if each.state == pb.OPERATION_STATE_PENDING]
    assert len(unfinished) == 1
    assert len(everything.operations) == 1 + WRITERS * UPDATES


def test_one_key_at_two_instances_at_once_creates_once(start_lcm: StartLcm) -> None:
    """Goal: a retry that overtakes its call is harmless. Method: the same request eight times at once."""
    instances = [start_lcm(), start_lcm()]
    request = to_create(a_spec())

    def create(number: int) -> bytes:
        answer = instances[number % 2].deployments.CreateDeployment(request, timeout=20)
        return answer.SerializeToString(deterministic=True)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(8)))) == 1


def test_a_key_is_for_one_request(lcm: Lcm) -> None:
    """Goal: a key used by mistake is found out. Method: the same key, another name, another method."""
    key = new_key()
    lcm.deployments.CreateDeployment(to_create(a_spec("one"), key), timeout=10)
    with pytest.raises(grpc.RpcError) as other:
        lcm.deployments.CreateDeployment(to_create(a_spec("two"), key), timeout=10)
    assert isinstance(from_rpc_error(other.value), Conflict)
    with pytest.raises(grpc.RpcError) as another:
        lcm.deployments.DeleteDeployment(
            pb.DeleteDeploymentRequest(name="one", idempotency_key=key), timeout=10
        )
    assert isinstance(from_rpc_error(another.value), Conflict)
    assert [each.spec.name for each in listed(lcm)] == ["one"]


def test_of_two_creations_of_one_name_at_once_one_is_refused(start_lcm: StartLcm) -> None:
    """Goal: a name is taken once, also at the same moment. Method: eight keys at two instances."""
    instances = [start_lcm(), start_lcm()]

    def create(number: int) -> TrellisError | None:
        try:
            instances[number % 2].deployments.CreateDeployment(to_create(a_spec()), timeout=20)
        except grpc.RpcError as refused:
            return from_rpc_error(refused)
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(8)))
    assert outcomes.count(None) == 1
    assert {type(each) for each in outcomes if each} == {Conflict}


def test_a_call_whose_instance_dies_between_commit_and_answer_counts_once(
    start_lcm: StartLcm, postgres: Postgres, processes: Processes
) -> None:
    """Goal: the repeat is answered as the dead instance would have. Method: kill it while COMMIT waits for
    a standby (the commit is durable on the primary), then ask for no standby, and repeat elsewhere."""
    doomed, other = start_lcm(), start_lcm()
    request = to_create(a_spec())
    postgres.demand_standbys("nobody")
    call = doomed.deployments.CreateDeployment.future(request, timeout=20)
    wait_for(postgres.waiting_commits, "the commit waits for its standby")
    processes.signal(doomed.pid, signal.SIGKILL)
    assert call.exception() is not None
    repeated = other.deployments.CreateDeployment.future(request, timeout=20)
    postgres.demand_standbys("")
    first = repeated.result()
    assert first == other.deployments.CreateDeployment(request, timeout=10)
    assert [each.uid for each in listed(other)] == [first.deployment.uid]


def test_a_cancelled_wait_for_standbys_is_mended_within_the_call(
    start_lcm: StartLcm, postgres: Postgres
) -> None:
    """Goal: the caller is answered only when standbys have it. Method: cancel the wait, then ask for none."""
    lcm, request = start_lcm(), to_create(a_spec())
    postgres.demand_standbys("nobody")
    call = lcm.deployments.CreateDeployment.future(request, timeout=20)
    (first,) = wait_for(postgres.waiting_commits, "the commit waits for its standby")
    postgres.ask("SELECT pg_cancel_backend(%s)", first)
    wait_for(
        lambda: postgres.ask("SELECT sum(repeats) FROM idempotency_keys", url=lcm.url) != [(None,)],
        "the first commit is visible",
    )
    wait_for(postgres.waiting_commits, "the repeat waits for its standby, too")
    assert not call.done()
    postgres.demand_standbys("")
    assert call.result().deployment.version == 1
    assert len(listed(lcm)) == 1


def test_the_database_may_restart_under_a_call(start_lcm: StartLcm, postgres: Postgres) -> None:
    """Goal: a caller notices an outage only by the time. Method: crash the database, call, start it."""
    lcm = start_lcm()
    lcm.deployments.CreateDeployment(to_create(a_spec("one")), timeout=10)
    postgres.kill()
    call = lcm.deployments.CreateDeployment.future(to_create(a_spec("two")), timeout=20)
    postgres.start()
    assert call.result().deployment.spec.name == "two"
    assert [each.spec.name for each in listed(lcm)] == ["one", "two"]


def listed(lcm: Lcm) -> list[pb.Deployment]:
    return list(lcm.deployments.ListDeployments(pb.ListDeploymentsRequest(), timeout=10).deployments)
