"""The service configuration that clients are given, and that gRPC accepts it."""

import asyncio
import socket
from typing import Any

import grpc
from trellis.echo.v1 import echo_pb2

from mesh.client import channel
from mesh.state.service import MethodPolicy
from mesh.wire.policy import policies_of

ECHO = "/trellis.echo.v1.EchoService/Echo"
COUNT = "/trellis.echo.v1.EchoService/Count"


def test_only_idempotent_methods_have_a_retry_policy() -> None:
    """Goal: a client repeats nothing that may have been done. Method: the policies of the echo contract."""
    config = channel.service_config(policies_of(echo_pb2))
    retried = [name for each in config["methodConfig"] if "retryPolicy" in each for name in each["name"]]
    assert retried == [{"service": "trellis.echo.v1.EchoService", "method": "Echo"}]


def test_without_policies_nothing_is_retried_and_calls_wait_for_a_connection() -> None:
    """Goal: the plain file is safe for any service. Method: read it."""
    assert channel.service_config()["methodConfig"] == [{"name": [{}], "waitForReady": True}]


class Flaky(grpc.GenericRpcHandler):
    """Answers UNAVAILABLE to the first calls of each method, and counts them all."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.calls: dict[str, int] = {}

    def service(self, details: Any) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            self.calls[details.method] = self.calls.get(details.method, 0) + 1
            if self.calls[details.method] <= self._failures:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "as asked")
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


async def serve(handler: Flaky, port: int = 0) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound


async def call(opened: grpc.aio.Channel, path: str) -> grpc.StatusCode:
    try:
        await opened.unary_unary(path, bytes, bytes)(b"x", timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_an_idempotent_call_is_repeated_and_another_is_not() -> None:
    """Against a real server that fails the first two calls of each method."""
    flaky = Flaky(failures=2)
    server, port = await serve(flaky)
    async with channel.northbound_channel(f"127.0.0.1:{port}", policies_of(echo_pb2)) as opened:
        assert await call(opened, ECHO) is grpc.StatusCode.OK
        assert await call(opened, COUNT) is grpc.StatusCode.UNAVAILABLE
    assert flaky.calls == {ECHO: 3, COUNT: 1}
    await server.stop(None)


async def test_a_call_waits_while_nobody_listens() -> None:
    """Every method, idempotent or not: the call has not left the client yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flaky = Flaky(failures=0)
    policies = (MethodPolicy(COUNT),)
    async with channel.northbound_channel(f"127.0.0.1:{port}", policies) as opened:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(call(opened, COUNT), name="call")
            assert not (await asyncio.wait([waiting], timeout=0.1))[0]
            server, _ = await serve(flaky, port)
        assert waiting.result() is grpc.StatusCode.OK
    await server.stop(None)


async def test_the_channel_with_threads_takes_the_same_options() -> None:
    """Goal: a program without asyncio rides over a failover too.

    Method: the same flaky server, called from a thread.
    """
    flaky = Flaky(failures=2)
    server, port = await serve(flaky)
    with channel.northbound_channel_sync(f"127.0.0.1:{port}", policies_of(echo_pb2)) as opened:
        echo: Any = opened.unary_unary(ECHO)
        assert await asyncio.to_thread(echo, b"x", timeout=5) == b"x"
    assert flaky.calls == {ECHO: 3}
    await server.stop(None)
