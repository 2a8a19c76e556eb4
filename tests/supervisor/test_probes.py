"""Probes of every kind against real servers, good, bad and hanging."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from mesh.adapters.cgroup import NOWHERE
from mesh.state.service import InstanceState, Probe, ProbeKind, Probes, Restart
from sidecar.supervisor.health import GrpcHealth
from sidecar.supervisor.probes import Target, ask_in_time, asker_for
from sidecar.supervisor.verdict import question_of
from tests.supervisor.conftest import SLEEP, Site, assigned, python

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LISTEN = """
import os, socket, time
host, port = os.environ["TRELLIS_LISTEN"].split(":")
server = socket.create_server((host, int(port)))
"""


def target(port: int) -> Target:
    return Target("127.0.0.1", port, {"PATH": os.environ["PATH"]}, "/", "", NOWHERE, "probed")


async def ask(probe: Probe, port: int = 0) -> str:
    asker = asker_for(question_of(probe), target(port))
    try:
        return await ask_in_time(asker, probe.timeout_ms)
    finally:
        asker.close()


@contextlib.asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[int]:
    """A TCP server that treats each connection with *reply*; yields its port."""

    async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the loop ends while a reply hangs
                await reply(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(treat, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def health_server() -> AsyncIterator[tuple[int, health_aio.HealthServicer]]:
    """A real gRPC health service; "good" serves, "bad" does not."""
    server = grpc.aio.server()
    servicer = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("good", health_pb2.HealthCheckResponse.SERVING)
    await servicer.set("bad", health_pb2.HealthCheckResponse.NOT_SERVING)
    try:
        yield port, servicer
    finally:
        await server.stop(None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_grpc_health_is_read_from_a_real_server() -> None:
    """Goal: the hand-written client speaks the protocol.

    Method: serving, not serving and unknown names of a grpc server.
    """
    async with health_server() as (port, _):
        assert await ask(Probe(ProbeKind.GRPC, target="good"), port) == ""
        assert await ask(Probe(ProbeKind.GRPC), port) == ""
        assert await ask(Probe(ProbeKind.GRPC, target="bad"), port) == "the health service says NOT_SERVING"
        unknown = await ask(Probe(ProbeKind.GRPC, target="none"), port)
        assert unknown.startswith("the health service refused the question")


@pytest.mark.integration
async def test_a_grpc_answer_changes_on_a_kept_connection_past_its_flow_window() -> None:
    """Goal: a long-lived connection does not stall.

    Method: more answers than the window holds, then another one.
    """
    async with health_server() as (port, servicer):
        asker = GrpcHealth("127.0.0.1", port, "good")
        for _ in range(10_000):  # 7 bytes each: more than the initial window of 65,535
            assert await asker.ask() == ""
        await servicer.set("good", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await asker.ask() == "the health service says NOT_SERVING"
        asker.close()


async def test_a_grpc_server_that_came_back_is_asked_on_a_new_connection() -> None:
    """Goal: one broken connection does not make a server unwell for ever.

    Method: stop it, ask, start it on the port.
    """
    async with health_server() as (port, _):
        asker = GrpcHealth("127.0.0.1", port, "good")
        assert await asker.ask() == ""
    with pytest.raises(OSError, match=r"refused|closed|Connect"):
        await asker.ask()
    server = grpc.aio.server()
    servicer = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await servicer.set("good", health_pb2.HealthCheckResponse.SERVING)
    assert await asker.ask() == ""
    asker.close()
    await server.stop(None)


async def test_what_does_not_speak_grpc_is_a_bad_answer() -> None:
    """Goal: a wrong port is told as such. Method: an HTTP/1.1 answer."""

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with serving(http) as port:
        assert await ask(Probe(ProbeKind.GRPC), port) == "what listens there does not speak gRPC"


async def test_a_server_that_answers_later_than_the_deadline_is_a_bad_answer() -> None:
    """Goal: a hanging server cannot hang the prober. Method: a server that only reads."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(hang) as port:
        for kind in (ProbeKind.GRPC, ProbeKind.HTTP):
            began = time.perf_counter()
            assert await ask(Probe(kind, timeout_ms=150), port) == "no answer within 150 ms"
            assert time.perf_counter() - began < 0.3


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 503 No\r\n\r\n", "HTTP status 503"),
        (b"SSH-2.0-x\r\n", "what listens there does not speak HTTP"),
        (b"", "what listens there does not speak HTTP"),
        (b"x" * 1_000_000, "what listens there does not speak HTTP"),
    ],
)
async def test_http_is_judged_by_its_first_line(reply: bytes, answer: str) -> None:
    """Goal: status decides, and no answer can flood the prober.

    Method: table of raw replies, one of a megabyte.
    """
    asked = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        writer.write(reply)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async with serving(answer_once) as port:
        assert await ask(Probe(ProbeKind.HTTP, target="/healthz"), port) == answer
    assert asked == ["GET /healthz HTTP/1.1\r\n"]


