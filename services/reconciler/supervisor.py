"""The mesh's services, through a socket of the sidecar of this host.

Declaring and stopping is for operators: the socket is `admin.sock`, beside the one for services, and its
permissions (0600, the sidecar's user) decide. A reconciler that runs as another user is refused.

Invariant: every change carries the owner's fencing term; the cluster's log refuses it once another owner
is assigned."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
from trellis.heartbeat.v1 import heartbeat_pb2
from trellis.supervisor.v1 import supervisor_pb2 as pb
from trellis.supervisor.v1 import supervisor_pb2_grpc

from mesh import limits
from mesh.errors import NotFound, OutcomeUnknown
from mesh.state.model import Fence
from mesh.wire.errors import from_rpc_error
from mesh.wire.fencing import fencing_metadata
from mesh.wire.service import decode_spec, encode_spec
from services.reconciler.model import Action, Apply, Declared

ANSWER_S: Final = 5.0
_OPTIONS: Final = [
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class Supervisor:
    """A connection to the sidecar; an asynchronous context.

    Fails: every method with what the sidecar answered; without an answer `Unavailable` or `OutcomeUnknown`.
    """

    def __init__(self, target: str, fence: Fence | None = None) -> None:
        """*fence*: the owner that changes are made for."""
        self._metadata = fencing_metadata(fence)
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub: Any = supervisor_pb2_grpc.SupervisorServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def services(self) -> dict[str, Declared]:
        """All that are declared, by name; what another host declared before this call is among them."""
        answer = await self._ask(self._stub.ListServices, pb.ListServicesRequest())
        return {service.spec.name: _declared(service) for service in answer.services}

    async def perform(self, action: Action) -> None:
        """Declare or stop a service. What is stopped already counts as stopped."""
        if isinstance(action, Apply):
            request = pb.ApplyServiceRequest(
                spec=encode_spec(action.spec), expected_version=action.expected_version
            )
            await self._ask(self._stub.ApplyService, request)
            return
        try:
            stop = pb.StopServiceRequest(name=action.service, expected_version=action.expected_version)
            await self._ask(self._stub.StopService, stop)
        except NotFound:
            return

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_S + 1):
                return await method(request, timeout=ANSWER_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure
        except TimeoutError as error:
            raise OutcomeUnknown("The sidecar did not answer.") from error


def target_of(environment: Mapping[str, str]) -> str:
    """gRPC's name of the socket: `RECONCILER_SOCKET`, else the operators' socket beside `TRELLIS_SOCKET`."""
    given = environment.get("RECONCILER_SOCKET") or str(
        Path(environment.get("TRELLIS_SOCKET", "/run/trellis/service.sock")).with_name("admin.sock")
    )
    return given if ":" in given else f"unix:{given}"


def _declared(service: pb.Service) -> Declared:
    ready = sum(
        each.ready
        and each.spec_version >= service.version
        and each.state == heartbeat_pb2.INSTANCE_STATE_RUNNING
        for each in service.instances
    )
    return Declared(
        spec=decode_spec(service.spec),
        version=service.version,
        stopped=service.stopped,
        ready=ready,
        degraded_reason=service.degraded_reason,
    )
