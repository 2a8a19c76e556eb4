"""Pages and watches while others write."""

import threading
from collections.abc import Iterator

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb

from mesh.errors import InvalidRequest, OutOfRange
from mesh.wire.errors import from_rpc_error
from tests.harness.lcm import Lcm, a_spec, new_key, to_create
from tests.harness.postgres import Postgres
from tests.harness.waiting import wait_for
from tests.services.conftest import StartLcm

pytestmark = pytest.mark.integration


def create(lcm: Lcm, name: str, **labels: str) -> pb.CreateDeploymentResponse:
    return lcm.deployments.CreateDeployment(to_create(a_spec(name, **labels)), timeout=10)


def cancel(lcm: Lcm, made: pb.CreateDeploymentResponse) -> None:
    request = pb.CancelOperationRequest(id=made.operation.id, idempotency_key=new_key())
    lcm.operations.CancelOperation(request, timeout=10)


def pages(lcm: Lcm, size: int, **labels: str) -> Iterator[list[str]]:
    request = pb.ListDeploymentsRequest(page_size=size, labels=labels)
    while True:
        answer = lcm.deployments.ListDeployments(request, timeout=10)
        yield [each.spec.name for each in answer.deployments]
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def test_pages_leave_out_nothing_and_repeat_nothing_while_others_write(lcm: Lcm) -> None:
    """Goal: a list read in pages is whole. Method: between pages, create and remove on both sides."""
    made = {name: create(lcm, name) for name in ("b", "d", "f", "h", "j", "l")}
    seen: list[str] = []
    for number, page in enumerate(pages(lcm, 2)):
        seen += page
        if number == 0:
            create(lcm, "a")  # before the place: not seen
            create(lcm, "e")  # after it: seen
            cancel(lcm, made["d"])  # the last of the page, gone
            cancel(lcm, made["h"])  # gone before it is seen
    assert seen == ["b", "d", "e", "f", "j", "l"]


