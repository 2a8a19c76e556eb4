"""DeploymentService and OperationService.

A transaction that failed to begin, or whose outcome is unknown, is repeated here under the
request's key while the caller waits: its answer is then certain.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import tenacity
from google.protobuf.json_format import MessageToDict
from trellis.lcm.v1 import lcm_pb2 as pb
from trellis.lcm.v1 import lcm_pb2_grpc

from mesh.adapters.deadline import remaining_s
from mesh.client.idempotency import Request, content_of, problems_of_key
from mesh.errors import Draining, OutcomeUnknown, Problem, Unavailable
from mesh.wire.service import ms_of_duration
from services.lcm import codec, decide
from services.lcm.feed import Feed
from services.lcm.interceptor import present_caller
from services.lcm.model import PAGE_DEFAULT, Operation
from services.lcm.reading import Operations
from services.lcm.rules import Allowed, check_deployment, problems_of_page, problems_of_text, refuse
from services.lcm.store import Answer, Store

WAIT_MS_DEFAULT: Final = 30_000
WAIT_MS_MAX: Final = 60_000
T = TypeVar("T")


class DeploymentServicer(lcm_pb2_grpc.DeploymentServiceServicer):
    """Deployments."""

    def __init__(self, store: Store, feed: Feed, allowed: Allowed) -> None:
        self._store = store
        self._feed = feed
        self._allowed = allowed

    async def CreateDeployment(
        self, request: pb.CreateDeploymentRequest, context: Any
    ) -> pb.CreateDeploymentResponse:
        """See the contract."""
        spec, found = codec.decode_deployment_spec(request.spec)
        check_deployment(spec, self._allowed, (*found, *problems_of_key(request.idempotency_key)))
        asked = _asked("CreateDeployment", request)
        answer = await certainly(
            context,
            lambda: self._store.create(
                asked, spec.name, lambda row, count, now: decide.create(row, count, spec, now)
            ),
        )
        return pb.CreateDeploymentResponse(**_messages(answer))

    async def GetDeployment(self, request: pb.GetDeploymentRequest, context: Any) -> pb.GetDeploymentResponse:
        """See the contract."""
        refuse(problems_of_text("name", request.name))
        found = await certainly(context, lambda: self._store.deployment(request.name))
        return pb.GetDeploymentResponse(deployment=codec.encode_deployment(found))

    async def ListDeployments(
        self, request: pb.ListDeploymentsRequest, context: Any
    ) -> pb.ListDeploymentsResponse:
        """See the contract."""
        labels = (
            each
            for label in request.labels.items()
            for each in problems_of_text(f"labels.{label[0]}", *label)
        )
        refuse((*problems_of_page(request.page_size), *labels))
        size = request.page_size or PAGE_DEFAULT
        page, token, revision = await certainly(
            context, lambda: self._store.deployments(size, request.page_token, request.labels)
        )
        return pb.ListDeploymentsResponse(
            deployments=[codec.encode_deployment(each) for each in page],
            next_page_token=token,
            revision=revision,
        )

    async def UpdateDeployment(
        self, request: pb.UpdateDeploymentRequest, context: Any
    ) -> pb.UpdateDeploymentResponse:
        """See the contract."""
        spec, found = codec.decode_deployment_spec(request.spec)
        check_deployment(spec, self._allowed, (*found, *problems_of_key(request.idempotency_key)))
        expected = request.expected_version if request.HasField("expected_version") else None
        asked = _asked("UpdateDeployment", request)
        answer = await certainly(
            context,
            lambda: self._store.change(
                asked, spec.name, lambda row, op, now: decide.update(row, op, spec, expected, now)
            ),
        )
        return pb.UpdateDeploymentResponse(**_messages(answer))

    async def DeleteDeployment(
        self, request: pb.DeleteDeploymentRequest, context: Any
    ) -> pb.DeleteDeploymentResponse:
        """See the contract."""
        refuse((*problems_of_text("name", request.name), *problems_of_key(request.idempotency_key)))
        expected = request.expected_version if request.HasField("expected_version") else None
        asked = _asked("DeleteDeployment", request)
        answer = await certainly(
            context,
            lambda: self._store.change(
                asked, request.name, lambda row, op, now: decide.delete(row, op, request.name, expected, now)
            ),
        )
        return pb.DeleteDeploymentResponse(**_messages(answer))

    async def WatchDeployments(
        self, request: pb.WatchDeploymentsRequest, context: Any
    ) -> AsyncIterator[pb.WatchDeploymentsResponse]:
        """See the contract."""
        refuse(problems_of_text("name", request.name))
        with self._feed.watching():
            async for each in self._changes(request):
                yield each

    async def _changes(
        self, request: pb.WatchDeploymentsRequest
    ) -> AsyncIterator[pb.WatchDeploymentsResponse]:
        revision = request.after_revision
        if not revision:
            present, revision = await self._store.present(request.name)
            last: pb.WatchDeploymentsResponse | None = None
            async for deployment in present:
                if last is not None:
                    yield last
                last = pb.WatchDeploymentsResponse(deployment=codec.encode_deployment(deployment))
            if last is not None:
                last.revision = revision
                yield last
        while True:
            wake = self._feed.next_wake()
            found, newest = await self._store.changes(revision, request.name)
            for seen in found:
                yield pb.WatchDeploymentsResponse(
                    deployment=codec.encode_deployment(seen.deployment),
                    deleted=seen.deleted,
                    revision=seen.revision,
                )
            if newest == revision:
                await wake.wait()
            revision = newest


class OperationServicer(lcm_pb2_grpc.OperationServiceServicer):
    """Operations."""

    def __init__(self, store: Store, feed: Feed, reading: Operations) -> None:
        self._store = store
        self._feed = feed
        self._reading = reading

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.GetOperationResponse:
        """See the contract."""
        found = await certainly(context, lambda: self._store.operation(request.id))
        return pb.GetOperationResponse(operation=codec.encode_operation(found))

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Any
    ) -> pb.ListOperationsResponse:
        """See the contract."""
        refuse((*problems_of_page(request.page_size), *problems_of_text("deployment", request.deployment)))
        size = request.page_size or PAGE_DEFAULT
        page, token = await certainly(
            context, lambda: self._store.operations(request.deployment, size, request.page_token)
        )
        return pb.ListOperationsResponse(
            operations=[codec.encode_operation(each) for each in page], next_page_token=token
        )

    async def WaitOperation(self, request: pb.WaitOperationRequest, context: Any) -> pb.WaitOperationResponse:
        """See the contract."""
        wanted_ms = ms_of_duration(request.timeout) if request.HasField("timeout") else WAIT_MS_DEFAULT
        if not 0 <= wanted_ms <= WAIT_MS_MAX:
            refuse((Problem("timeout", f"{wanted_ms} ms is not from 0 to {WAIT_MS_MAX} ms", "30s"),))
        with self._feed.watching():
            found = await certainly(context, lambda: self._store.operation(request.id))
            try:
                async with asyncio.timeout(min(wanted_ms / 1000, remaining_s(context, WAIT_MS_MAX / 1000))):
                    async for newer in self._states(request.id, found.revision):
                        found = newer
            except (TimeoutError, Draining):
                pass  # what was seen last is the answer
        return pb.WaitOperationResponse(operation=codec.encode_operation(found))

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, context: Any
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """See the contract."""
        with self._feed.watching():
            async for found in self._states(request.id, request.after_revision):
                yield pb.WatchOperationResponse(operation=codec.encode_operation(found))

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: Any
    ) -> pb.CancelOperationResponse:
        """See the contract."""
        refuse(tuple(problems_of_key(request.idempotency_key)))
        asked = _asked("CancelOperation", request)
        answer = await certainly(
            context,
            lambda: self._store.change_of(
                asked, request.id, lambda row, op, now: decide.cancel(row, op, request.id, now)
            ),
        )
        return pb.CancelOperationResponse(operation=codec.encode_operation(answer.operation))

    async def _states(self, operation_id: str, after: int) -> AsyncIterator[Operation]:
        """The operation each time that it is newer, until it is done."""
        while True:
            wake = self._feed.next_wake()
            found = await self._reading.read(operation_id)
            if found.revision > after:
                after = found.revision
                yield found
            if found.state.is_done:
                return
            await wake.wait()


async def certainly(context: Any, attempt: Callable[[], Awaitable[T]]) -> T:
    """The outcome of something that may be repeated, which is repeated while it is not certain.

    Bound: the caller's time. Fails: as the last attempt did.
    """
    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_delay(0.8 * remaining_s(context, default=10.0)),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.5),
        retry=tenacity.retry_if_exception_type((Unavailable, OutcomeUnknown)),
        reraise=True,
    )
    try:
        async with asyncio.timeout(remaining_s(context, default=10.0)):
            async for each in retrying:
                with each:
                    return await attempt()
    except TimeoutError as error:
        raise OutcomeUnknown("The database did not answer in time. Repeat under the same key.") from error
    raise AssertionError("tenacity ends by returning or by raising")


def _asked(method: str, request: Any) -> Request:
    """The request with its key set apart."""
    content = MessageToDict(request)
    key = content.pop("idempotencyKey", "")
    return Request(present_caller().name, key, method, content_of(content))


def _messages(answer: Answer) -> dict[str, Any]:
    deployment = codec.encode_deployment(answer.deployment) if answer.deployment else None
    return {"deployment": deployment, "operation": codec.encode_operation(answer.operation)}
