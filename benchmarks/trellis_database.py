"""Trellis as one that runs the measured database.

Its clients are the services of a host, which reach the primary through the listener of
their own host; so the client that counts runs inside a host that survives.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from trellis.database.v1 import database_pb2, database_pb2_grpc

from benchmarks.cluster import HOSTS, Cluster, Net, running_cluster
from benchmarks.command import CannotMeasure
from benchmarks.database_hosts import PASSWORD, ROLE, inside, make_table, net_of
from benchmarks.namespaces import Network
from benchmarks.programs import Programs
from mesh.adapters.cgroup import find_hierarchies
from mesh.errors import TrellisError, Unavailable
from sidecar.postgres.engine.binaries import find_binaries
from sidecar.postgres.engine.config import ADMIN_ROLE
from sidecar.postgres.engine.layout import choose_user

PORT: Final = 5432
CLIENT_PORT: Final = 6432
DECLARE_S: Final = "60"
_CALL_S: Final = 5.0
_SWITCH_S: Final = 60.0
SETTINGS: Final = f"""
[database]
client_address = "{{local}}:{CLIENT_PORT}"
"""


@dataclass
class TrellisDatabase:
    """See `benchmarks.database_hosts.Databases`."""

    lan: Network
    cluster: Cluster
    name: str = "trellis"

    @property
    def programs(self) -> Programs:
        """Of the cluster."""
        return self.cluster.programs

    def socket(self, host: str) -> tuple[Path, int, str]:
        """Root is superuser there."""
        return socket_of(self.cluster, host)

    def data(self, host: str) -> Path:
        """Its data directory."""
        return self.cluster.directory / host / "data" / "postgres" / "data"

    def client(self, primary: str, *, inside: bool = False) -> tuple[Sequence[str], list[str]]:
        """On a host that is not the primary, or on the primary itself."""
        host = primary if inside else next(each for each in self.lan.hosts if each != primary)
        return _inside(self.lan, host), [url_through_listener(self.cluster, host)]

    async def start(self, host: str) -> None:
        """Its sidecar, which starts everything else."""
        await self.cluster.start(host)

    async def is_ready(self, primary: str) -> bool:
        """A failover needs nobody but the two others, and every host is well."""
        return await is_ready(self.cluster, primary)

    async def switch_over(self, primary: str, to: str) -> None:
        """By the operators' call."""
        stub = database_pb2_grpc.DatabaseServiceStub(self.cluster.channel(to))
        try:
            await stub.Switchover(database_pb2.SwitchoverRequest(host=to), timeout=_SWITCH_S)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"the switchover from {primary} to {to} failed: {error.details()}") from None


_inside = inside


def socket_of(cluster: Cluster, host: str) -> tuple[Path, int, str]:
    """Where root is superuser of a host's server."""
    return cluster.directory / host / "run" / "postgres", PORT, ADMIN_ROLE


def url_through_listener(cluster: Cluster, host: str) -> str:
    """What a service of the host would use, with the role of the benchmark."""
    return _url(f"{cluster.local(host)}:{CLIENT_PORT}")


def url_direct(cluster: Cluster, host: str) -> str:
    """Straight to a host's server."""
    return _url(f"{cluster.net.ip(host)}:{PORT}")


def _url(address: str) -> str:
    return f"postgresql://{ROLE}:{PASSWORD}@{address}/{ROLE}?sslmode=require&channel_binding=require"


async def is_ready(cluster: Cluster, primary: str) -> bool:
    """The others could take over without the primary, and the cluster itself is whole."""
    stub = database_pb2_grpc.DatabaseServiceStub(cluster.channel(primary))
    try:
        status = await stub.GetStatus(database_pb2.GetStatusRequest(), timeout=_CALL_S)
        await cluster.wait_whole(within_s=_CALL_S)
    except (grpc.aio.AioRpcError, TrellisError):
        return False
    return (
        status.primary == primary
        and not status.successor
        and set(status.published.voters) == set(cluster.hosts) - {primary}
        and any(row.host == primary and row.status.is_open for row in status.members)
    )


def check_programs() -> None:
    """Fails: `CannotMeasure` when PostgreSQL cannot be run here."""
    try:
        find_binaries("", choose_user(""))
    except TrellisError as error:
        raise CannotMeasure(str(error)) from None


@asynccontextmanager
async def running_with_database(directory: Path, net: Net | None = None) -> AsyncIterator[Cluster]:
    """A cluster whose hosts may carry PostgreSQL; it is not declared yet."""
    check_programs()
    # PostgreSQL is not root and must reach its data.
    directory.parent.chmod(0o755)
    directory.chmod(0o755)
    try:
        async with running_cluster(directory, net=net, more=SETTINGS) as cluster:
            yield cluster
    finally:
        for host in HOSTS:
            _remove_groups(host, directory / host / "run")


def _remove_groups(host: str, run_dir: Path) -> None:
    """Empty control groups that killed programs left."""
    for name in (host, f"{host}-db"):
        found = find_hierarchies(name, str(run_dir))
        for leaf in found.leaves():
            for root in (found.unified, found.memory):
                if root is not None:
                    with contextlib.suppress(OSError):
                        (root / leaf).rmdir()
        found.remove()


async def declare(cluster: Cluster) -> None:
    """Declare the database and wait until it takes writes."""
    await cluster.trellis(cluster.hosts[0], "db", "declare", "--wait", "--timeout", DECLARE_S)


@asynccontextmanager
async def running_trellis(lan: Network, directory: Path) -> AsyncIterator[TrellisDatabase]:
    """Trellis with a database on three hosts."""
    async with running_with_database(directory, net_of(lan)) as cluster:
        found = TrellisDatabase(lan, cluster)
        await declare(cluster)
        await make_table(found)
        yield found
