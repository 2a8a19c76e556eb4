"""The one place where errors of Trellis become gRPC statuses."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import grpc
import structlog

from mesh.errors import InvariantBroken, TrellisError
from mesh.wire.errors import to_status

LOG = structlog.get_logger(__name__)

Handler = Any


class ErrorsInterceptor(grpc.aio.ServerInterceptor):
    """Ends a call with the status of the TrellisError its servicer raised.

    `on_bug` gets an InvariantBroken: the process must not go on.
    """

    def __init__(self, on_bug: Callable[[InvariantBroken], None]) -> None:
        self._on_bug = on_bug

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler so that its errors are translated."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._answering(handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return handler

    def _answering(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            try:
                return await behaviour(request, context)
            except TrellisError as error:
                await context.abort_with_status(to_status(error))
            except InvariantBroken as error:
                self._on_bug(error)
                raise

        return answer

    def _streaming(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def stream(request: Any, context: Any) -> Any:
            try:
                produced = behaviour(request, context)
                if isawaitable(produced):  # writes through the context instead of yielding
                    await produced
                    return
                async for response in produced:
                    yield response
            except TrellisError as error:
                await context.abort_with_status(to_status(error))
            except InvariantBroken as error:
                self._on_bug(error)
                raise

        return stream
