"""Many who wait for operations: bounded, cheap, and let go when the instance ends."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb

from mesh.client.database import Bounds, Database
from mesh.client.idempotency import Request
from mesh.client.migrations import migrate
from mesh.errors import NotFound, QueueFull, Unavailable
from mesh.ids import ServiceName
from mesh.state.service import ServiceSpec
from mesh.wire.errors import from_rpc_error
from services.lcm import decide
from services.lcm.feed import WATCHES_MAX
from services.lcm.model import DeploymentSpec, Operation
from services.lcm.reading import Operations
from services.lcm.store import MIGRATIONS, Store
from tests.harness.lcm import Lcm, a_spec, new_key, to_create
from tests.harness.processes import Processes
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


class Counted(Store):
    """A store that knows how often it was asked for operations."""

    reads = 0

    async def operations_of(self, ids: Sequence[str]) -> dict[str, Operation]:
        self.reads += 1
        return await super().operations_of(ids)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Counted]:
    """With the schema."""
    async with Database(url, Bounds(connections=2)) as database:
        await migrate(database, MIGRATIONS)
        yield Counted(database)


async def requested(store: Store, name: str) -> Operation:
    spec = DeploymentSpec(name, (ServiceSpec(ServiceName("api"), ("/usr/bin/run",)),))
    request = Request("", new_key(), "M", b"")
    answer = await store.create(request, name, lambda row, count, now: decide.create(row, count, spec, now))
    return answer.operation


async def test_all_who_ask_at_once_share_a_read(store: Counted) -> None:
    """Goal: a change costs one read, however many wait. Method: a hundred ask at once, twice, also for
    what is not there; each gets its own."""
    made = [await requested(store, f"n{number}") for number in range(4)]
    async with asyncio.TaskGroup() as group:
        operations = Operations(store)
        reading = group.create_task(operations.run(), name="read")
        for _ in range(2):
            before = store.reads
            found = await asyncio.gather(*(operations.read(made[number % 4].id) for number in range(100)))
            assert [each.id for each in found] == [made[number % 4].id for number in range(100)]
            assert store.reads - before <= 2
        for nobody in ("nonsense", new_key()):
            with pytest.raises(NotFound):
                await operations.read(nobody)
        reading.cancel()


async def test_a_failure_is_told_to_all_who_asked_and_is_not_the_end(url: str) -> None:
    """Goal: an outage ends calls, not the instance. Method: a database that is not there; one gives up
    before."""
    nowhere = "postgresql://postgres@127.0.0.1:1/none"
    async with Database(nowhere, Bounds(connect_s=0.3)) as database, asyncio.TaskGroup() as group:
        operations = Operations(Store(database))
        reading = group.create_task(operations.run(), name="read")
        for _ in range(2):
            hasty = asyncio.ensure_future(operations.read(new_key()))
            others = [asyncio.ensure_future(operations.read(new_key())) for _ in range(3)]
            await asyncio.sleep(0)
            hasty.cancel()
            ended = await asyncio.gather(hasty, *others, return_exceptions=True)
            assert [type(each) for each in ended] == [asyncio.CancelledError, *[Unavailable] * 3]
        reading.cancel()


def test_waiting_counts_as_watching(lcm: Lcm) -> None:
    """Goal: an instance bounds who waits. Method: as many as may wait, one more, and one more when one has
    left."""
    made = lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    request = pb.WaitOperationRequest(id=made.operation.id)
    waiting = [lcm.operations.WaitOperation.future(request, timeout=60) for _ in range(WATCHES_MAX)]
    short = pb.WaitOperationRequest(id=made.operation.id)
    short.timeout.FromMilliseconds(1)

    def is_full() -> bool:
        try:
            lcm.operations.WaitOperation(short, timeout=10)
        except grpc.RpcError as refused:
            return isinstance(from_rpc_error(refused), QueueFull)
        return False

    wait_for(is_full, "one more is refused")
    waiting.pop().cancel()
    wait_for(lambda: not is_full(), "there is room again")
    cancel = pb.CancelOperationRequest(id=made.operation.id, idempotency_key=new_key())
    lcm.operations.CancelOperation(cancel, timeout=10)
    assert {each.result().operation.state for each in waiting} == {pb.OPERATION_STATE_CANCELLED}


def test_whoever_waits_is_answered_when_the_instance_ends(lcm: Lcm, processes: Processes) -> None:
    """Goal: a drain is no failure for who waits. Method: SIGTERM while a call waits."""
    made = lcm.deployments.CreateDeployment(to_create(a_spec()), timeout=10)
    watched = lcm.operations.WatchOperation(pb.WatchOperationRequest(id=made.operation.id), timeout=20)
    assert next(watched).operation.state == pb.OPERATION_STATE_PENDING
    waiting = lcm.operations.WaitOperation.future(pb.WaitOperationRequest(id=made.operation.id), timeout=50)
    with pytest.raises(grpc.FutureTimeoutError):
        waiting.result(timeout=0.5)
    processes.signal(lcm.pid, signal.SIGTERM)
    assert waiting.result(timeout=10).operation.state == pb.OPERATION_STATE_PENDING
    assert processes.wait_exit(lcm.pid, 20.0) == 0
