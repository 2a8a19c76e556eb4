"""Creates deployments through the virtual IP all the time, and checks at the end that none is lost."""

import asyncio
import itertools
import time
import uuid
from typing import Final

import grpc
from trellis.lcm.v1 import lcm_pb2, lcm_pb2_grpc
from trellis.supervisor.v1 import supervisor_pb2

from mesh.client.channel import northbound_channel
from mesh.errors import Unavailable
from mesh.wire.policy import policies_of
from sidecar.demo.board import Board
from sidecar.demo.lookout import wait_until

PAUSE_S: Final = 0.2
ATTEMPT_S: Final = 2.0
#: Before the same request, under the same key, is sent again.
AGAIN_S: Final = 0.02
PAGE: Final = 100
READ_S: Final = 20.0
#: What the deployments are called: this and a number.
NAMED: Final = "demo"
#: Everything else is a refusal for good.
_AGAIN: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class Deployer:
    """One client of the lifecycle manager, whose data are in the database."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.acknowledged: list[str] = []
        #: When each was acknowledged.
        self.acknowledged_ns: list[int] = []

    async def deploy_steadily(self) -> None:
        """One deployment after the other until cancelled."""
        async with self._channel() as channel:
            stub = lcm_pb2_grpc.DeploymentServiceStub(channel)
            for number in itertools.count(1):
                name = f"{NAMED}-{number}"
                await self._create(stub, name)
                self.acknowledged.append(name)
                self.acknowledged_ns.append(time.monotonic_ns())
                self.board.deployed = len(self.acknowledged)
                await asyncio.sleep(PAUSE_S)

    def _channel(self) -> grpc.aio.Channel:
        return northbound_channel(self.board.virtual_address, policies_of(lcm_pb2))

    async def _create(self, stub: "lcm_pb2_grpc.DeploymentServiceAsyncStub", name: str) -> None:
        workload = lcm_pb2.Workload(
            name="work",
            command=["/bin/sleep", "1000"],
            mode=supervisor_pb2.SERVICE_MODE_ACTIVE_ACTIVE,
            instances_min=1,
        )
        spec = lcm_pb2.DeploymentSpec(name=name, workloads=[workload])
        request = lcm_pb2.CreateDeploymentRequest(spec=spec, idempotency_key=str(uuid.uuid4()))
        while True:
            try:
                await stub.CreateDeployment(request, timeout=ATTEMPT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise Unavailable(f"A deployment was refused for good: {error.details()}") from error
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def count_lost(self) -> int:
        """Acknowledged deployments that the lifecycle manager does not list any more."""
        found: set[str] = set()
        async with self._channel() as channel, asyncio.timeout(READ_S):
            stub = lcm_pb2_grpc.DeploymentServiceStub(channel)
            token = ""
            while True:
                request = lcm_pb2.ListDeploymentsRequest(page_size=PAGE, page_token=token)
                answer = await stub.ListDeployments(request, timeout=READ_S)
                found |= {each.spec.name for each in answer.deployments}
                token = answer.next_page_token
                if not token:
                    return sum(name not in found for name in self.acknowledged)

    def longest_wait_ns(self, from_ns: int) -> int:
        """The longest time without an acknowledgement that ended after *from_ns*."""
        pairs = itertools.pairwise(self.acknowledged_ns)
        gaps = [later - earlier for earlier, later in pairs if later > from_ns]
        return max(gaps, default=0)

    async def wait_next(self, deadline_s: float) -> bool:
        """Whether one more is acknowledged in time."""
        before = len(self.acknowledged)
        return await wait_until(lambda: len(self.acknowledged) > before, deadline_s)
