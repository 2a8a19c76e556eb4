"""Answers echo calls with the identity of this instance, and shows faults on request."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

DELAY_S_MAX: Final = 60.0
MESSAGE_CHARS_MAX: Final = 1 << 20
STREAM_COUNT_MAX: Final = 10_000


class EchoServicer(echo_pb2_grpc.EchoServiceServicer):
    """One instance's answers. `environment` is what the supervisor gave it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._instance = environment.get("TRELLIS_INSTANCE", "echo@local#0")
        self._host = environment.get("TRELLIS_HOST", "local")
        self._generation = int(environment.get("TRELLIS_GENERATION", "1"))
        self._count = 0

    async def Echo(
        self,
        request: echo_pb2.EchoRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> echo_pb2.EchoResponse:
        await _check(context, len(request.message) <= MESSAGE_CHARS_MAX, "message is longer than 1 MiB")
        if request.HasField("fault"):
            await _show(request.fault, context)
        return echo_pb2.EchoResponse(
            message=request.message,
            instance=self._instance,
            host=self._host,
            generation=self._generation,
            pid=os.getpid(),
        )

    async def Count(
        self,
        request: echo_pb2.CountRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> echo_pb2.CountResponse:
        self._count += 1
        return echo_pb2.CountResponse(count=self._count, instance=self._instance)

    async def EchoStream(
        self,
        request: echo_pb2.EchoStreamRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[echo_pb2.EchoStreamResponse]:
        await _check(context, request.count <= STREAM_COUNT_MAX, "count is more than 10,000")
        await _check(context, len(request.message) <= MESSAGE_CHARS_MAX, "message is longer than 1 MiB")
        pause_s = _seconds(request.pause)
        for sequence in range(1, request.count + 1):
            if sequence > 1 and pause_s:
                await asyncio.sleep(pause_s)
            yield echo_pb2.EchoStreamResponse(
                message=request.message, sequence=sequence, instance=self._instance
            )


async def _show(fault: echo_pb2.Fault, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    await asyncio.sleep(_seconds(fault.delay))
    if fault.crash:
        os._exit(70)  # as a bug would: no drain, no answer
    if fault.code:
        known = {code.value[0]: code for code in grpc.StatusCode}
        code = known.get(fault.code, grpc.StatusCode.UNKNOWN)
        await context.abort(code, f"fault asked for: {code.name}")


async def _check(context: "grpc.aio.ServicerContext[Any, Any]", holds: bool, problem: str) -> None:
    if not holds:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)


def _seconds(duration: Duration) -> float:
    return min(max(duration.seconds + duration.nanos / 1e9, 0.0), DELAY_S_MAX)
