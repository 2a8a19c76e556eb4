"""Three hosts to measure: on loopback, or each in a network namespace of its own.

Everything lies below one directory and on 127.0.80.0/24 (or 10.80.0.0/24 inside the
namespaces), so that a demo or a test can run beside it.

Absent here: what is measured.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Final

import grpc
from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc
from trellis.membership.v1 import membership_pb2
from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

from benchmarks.programs import Programs, output_of
from mesh.errors import Unavailable
from mesh.settings.declaration import load_declarations
from mesh.wire.service import encode_spec

HOSTS: Final = ("host1", "host2", "host3")
SETUP_S: Final = 60.0
CALL_S: Final = 5.0
POLL_S: Final = 0.05
VIP_PORT: Final = 7480
NORTHBOUND_PORT: Final = 8480

_SETTINGS: Final = """\
[host]
name = "{name}"
data_dir = "{directory}/data"
run_dir = "{directory}/run"
log_dir = "{directory}/log"

[mesh]
address = "{ip}:7400"

[northbound]
address = "{ip}:{northbound}"

[virtual_ip]
address = "{virtual_ip}"
port = {virtual}
interface = "{interface}"

[envoy]
concurrency = {concurrency}

[xds]
address = "{local}:18000"

[services]
listen = "{local}"

[telemetry]
prometheus = "{local}:9464"
"""


@dataclass(frozen=True, slots=True)
class Net:
    """Where the hosts are: their addresses and how a program gets there."""

    prefix: str = "127.0.80."
    interface: str = ""
    #: Before each argv of a host; {host} is its name.
    enter: tuple[str, ...] = ()

    def ip(self, host: str) -> str:
        """Address of a host."""
        return f"{self.prefix}{HOSTS.index(host) + 1}"

    @property
    def virtual_ip(self) -> str:
        """The address that moves."""
        return f"{self.prefix}100"


@dataclass
class Cluster:
    """A running cluster."""

    directory: Path
    programs: Programs
    net: Net = field(default_factory=Net)
    concurrency: int = 1
    hosts: tuple[str, ...] = HOSTS
    #: At the end of each host's settings; {local} is where its own services reach it.
    more: str = ""
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    @property
    def virtual_address(self) -> str:
        """Where clients call, whoever leads."""
        return f"{self.net.virtual_ip}:{VIP_PORT}"

    def settings_path(self, host: str) -> Path:
        """A host's settings file."""
        return self.directory / host / "settings.toml"

    # ---- making it ----------------------------------------------------------------

    async def set_up(self) -> None:
        """From nothing to voters on every host. Fails: `Unavailable` with what is missing."""
        for host in self.hosts:
            (self.directory / host).mkdir(parents=True)
            self.settings_path(host).write_text(self._settings(host))
        first, *others = self.hosts
        await self.trellis(first, "init")
        await self.start(first)
        await self.wait_for(lambda: self._is_leading(first), f"{first} leads itself")
        for host in others:
            token = await self.trellis(first, "token", "--host", host)
            await self.trellis(host, "join", token)
            await self.start(host)
        await self.wait_whole()

    def _settings(self, host: str) -> str:
        ip, local = self.net.ip(host), self.local(host)
        return (_SETTINGS + self.more).format(
            name=host,
            directory=self.directory / host,
            ip=ip,
            local=local,
            northbound=NORTHBOUND_PORT,
            virtual_ip=self.net.virtual_ip,
            virtual=VIP_PORT,
            interface=self.net.interface,
            concurrency=self.concurrency,
        )

    def local(self, host: str) -> str:
        """Address by which a host reaches itself only."""
        ip = self.net.ip(host)
        return ip if ip.startswith("127.") else "127.0.0.1"

    async def trellis(self, host: str, *words: str) -> str:
        """Run one command of the CLI on a host and return what it printed."""
        settings = ("--settings", str(self.settings_path(host)))
        argv = self._on(host, sys.executable, "-m", "sidecar.cli.main", *words, *settings)
        return (await output_of(argv, within_s=SETUP_S)).strip()

    async def start(self, host: str) -> None:
        """Run a host's sidecar."""
        command = (sys.executable, "-m", "sidecar.cli.main", "run")
        argv = self._on(host, *command, "--settings", str(self.settings_path(host)))
        await self.programs.start(host, argv)

    def _on(self, host: str, *argv: str) -> list[str]:
        return [word.format(host=host) for word in self.net.enter] + list(argv)

    async def apply(self, declaration: Path) -> list[str]:
        """Declare the services of a file; their names."""
        leader = await self.leader()
        stub = supervisor_pb2_grpc.SupervisorServiceStub(self.channel(leader))
        specs = load_declarations(declaration)
        for spec in specs:
            request = supervisor_pb2.ApplyServiceRequest(spec=encode_spec(spec))
            await stub.ApplyService(request, timeout=CALL_S)
        return [str(spec.name) for spec in specs]

    async def close(self) -> None:
        """Close the channels; the programs end with their owner."""
        for channel in self._channels.values():
            await channel.close()

    # ---- looking at it ------------------------------------------------------------

    def channel(self, host: str) -> grpc.aio.Channel:
        """To the admin socket of a host's sidecar."""
        if host not in self._channels:
            path = self.directory / host / "run" / "admin.sock"
            self._channels[host] = grpc.aio.insecure_channel(f"unix:{path}", options=_QUICK)
        return self._channels[host]

    async def status(self, host: str) -> cluster_pb2.GetStatusResponse | None:
        """What a host knows; None when it does not answer."""
        stub = cluster_pb2_grpc.ClusterServiceStub(self.channel(host))
        try:
            return await stub.GetStatus(cluster_pb2.GetStatusRequest(), timeout=CALL_S)
        except grpc.aio.AioRpcError:
            return None

    async def leader(self) -> str:
        """Who leads, in the newest term that any host speaks of; waits until someone does."""
        deadline = time.monotonic() + SETUP_S
        while time.monotonic() < deadline:
            seen = [status for host in self.hosts if (status := await self.status(host)) and status.leader]
            if seen:
                return str(max(seen, key=lambda status: status.term).leader)
            await asyncio.sleep(POLL_S)
        raise Unavailable(f"no host leads after {SETUP_S:g} s")

    async def wait_whole(
        self, services: Sequence[str] = (), instances: int = 3, within_s: float = SETUP_S
    ) -> None:
        """Every host votes and all agree on one leader, who has the virtual address; *services* ready."""
        await self.wait_for(lambda: self._is_whole(services, instances), "the cluster is whole", within_s)

    async def wait_for(
        self, holds: Callable[[], Awaitable[bool]], what: str, within_s: float = SETUP_S
    ) -> None:
        """Wait for a condition. Fails: `Unavailable` with *what*."""
        deadline = time.monotonic() + within_s
        while not await holds():
            if time.monotonic() > deadline:
                raise Unavailable(f"not within {within_s:g} s: {what}")
            await asyncio.sleep(POLL_S)

    async def _is_leading(self, host: str) -> bool:
        status = await self.status(host)
        return status is not None and status.leader == host

    async def _is_whole(self, services: Sequence[str], instances: int) -> bool:
        seen = [await self.status(host) for host in self.hosts]
        leaders = {status.leader if status else "" for status in seen}
        if len(leaders) != 1 or not all(leaders):
            return False
        return all(status and self._is_content(status, services, instances) for status in seen)

    def _is_content(
        self, status: cluster_pb2.GetStatusResponse, services: Sequence[str], instances: int
    ) -> bool:
        alive = membership_pb2.HOST_STATUS_ALIVE
        voters = sum(
            host.role == membership_pb2.MEMBER_ROLE_VOTER and host.status == alive for host in status.hosts
        )
        has_vip = any(owner.name == "vip" and owner.host == status.leader for owner in status.owners)
        ready = {each.spec.name: sum(one.ready for one in each.instances) for each in status.services}
        return (
            voters == len(self.hosts)
            and has_vip
            and all(ready.get(name, 0) >= instances for name in services)
        )

    async def instance_pid(self, host: str, service: str) -> int:
        """Process id of a service's instance on a host."""
        status = await self.status(host)
        assert status is not None
        for each in status.services:
            for one in each.instances:
                if each.spec.name == service and f"@{host}#" in one.instance and one.ready:
                    return int(one.pid)
        raise Unavailable(f"{service} is not ready on {host}")

    async def transfer(self, to: str) -> float:
        """Hand leadership over; how long it took, in milliseconds, as the cluster says."""
        stub = cluster_pb2_grpc.ClusterServiceStub(self.channel(await self.leader()))
        request = cluster_pb2.TransferLeadershipRequest(host=to)
        answer = await stub.TransferLeadership(request, timeout=15)
        return answer.took.ToNanoseconds() / 1e6

    async def signal(self, host: str, number: Signals) -> int:
        """Signal a host's sidecar; the monotonic time of it."""
        return await self.programs.signal(host, number)


_QUICK: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


@contextlib.asynccontextmanager
async def running_cluster(
    directory: Path,
    *,
    net: Net | None = None,
    concurrency: int = 1,
    hosts: tuple[str, ...] = HOSTS,
    more: str = "",
) -> AsyncIterator[Cluster]:
    """A cluster of voters for as long as the body runs."""
    async with Programs(directory) as programs:
        cluster = Cluster(directory, programs, net or Net(), concurrency, hosts, more)
        try:
            await cluster.set_up()
            yield cluster
        finally:
            await cluster.close()
