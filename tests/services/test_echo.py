"""The echo service as a real process under a real supervisor."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

from mesh.state.service import InstanceState, Probe, ProbeKind, Probes
from tests.supervisor.conftest import Site, assigned, settings_in, supervised

ROOT = Path(__file__).resolve().parents[2]
PYTHONPATH = ("PYTHONPATH", f"{ROOT}:{ROOT / 'protos'}")
HEALTH = Probe(ProbeKind.GRPC, target="trellis.echo.v1.EchoService", fall=1)


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Site]:
    async with supervised(settings_in(tmp_path)) as site:
        site.supervisor.assign(
            [
                assigned(
                    "echo",
                    (sys.executable, "-m", "services.echo.main"),
                    environment=(PYTHONPATH,),
                    probes=Probes(readiness=HEALTH),
                    routed=True,
                )
            ]
        )
        await site.until_ready("echo", within_s=20)
        yield site


async def test_the_answer_says_who_answered(echo: Site) -> None:
    """Goal: tests and demos can tell instances apart. Method: all three methods of a real process."""
    status = echo.status("echo")
    assert status.ingress.startswith("127.0.0.1:")
    assert status.ingress != status.address
    async with grpc.aio.insecure_channel(status.address) as channel:
        stub: echo_pb2_grpc.EchoServiceAsyncStub = echo_pb2_grpc.EchoServiceStub(channel)
        answer = await stub.Echo(echo_pb2.EchoRequest(message="hello"))
        assert (answer.message, answer.instance, answer.host) == ("hello", "echo@host1#0", "host1")
        assert (answer.generation, answer.pid) == (1, status.pid)
        counts = [(await stub.Count(echo_pb2.CountRequest())).count for _ in range(3)]
        assert counts == [1, 2, 3]
        stream = stub.EchoStream(echo_pb2.EchoStreamRequest(message="x", count=3))
        assert [reply.sequence async for reply in stream] == [1, 2, 3]


async def test_faults_come_as_asked_and_bad_requests_are_refused(echo: Site) -> None:
    """Goal: failures can be provoked, and only on purpose. Method: codes, too long a message, a crash."""
    async with grpc.aio.insecure_channel(echo.status("echo").address) as channel:
        stub: echo_pb2_grpc.EchoServiceAsyncStub = echo_pb2_grpc.EchoServiceStub(channel)
        for code, expected in ((14, grpc.StatusCode.UNAVAILABLE), (99, grpc.StatusCode.UNKNOWN)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Echo(echo_pb2.EchoRequest(fault=echo_pb2.Fault(code=code)))
            assert refused.value.code() is expected
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Echo(echo_pb2.EchoRequest(message="x" * ((1 << 20) + 1)))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Echo(echo_pb2.EchoRequest(fault=echo_pb2.Fault(crash=True)))
    await echo.until_ready("echo", generation=2)
    assert any(s.reason == "exited with code 70" for s in echo.told)


async def test_a_call_in_hand_is_finished_on_the_way_out(echo: Site) -> None:
    """Goal: a stop fails no call. Method: a slow call under way when the supervisor stops it."""
    status = echo.status("echo")
    async with grpc.aio.insecure_channel(status.address) as channel:
        stub: echo_pb2_grpc.EchoServiceAsyncStub = echo_pb2_grpc.EchoServiceStub(channel)
        request = echo_pb2.EchoRequest(message="slow")
        request.fault.delay.FromMilliseconds(800)
        slow = asyncio.ensure_future(stub.Echo(request))
        await stub.Echo(echo_pb2.EchoRequest())  # the slow one is on its way before this answers
        stopping = asyncio.ensure_future(echo.supervisor.stop_all())
        assert (await slow).message == "slow"
        await stopping
    assert not Path(f"/proc/{status.pid}").exists()
    assert echo.supervisor.tail(status.instance, 1) == ("drained",)
    left = [s.state for s in echo.told if s.pid == status.pid]
    assert left[-1] is InstanceState.STOPPING
