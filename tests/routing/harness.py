"""Real parts for the routing tests: Envoy, services, certificates, clients."""

import asyncio
import contextlib
import datetime
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trellis.echo.v1 import echo_pb2

from mesh.ids import HostId, ServiceName, instance_id
from mesh.state.service import (
    InstanceState,
    InstanceStatus,
    MethodPolicy,
    Probe,
    ProbeKind,
    Probes,
    ServiceSpec,
)
from sidecar.routing.driver import Routing
from sidecar.routing.model import CertificatePaths, RoutingSettings, RoutingView

CLUSTER = "c0ffee"
ECHO = "/trellis.echo.v1.EchoService/Echo"
COUNT = "/trellis.echo.v1.EchoService/Count"
BACKEND = Path(__file__).with_name("backend.py")


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Any], *, within_s: float = 10.0) -> Any:
    """Waits for a condition and returns its value."""
    async with asyncio.timeout(within_s):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.005)


# ---- services -------------------------------------------------------------------


@dataclass
class Backend:
    """One running copy of the echo service."""

    host: str
    ordinal: int
    address: str
    process: asyncio.subprocess.Process
    ingress: str = ""

    @property
    def name(self) -> str:
        return instance_id(ServiceName("echo"), HostId(self.host), self.ordinal)

    def status(self, *, ready: bool = True) -> InstanceStatus:
        return InstanceStatus(
            instance=instance_id(ServiceName("echo"), HostId(self.host), self.ordinal),
            service=ServiceName("echo"),
            host=HostId(self.host),
            generation=1,
            state=InstanceState.RUNNING,
            ready=ready,
            pid=self.process.pid,
            address=self.address,
            ingress=self.ingress,
        )

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@contextlib.asynccontextmanager
async def backend(
    host: str, ordinal: int, *, ip: str = "127.0.0.1", ingress: bool = False
) -> AsyncIterator[Backend]:
    address = f"{ip}:{free_port(ip)}"
    name = instance_id(ServiceName("echo"), HostId(host), ordinal)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(BACKEND), address, name, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield Backend(host, ordinal, address, process, f"{ip}:{free_port(ip)}" if ingress else "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def echo_spec() -> ServiceSpec:
    return ServiceSpec(
        name=ServiceName("echo"),
        command=("echo",),
        probes=Probes(readiness=Probe(ProbeKind.GRPC)),
        routed=True,
        grpc_services=("trellis.echo.v1.EchoService",),
        methods=(
            MethodPolicy(ECHO, idempotent=True, timeout_ms=5_000),
            MethodPolicy(COUNT, timeout_ms=30_000),
        ),
    )


# ---- a host ---------------------------------------------------------------------


@dataclass
class Host:
    """One host's routing with its real Envoy."""

    settings: RoutingSettings
    routing: Routing
    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    revision: int = 0

    def view(self, *backends: InstanceStatus, **other: Any) -> RoutingView:
        self.revision += 1
        hosts = tuple(HostId(each) for each in ("host1", "host2", "host3"))
        return RoutingView(self.revision, (echo_spec(),), backends, hosts, **other)

    def publish(self, *backends: InstanceStatus, **other: Any) -> None:
        self.routing.publish(self.view(*backends, **other))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def settings(directory: Path, host: str = "host1", **other: Any) -> RoutingSettings:
    run_dir = directory / host
    values: dict[str, Any] = {"northbound_address": f"127.0.0.1:{free_port()}"} | other
    return RoutingSettings(CLUSTER, HostId(host), str(run_dir), **values)


@contextlib.asynccontextmanager
async def running(chosen: RoutingSettings, *, leave_envoy: bool = False) -> AsyncIterator[Host]:
    """Runs routing as a sidecar does; *leave_envoy*: end it as a killed sidecar would."""
    events: list[tuple[str, Mapping[str, object]]] = []
    routing = Routing(chosen, lambda name, facts: events.append((name, facts)))
    host = Host(chosen, routing, events)
    running = asyncio.create_task(routing.run(), name="routing")
    try:
        yield host
    finally:
        if not leave_envoy:
            await routing.stop(grace_s=2.0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def ready(host: Host) -> None:
    await until(lambda: host.routing.northbound_listening, within_s=15)


# ---- clients --------------------------------------------------------------------


class Client:
    """A plain gRPC client without retries of its own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._echo = channel.unary_unary(
            ECHO, echo_pb2.EchoRequest.SerializeToString, echo_pb2.EchoResponse.FromString
        )
        self._count = channel.unary_unary(
            COUNT, echo_pb2.CountRequest.SerializeToString, echo_pb2.CountResponse.FromString
        )

    async def echo(self, *, timeout_s: float = 5.0, **fault: Any) -> str:
        request = echo_pb2.EchoRequest(message="x", fault=echo_pb2.Fault(**fault))
        return str((await self._echo(request, timeout=timeout_s)).instance)

    async def unknown(self) -> None:
        call = self.channel.unary_unary("/no.such.Service/Call", bytes, bytes)
        await call(b"")

    async def count(self, *, timeout_s: float = 5.0) -> tuple[str, int]:
        response = await self._count(echo_pb2.CountRequest(), timeout=timeout_s)
        return str(response.instance), int(response.count)


@contextlib.asynccontextmanager
async def client(address: str) -> AsyncIterator[Client]:
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Client(channel)


@dataclass
class Load:
    """Calls at a steady rate and what became of them."""

    latencies_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered_by: dict[str, int] = field(default_factory=dict)
    #: (start, end) of each call in seconds of the loop's clock
    spans: list[tuple[float, float]] = field(default_factory=list)


@contextlib.asynccontextmanager
async def load(call: Callable[[], Awaitable[Any]], *, per_second: float = 200) -> AsyncIterator[Load]:
    """Open-loop load: a slow call does not hold the next one back."""
    result = Load()
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    async def one() -> None:
        began = loop.time()
        try:
            name = await call()
            result.answered_by[str(name)] = result.answered_by.get(str(name), 0) + 1
        except grpc.aio.AioRpcError as error:
            result.failures.append(f"{error.code().name}: {error.details()}")
        result.latencies_ms.append((loop.time() - began) * 1000)
        result.spans.append((began, loop.time()))

    async def pace() -> None:
        due = loop.time()
        async with asyncio.TaskGroup() as group:
            while not done.is_set():
                group.create_task(one())
                due += 1 / per_second
                await asyncio.sleep(max(0.0, due - loop.time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(pace())
        try:
            yield result
        finally:
            done.set()


# ---- certificates ---------------------------------------------------------------


class Authority:
    """A CA of one cluster, in a directory."""

    def __init__(self, directory: Path, cluster: str = CLUSTER) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.cluster = directory, cluster
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cluster)])
        self._certificate = self._build(self._name, self._key.public_key(), ca=True)
        self.path = directory / "ca.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _build(self, name: x509.Name, key: Any, *, ca: bool, uri: str = "") -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if uri:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, host: str, *, cluster: str = "") -> CertificatePaths:
        """Key and certificate of one host, replaced by rename when they exist."""
        key = ec.generate_private_key(ec.SECP256R1())
        uri = f"spiffe://{cluster or self.cluster}/host/{host}"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._build(name, key.public_key(), ca=False, uri=uri)
        own = self.directory / host
        own.mkdir(exist_ok=True)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _replace(own / "key.pem", private)
        _replace(own / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM))
        _replace(own / "ca.pem", self.path.read_bytes())
        return CertificatePaths(str(own / "cert.pem"), str(own / "key.pem"), str(own / "ca.pem"))


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
