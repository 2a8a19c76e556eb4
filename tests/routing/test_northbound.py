"""Options of the northbound listener: TLS, traces, deadlines, streams, the leader's methods."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

from mesh.ids import HostId
from mesh.state.service import MethodPolicy
from tests.routing.harness import (
    COUNT,
    ECHO,
    Authority,
    Client,
    backend,
    client,
    echo_spec,
    free_port,
    ready,
    running,
    settings,
    until,
)

pytestmark = pytest.mark.integration


async def test_with_a_certificate_clients_speak_tls(tmp_path: Path) -> None:
    """Goal: once TLS is on, nothing plain is served. Method: one channel with the authority, one without."""
    authority = Authority(tmp_path / "ca")
    chosen = settings(tmp_path, northbound_tls=authority.issue("host1"))
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
    override = [("grpc.ssl_target_name_override", "host1")]
    async with backend("host1", 0) as a, running(chosen) as host:
        host.publish(a.status())
        await ready(host)
        async with grpc.aio.secure_channel(chosen.northbound_address, credentials, override) as channel:
            assert await Client(channel).echo() == a.name
        async with client(chosen.northbound_address) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await plain.echo()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the contract
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextlib.asynccontextmanager
async def collector(address: str) -> AsyncIterator[Collector]:
    server = grpc.aio.server()
    found = Collector()
    add = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(found, server)  # type: ignore[no-untyped-call]  # generated without types
    server.add_insecure_port(address)
    await server.start()
    try:
        yield found
    finally:
        await server.stop(None)


async def test_envoy_adds_its_span_to_the_callers_trace(tmp_path: Path) -> None:
    """W3C context in, a span with the same trace id and the caller's span as parent out."""
    chosen = settings(tmp_path, otlp_address=f"127.0.0.1:{free_port()}")
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with backend("host1", 0) as a, collector(chosen.otlp_address) as found, running(chosen) as host:
        host.publish(a.status())
        await ready(host)
        async with client(chosen.northbound_address) as caller:
            stub = echo_pb2_grpc.EchoServiceStub(caller.channel)
            metadata = [("traceparent", f"00-{trace}-{span}-01")]
            await stub.Echo(echo_pb2.EchoRequest(), metadata=metadata)
            await until(lambda: found.spans, within_s=20)
        assert {each.trace_id.hex() for each in found.spans} == {trace}
        assert span in {each.parent_span_id.hex() for each in found.spans}


async def test_a_stream_outlives_the_deadline_of_unary_methods(tmp_path: Path) -> None:
    """A method without a policy has the caller's deadline only; one with a deadline is cut at it."""
    quick = replace(echo_spec(), methods=(MethodPolicy(ECHO, timeout_ms=200),))
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.routing.publish(replace(host.view(a.status()), services=(quick,)))
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            with pytest.raises(grpc.aio.AioRpcError) as cut:
                await caller.echo(delay=Duration(seconds=2))
            assert cut.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            stub = echo_pb2_grpc.EchoServiceStub(caller.channel)
            request = echo_pb2.EchoStreamRequest(count=5, pause=Duration(nanos=100_000_000))
            answers = [each.sequence async for each in stub.EchoStream(request)]
            assert answers == [1, 2, 3, 4, 5]


async def test_a_method_for_the_leader_goes_to_the_leader_and_nowhere_else(tmp_path: Path) -> None:
    """Goal: no stale answer from another instance.

    Method: the leader here, then on a host without an instance.
    """
    policies = (MethodPolicy(ECHO), MethodPolicy(COUNT, leader_required=True))
    spec = replace(echo_spec(), methods=policies)
    async with backend("host1", 0) as a, backend("host2", 0) as b, running(settings(tmp_path)) as host:
        seen = replace(host.view(a.status(), b.status()), services=(spec,))
        host.routing.publish(replace(seen, leader=HostId("host1")))
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            assert {(await caller.count())[0] for _ in range(10)} == {a.name}
            host.routing.publish(replace(seen, revision=9, leader=HostId("host3")))

            async def refused() -> bool:
                try:
                    await caller.count()
                except grpc.aio.AioRpcError as error:
                    return error.code() is grpc.StatusCode.UNAVAILABLE
                return False

            await until(refused)
            assert await caller.echo() == a.name


async def test_a_method_for_certain_roles_is_denied_and_the_others_are_answered(tmp_path: Path) -> None:
    """Goal: who shows no role gets PERMISSION_DENIED. Method: one method with a role, one without."""
    policies = (MethodPolicy(ECHO), MethodPolicy(COUNT, roles=("operator",)))
    spec = replace(echo_spec(), methods=policies)
    async with backend("host1", 0) as a, running(settings(tmp_path)) as host:
        host.routing.publish(replace(host.view(a.status()), services=(spec,)))
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            assert await caller.echo() == a.name
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await caller.count()
            assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_call_that_is_not_idempotent_reaches_one_instance_once(tmp_path: Path) -> None:
    """The instance answers UNAVAILABLE: passed on as it is. Then nobody listens: the call moves on."""
    policies = (MethodPolicy(ECHO), MethodPolicy(COUNT))
    spec = replace(echo_spec(), methods=policies)
    async with backend("host1", 0) as a, backend("host1", 1) as b, running(settings(tmp_path)) as host:
        host.routing.publish(replace(host.view(a.status(), b.status()), services=(spec,)))
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            with pytest.raises(grpc.aio.AioRpcError) as passed_on:
                await caller.echo(code=14)
            assert "as asked" in str(passed_on.value.details())
            before = [await caller.count() for _ in range(20)]
            a.process.kill()
            await a.process.wait()
            after = await asyncio.gather(*(caller.count() for _ in range(20)))
            counted = [count for name, count in (*before, *after) if name == b.name]
            assert sorted(counted) == list(range(1, len(counted) + 1))
            assert {name for name, _ in after} == {b.name}
