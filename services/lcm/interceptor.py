"""Asks every caller who it is before a servicer sees the call."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import grpc

from services.lcm.access import Caller, Callers, check_allowed

_present: ContextVar[Caller] = ContextVar("lcm-caller")
_HEALTH: Final = "/grpc.health."


def present_caller() -> Caller:
    """Who makes the call that is being handled here."""
    return _present.get()


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through in its caller's name, or refuses it with `Denied`.

    Order: stands inside the interceptor that turns errors into statuses.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler. The check runs inside it, where its refusal becomes a status."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_HEALTH):
            return handler
        details = handler_call_details

        async def answer(request: Any, context: Any) -> Any:
            self._admit(details)
            return await handler.unary_unary(request, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            self._admit(details)
            async for each in handler.unary_stream(request, context):
                yield each

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                answer, handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_stream_rpc_method_handler(
            stream, handler.request_deserializer, handler.response_serializer
        )

    def _admit(self, details: grpc.HandlerCallDetails) -> None:
        caller = self._callers.identify(details.invocation_metadata or ())
        check_allowed(details.method, caller)
        _present.set(caller)