def test_a_selection_by_labels_holds_for_all_pages(lcm: Lcm) -> None:
    """Goal: pages of one selection are not mixed with another's. Method: labels, and a token under others."""
    for number in range(6):
        create(lcm, f"n{number}", tier="web" if number % 2 else "db", zone="x")
    assert list(pages(lcm, 2, tier="web", zone="x")) == [["n1", "n3"], ["n5"]]
    first = lcm.deployments.ListDeployments(
        pb.ListDeploymentsRequest(page_size=2, labels={"tier": "web"}), timeout=10
    )
    for request in (
        pb.ListDeploymentsRequest(page_token=first.next_page_token),
        pb.ListDeploymentsRequest(page_token="nonsense"),
        pb.ListDeploymentsRequest(page_size=1001),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            lcm.deployments.ListDeployments(request, timeout=10)
        assert isinstance(from_rpc_error(refused.value), InvalidRequest)


def test_operations_come_newest_first_in_pages(lcm: Lcm) -> None:
    """Goal: what was done last is seen first. Method: three pages."""
    made = [create(lcm, f"n{number}").operation.id for number in range(5)]
    request, found = pb.ListOperationsRequest(page_size=2), []
    while True:
        answer = lcm.operations.ListOperations(request, timeout=10)
        found += [each.id for each in answer.operations]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert found == made[::-1]


def test_a_watch_that_is_resumed_again_and_again_misses_nothing(start_lcm: StartLcm) -> None:
    """Goal: every change is seen once, in order. Method: writers at two instances; a watch
    that is broken after every third change and resumed at the other instance."""
    instances = [start_lcm(), start_lcm()]
    count, writers = 30, 3
    begin = create(instances[0], "begin").deployment.revision

    def write(number: int) -> None:
        for each in range(count):
            create(instances[number % 2], f"w{number}-{each}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    revision, turn, seen = begin, 0, list[str]()
    while len(seen) < count * writers:
        turn += 1
        request = pb.WatchDeploymentsRequest(after_revision=revision)
        stream = instances[turn % 2].deployments.WatchDeployments(request, timeout=20)
        for _ in range(min(3, count * writers - len(seen))):
            change = next(stream)
            assert change.revision > revision
            revision = change.revision
            seen.append(change.deployment.spec.name)
        stream.cancel()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(f"w{number}-{each}" for number in range(writers) for each in range(count))


def test_a_watch_begins_with_what_is_there_and_sees_ends(lcm: Lcm) -> None:
    """Goal: one stream is enough to follow everything. Method: present ones, then a creation, then an end."""
    made = create(lcm, "one")
    create(lcm, "two")
    stream = lcm.deployments.WatchDeployments(pb.WatchDeploymentsRequest(), timeout=20)
    first, second = next(stream), next(stream)
    assert [(each.deployment.spec.name, each.deleted) for each in (first, second)] == [
        ("one", False),
        ("two", False),
    ]
    assert (first.revision, second.revision > 0) == (0, True)
    create(lcm, "three")
    cancel(lcm, made)
    assert next(stream).deployment.spec.name == "three"
    gone = next(stream)
    assert (gone.deployment.spec.name, gone.deleted) == ("one", True)
    stream.cancel()
    only = lcm.deployments.WatchDeployments(
        pb.WatchDeploymentsRequest(name="three", after_revision=second.revision), timeout=20
    )
    assert next(only).deployment.spec.name == "three"
    only.cancel()


def test_a_watch_goes_on_over_a_restart_of_the_database(lcm: Lcm, postgres: Postgres) -> None:
    """Goal: an outage costs time and no change. Method: crash and start the database under an open watch."""
    begin = create(lcm, "one").deployment.revision
    revision, seen, broken = begin, list[str](), list[grpc.StatusCode]()
    stream = lcm.deployments.WatchDeployments(pb.WatchDeploymentsRequest(after_revision=begin), timeout=30)
    postgres.kill()
    postgres.start()
    create(lcm, "two")
    create(lcm, "three")
    while len(seen) < 2:
        try:
            change = next(stream)
        except grpc.RpcError as error:
            broken.append(error.code())  # resume, as clients do
            request = pb.WatchDeploymentsRequest(after_revision=revision)
            stream = lcm.deployments.WatchDeployments(request, timeout=30)
            continue
        revision = change.revision
        seen.append(change.deployment.spec.name)
    stream.cancel()
    assert seen == ["two", "three"]
    assert set(broken) <= {grpc.StatusCode.UNAVAILABLE}


def test_a_revision_that_is_not_kept_is_refused(lcm: Lcm, postgres: Postgres) -> None:
    """Goal: nobody believes to have seen everything. Method: changes forgotten; a revision never reached."""
    create(lcm, "one")
    create(lcm, "two")
    postgres.ask("UPDATE revisions SET forgotten = 1", url=lcm.url)
    postgres.ask("DELETE FROM changes WHERE revision <= 1", url=lcm.url)
    ahead = pb.WatchDeploymentsRequest(after_revision=1000)
    with pytest.raises(grpc.RpcError) as refused:
        next(lcm.deployments.WatchDeployments(ahead, timeout=10))
    assert isinstance(from_rpc_error(refused.value), OutOfRange)
    create(lcm, "three")
    postgres.ask("UPDATE revisions SET forgotten = 2", url=lcm.url)
    behind = pb.WatchDeploymentsRequest(after_revision=1)
    with pytest.raises(grpc.RpcError) as refused:
        next(lcm.deployments.WatchDeployments(behind, timeout=10))
    assert isinstance(from_rpc_error(refused.value), OutOfRange)


def test_waiting_for_an_operation_ends_when_it_is_done(start_lcm: StartLcm) -> None:
    """Goal: callers need not poll. Method: wait and watch at one instance, end it at the other."""
    one, other = start_lcm(), start_lcm()
    made = create(one, "shop")
    short = pb.WaitOperationRequest(id=made.operation.id)
    short.timeout.FromMilliseconds(100)
    assert one.operations.WaitOperation(short, timeout=10).operation.state == pb.OPERATION_STATE_PENDING
    waiting = one.operations.WaitOperation.future(pb.WaitOperationRequest(id=made.operation.id), timeout=20)
    watched = one.operations.WatchOperation(pb.WatchOperationRequest(id=made.operation.id), timeout=20)
    assert next(watched).operation.state == pb.OPERATION_STATE_PENDING
    cancel(other, made)
    assert waiting.result().operation.state == pb.OPERATION_STATE_CANCELLED
    assert [each.operation.state for each in watched] == [pb.OPERATION_STATE_CANCELLED]
    wait_for(lambda: next(pages(one, 10)) == [], "the deployment is gone")