@pytest.mark.parametrize("kind", [ProbeKind.GRPC, ProbeKind.HTTP, ProbeKind.TCP])
async def test_nobody_listening_is_a_bad_answer(kind: ProbeKind) -> None:
    """Goal: each kind says the plain reason. Method: a port that was just freed."""
    assert await ask(Probe(kind), free_port()) == "Connection refused"


async def test_tcp_only_wants_to_be_accepted() -> None:
    """Goal: a TCP probe demands no protocol. Method: a server that never answers."""

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(nothing) as port:
        assert await ask(Probe(ProbeKind.TCP), port) == ""


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (("/bin/true",), ""),
        (("/bin/sh", "-c", "exit 4"), "the probe's command exited with 4"),
        (("/bin/sh", "-c", "kill -9 $$"), "the probe's command was killed by signal 9"),
        (("/nowhere/at-all",), "the probe's command exited with 127"),
        (("/bin/sh", "-c", "yes & head -c 100000000 /dev/zero"), ""),
    ],
)
async def test_a_command_is_judged_by_its_exit_code(command: tuple[str, ...], answer: str) -> None:
    """Goal: code, signal and absence are told apart, output is harmless.

    Method: real commands, one writing 100 MB.
    """
    assert await ask(Probe(ProbeKind.EXEC, command=command, timeout_ms=5_000)) == answer


async def test_a_hanging_command_is_killed_with_all_it_forked(tmp_path: Path) -> None:
    """Goal: probes leave nothing behind. Method: a shell with a child; both pids must go."""
    pids = tmp_path / "pids"
    command = ("/bin/sh", "-c", f"sleep 1000 & echo $! $$ > {pids}; wait")
    probe = Probe(ProbeKind.EXEC, command=command, timeout_ms=300)
    assert await ask(probe) == "no answer within 300 ms"
    for pid in map(int, pids.read_text().split()):
        end = time.monotonic() + 2
        while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            assert time.monotonic() < end
            await asyncio.sleep(0.005)


async def test_startup_gates_readiness_and_liveness(plain_site: Site) -> None:
    """Goal: a slow start is not killed by its own liveness.

    Method: a port opened after 0.4 s, probes that fall at once.
    """
    slow = python(f"import time; time.sleep(0.4)\n{LISTEN}\ntime.sleep(1000)")
    tcp = Probe(ProbeKind.TCP, fall=1, interval_ms=100)
    probes = Probes(startup=tcp, readiness=tcp, liveness=tcp)
    began = time.perf_counter()
    plain_site.supervisor.assign([assigned("slow", slow, probes=probes)])
    await plain_site.until_ready("slow")
    assert time.perf_counter() - began > 0.4
    assert plain_site.status("slow").generation == 1
    states = [s.state for s in plain_site.told]
    assert states[-1] is InstanceState.RUNNING
    assert InstanceState.STOPPING not in states


