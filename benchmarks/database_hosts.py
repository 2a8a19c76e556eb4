"""Three hosts with a replicated PostgreSQL, whoever runs it, and the faults that are done to them.

Each host is a network namespace. Nothing of the machine that measures is inside one, so the
databases are looked at through their unix sockets.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from signal import Signals
from typing import Any, Final, Protocol

import psycopg

from benchmarks.acknowledgements import Acknowledgements, Reader
from benchmarks.cluster import Net
from benchmarks.namespaces import BRIDGE, CLIENT, PREFIX, Network
from benchmarks.programs import Programs, output_of
from mesh.errors import Unavailable

ROLE: Final = "bench"
PASSWORD: Final = "bench"
LANES: Final = 4
WHOLE_S: Final = 90.0
#: Looking costs the machine that is measured.
LOOK_S: Final = 0.2
_COMMAND_S: Final = 10.0
_CONNECT_S: Final = 2
#: Acknowledgements in a second that count as steady; 50 are possible.
STEADY: Final = 35
SECOND_NS: Final = 10**9

_MAKE: Final = (
    "CREATE ROLE bench LOGIN PASSWORD 'bench'",
    "CREATE DATABASE bench OWNER bench",
)
_TABLE: Final = (
    "CREATE TABLE inserts (number bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
    "GRANT ALL ON inserts TO bench",
)


class Databases(Protocol):
    """What is measured: one program's way to run the database on the hosts of a network."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def programs(self) -> Programs:
        """What runs it, and the clients."""
        ...

    @property
    def lan(self) -> Network:
        """Where its hosts are."""
        ...

    def socket(self, host: str) -> tuple[Path, int, str]:
        """Of a host's server: folder and port of its unix socket, and the role of a superuser."""
        ...

    def data(self, host: str) -> Path:
        """Its data directory."""
        ...

    def client(self, primary: str, *, inside: bool = False) -> tuple[Sequence[str], list[str]]:
        """What stands before a client's argv, and its URLs; *inside*: on the primary's own host."""
        ...

    async def start(self, host: str) -> None:
        """What the host's boot starts."""
        ...

    async def is_ready(self, primary: str) -> bool:
        """Nothing is under way, and a failover would be possible now."""
        ...

    async def switch_over(self, primary: str, to: str) -> None:
        """On purpose."""
        ...


def inside(lan: Network, name: str) -> tuple[str, ...]:
    """What stands before an argv; unlike `ip netns exec`, the host keeps its cgroups."""
    return ("nsenter", f"--net=/var/run/netns/{lan.namespace(name)}")


def net_of(lan: Network) -> Net:
    """For `benchmarks.cluster`."""
    return Net(PREFIX, "eth0", inside(lan, "{host}"))


def outside(lan: Network) -> tuple[str, ...]:
    """What stands before the argv of a client on a machine of its own."""
    return inside(lan, CLIENT)


# ---- looking -------------------------------------------------------------------------


async def ask(of: Databases, host: str, query: str, database: str = "postgres") -> list[Any]:
    """Rows that a host's server answers, as superuser. Fails: `psycopg.Error`."""
    return await asyncio.to_thread(ask_server, *of.socket(host), database, query)


def ask_server(folder: Path, port: int, role: str, database: str, query: str) -> list[Any]:
    """As `ask`, by where the unix socket is; blocks."""
    with psycopg.connect(
        host=str(folder),
        port=port,
        user=role,
        dbname=database,
        autocommit=True,
        connect_timeout=_CONNECT_S,
        application_name="benchmark",
    ) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


async def primary_of(of: Databases) -> str | None:
    """The host whose server takes writes; None when it is nobody, or more than one."""
    found = []
    for host in of.lan.hosts:
        with contextlib.suppress(psycopg.Error):
            if await ask(of, host, "SELECT pg_is_in_recovery()") == [(False,)]:
                found.append(host)
    return found[0] if len(found) == 1 else None


async def streaming(of: Databases, primary: str) -> set[str]:
    """Hosts that receive WAL from the primary and are not behind; none when it does not answer."""
    query: str = (
        "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn IS NOT NULL"
    )
    try:
        return {str(name) for (name,) in await ask(of, primary, query)}
    except psycopg.Error:
        return set()


async def wait_whole(of: Databases) -> str:
    """One primary, two that follow, ready for the next fault; the primary. Fails: `Unavailable`."""
    deadline = time.monotonic() + WHOLE_S
    while time.monotonic() < deadline:
        primary = await primary_of(of)
        if (
            primary is not None
            and await streaming(of, primary) == set(of.lan.hosts) - {primary}
            and await of.is_ready(primary)
        ):
            return primary
        await asyncio.sleep(LOOK_S)
    raise Unavailable(f"{of.name}: not within {WHOLE_S:g} s: one primary and two that follow")


