"""A small real gRPC service to route to: `python backend.py ADDRESS INSTANCE`."""

import asyncio
import os
import sys
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc


class Echo(echo_pb2_grpc.EchoServiceServicer):
    """Answers with the name it was given; waits and fails on request."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._count = 0

    async def Echo(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the contract
        fault = request.fault
        delay_s = fault.delay.ToTimedelta().total_seconds()
        if delay_s:
            await asyncio.sleep(delay_s)
        if fault.code:
            await context.abort(_STATUS[fault.code], "as asked")
        return echo_pb2.EchoResponse(message=request.message, instance=self._instance, pid=os.getpid())

    async def Count(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the contract
        self._count += 1
        return echo_pb2.CountResponse(count=self._count, instance=self._instance)

    async def EchoStream(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the contract
        for sequence in range(1, request.count + 1):
            yield echo_pb2.EchoStreamResponse(
                message=request.message, sequence=sequence, instance=self._instance
            )
            await asyncio.sleep(request.pause.ToTimedelta().total_seconds())


_STATUS = {code.value[0]: code for code in grpc.StatusCode}


async def serve(address: str, instance: str) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    echo_pb2_grpc.add_EchoServiceServicer_to_server(Echo(instance), server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