async def test_a_startup_that_takes_too_long_is_a_failure(plain_site: Site) -> None:
    """Goal: a start has a deadline of its own. Method: a program that never listens."""
    probes = Probes(startup=Probe(ProbeKind.TCP), startup_deadline_ms=200)
    policy = Restart(delay_ms_min=60_000, delay_ms_max=60_000)
    plain_site.supervisor.assign([assigned("mute", SLEEP, probes=probes, restart=policy)])
    await plain_site.until(lambda: plain_site.status("mute").generation == 2)
    assert any(s.reason == "startup took longer than 200 ms" for s in plain_site.told)


async def test_a_frozen_instance_leaves_traffic_and_is_replaced(plain_site: Site) -> None:
    """TCP would still be accepted; the health question goes unanswered."""
    serve = python(
        LISTEN + "while True:\n  c, _ = server.accept(); c.recv(4096); "
        'c.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n"); c.close()'
    )
    probes = Probes(
        readiness=Probe(ProbeKind.HTTP, interval_ms=100, timeout_ms=100, fall=1),
        liveness=Probe(ProbeKind.HTTP, interval_ms=100, timeout_ms=100, fall=5),
    )
    plain_site.supervisor.assign([assigned("web", serve, probes=probes, grace_ms=200)])
    await plain_site.until_ready("web")
    os.kill(plain_site.status("web").pid, signal.SIGSTOP)
    began = time.perf_counter()
    await plain_site.until(lambda: not plain_site.status("web").ready)
    assert time.perf_counter() - began < 0.4
    assert plain_site.status("web").reason == "not ready: no answer within 100 ms"
    await plain_site.until_ready("web", generation=2)
    assert any(s.reason == "liveness lost: no answer within 100 ms" for s in plain_site.told)


async def test_silence_after_pushed_heartbeats_fails_liveness(plain_site: Site) -> None:
    """Goal: who promises to push must go on. Method: push well, push unwell, then push once and no more."""
    push = Probe(ProbeKind.PUSH, interval_ms=100, timeout_ms=50, fall=2)
    probes = Probes(readiness=push, liveness=push)
    plain_site.supervisor.assign([assigned("push", SLEEP, probes=probes)])
    await plain_site.until_state("push", InstanceState.RUNNING)
    name = plain_site.status("push").instance
    assert not plain_site.status("push").ready
    plain_site.supervisor.pushed(name)
    assert plain_site.status("push").ready
    plain_site.supervisor.pushed(name, ok=False)
    plain_site.supervisor.pushed(name, ok=False)
    assert plain_site.status("push").state is InstanceState.STOPPING
    await plain_site.until(lambda: plain_site.status("push").generation == 2)
    plain_site.supervisor.pushed(name)
    await plain_site.until(lambda: plain_site.status("push").generation == 3)
    assert any("no heartbeat pushed for" in s.reason for s in plain_site.told)


async def test_a_slow_start_without_a_startup_probe_keeps_its_liveness(
    plain_site: Site,
) -> None:
    """The first questions come quickly; liveness falls only after `fall` intervals."""
    slow = python(f"import time; time.sleep(0.7)\n{LISTEN}\ntime.sleep(1000)")
    tcp = Probe(ProbeKind.TCP, fall=3, interval_ms=500)
    plain_site.supervisor.assign([assigned("slow", slow, probes=Probes(readiness=tcp, liveness=tcp))])
    await plain_site.until_ready("slow")
    assert plain_site.status("slow").generation == 1


async def test_an_instance_that_never_answers_loses_liveness_after_fall_intervals(plain_site: Site) -> None:
    """Goal: exactly the tolerance that was declared. Method: a mute process, timed."""
    tcp = Probe(ProbeKind.TCP, fall=3, interval_ms=100)
    began = time.perf_counter()
    plain_site.supervisor.assign([assigned("mute", SLEEP, probes=Probes(liveness=tcp))])
    await plain_site.until(lambda: plain_site.status("mute").generation == 2)
    assert 0.3 <= time.perf_counter() - began < 2