async def make_table(of: Databases) -> None:
    """Role, database and table of the client, and a checkpoint: they are no part of what is measured."""
    primary = await wait_whole(of)
    for command in _MAKE:
        await ask(of, primary, command)
    for command in _TABLE:
        await ask(of, primary, command, ROLE)
    for host in (primary, *of.lan.hosts):
        await ask(of, host, "CHECKPOINT")


async def rows_of(of: Databases) -> set[int]:
    """What the primary has at the end."""
    primary = await wait_whole(of)
    return {number for (number,) in await ask(of, primary, "SELECT number FROM inserts", ROLE)}


# ---- faults --------------------------------------------------------------------------


async def kill_host(of: Databases, host: str) -> int:
    """SIGKILL of all its processes at once; the monotonic time of it."""
    at_ns = time.monotonic_ns()
    while pids := await _processes(of.lan, host):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, Signals.SIGKILL)
        await asyncio.sleep(0)
    return at_ns


async def _processes(lan: Network, host: str) -> list[int]:
    listed = await output_of(("ip", "netns", "pids", lan.namespace(host)), within_s=_COMMAND_S)
    return [pid for pid in map(int, listed.split()) if not _is_dead(pid)]


def _is_dead(pid: int) -> bool:
    """Only its exit code is left, or nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def silence(lan: Network, host: str, *, silent: bool) -> int:
    """Nothing from or to the host passes, its own link stays up; the monotonic time of it."""
    at_ns = time.monotonic_ns()
    words = ("nomaster",) if silent else ("master", "br0")
    argv = ("ip", "-n", lan.namespace(BRIDGE), "link", "set", host, *words)
    await output_of(argv, within_s=_COMMAND_S)
    return at_ns


def kill_postmaster(of: Databases, host: str) -> int:
    """SIGKILL of PostgreSQL's main process; the monotonic time of it."""
    pid = int((of.data(host) / "postmaster.pid").read_text().split()[0])
    at_ns = time.monotonic_ns()
    os.kill(pid, Signals.SIGKILL)
    return at_ns


# ---- the clients ---------------------------------------------------------------------


class Clients:
    """Those of one run."""

    def __init__(self, of: Databases, directory: Path) -> None:
        self._of = of
        self._directory = directory
        self._readers: list[Reader] = []
        self._pids: list[int] = []

    async def start(self, primary: str, first: int, *, inside: bool = False) -> None:
        """One more; it begins with the row *first*."""
        before, urls = self._of.client(primary, inside=inside)
        name = f"{self._directory.name}-{len(self._pids)}"
        record, order = self._directory / f"{name}.acks", self._directory / f"{name}.json"
        order.write_text(json.dumps({"urls": urls, "lanes": LANES, "first": first, "record": str(record)}))
        argv = (*before, sys.executable, "-m", "benchmarks.inserts", str(order))
        self._pids.append(await self._of.programs.start(name, argv))
        self._readers.append(Reader(record))

    def read(self) -> Acknowledgements:
        """What all were told so far."""
        each = [reader.read() for reader in self._readers]
        came = sorted((one for seen in each for one in seen.came), key=lambda one: one.at_ns)
        return Acknowledgements(tuple(came), sum(seen.unsure for seen in each))

    def outside(self) -> Acknowledgements:
        """What the first was told so far: the one that no fault hits."""
        return self._readers[0].read()

    async def wait_steady(self, after_ns: int, within_s: float, *, other_than: str = "") -> None:
        """A second of acknowledgements after a time, the last not by *other_than*. Fails: `Unavailable`."""
        deadline = time.monotonic() + within_s
        while True:
            now_ns = time.monotonic_ns()
            seen = self.outside()
            is_long_ago = now_ns - after_ns > SECOND_NS
            if (
                is_long_ago
                and seen.since(now_ns - SECOND_NS) >= STEADY
                and seen.came[-1].server != other_than
            ):
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._of.name}: no steady acknowledgements within {within_s:g} s")
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """All of them; some may have been killed with their host."""
        for pid in self._pids:
            if not _is_dead(pid):
                os.kill(pid, Signals.SIGTERM)
        while not all(map(_is_dead, self._pids)):
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def clients(of: Databases, directory: Path) -> AsyncIterator[Clients]:
    """The clients of one run, for as long as the body runs."""
    running = Clients(of, directory)
    try:
        yield running
    finally:
        await running.stop()
