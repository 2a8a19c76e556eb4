"""Committed writes per second on three hosts, with 1 and with 100 clients.

Parts, each 100 bytes under one of 100 names, acknowledged when a majority has it on disk:
  proposals   Trellis: commands on the leader's Propose stream over mTLS, as another host sends
              them; durable on a majority by fsync, and applied.
  documents   Trellis: PutDocument by unary calls at the leader, from the same Python client
              as etcd's, and from h2load.
  etcd        three members, puts by unary calls at the leader, from the Python client and from
              h2load; plain text between members.
  pysyncobj   three processes; not durable.

The ratios of `proposals` are made with etcd's figure from the same Python client where one client
waits for each answer, since its own time counts then, and from h2load where there are 100: a Python
client itself ends near 10,000 calls/s.
"""

import importlib.util
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from trellis.config_sync.v1 import config_sync_pb2

from benchmarks import h2load
from benchmarks.cluster import Cluster, running_cluster
from benchmarks.command import Benchmark, CannotMeasure, Figures, Order, fresh
from benchmarks.etcd import PUT, PutRequest, running_etcd
from benchmarks.figures import Target, at_least, dig, ratio, summary
from benchmarks.programs import Programs, output_of
from benchmarks.writers import NAMES, VALUE

CLIENTS: Final = (1, 100)
SECONDS: Final = 4
WITHIN_S: Final = 60.0
PUT_DOCUMENT: Final = "/trellis.config_sync.v1.ConfigSyncService/PutDocument"

Measured = dict[str, float]


async def measure(order: Order) -> Figures:
    """Every part that is wanted."""
    figures: Figures = {}
    parts: dict[str, Callable[[Order], Awaitable[Figures]]] = {
        "proposals": _proposals,
        "documents": _documents,
        "etcd": _etcd,
        "pysyncobj": _pysyncobj,
    }
    for name, part in parts.items():
        if order.wants(name):
            try:
                figures[name] = await part(order)
            except CannotMeasure as reason:
                figures[name] = {"result": None, "reason": str(reason)}
    figures["ratios"] = _ratios(figures)
    return figures


def _ratios(figures: Figures) -> Figures:
    def per_second(*path: str) -> Any:
        return dig(figures, *path, "per_second", "median")

    ratios: Figures = {}
    for clients in CLIENTS:
        row = f"{clients}_clients"
        etcd = per_second("etcd", f"h2load_{row}")
        judged = per_second("etcd", f"python_{row}") if clients == 1 else etcd
        ratios |= {
            f"proposals / etcd, {row}": ratio(per_second("proposals", row), judged),
            f"documents by h2load / etcd, {row}": ratio(per_second("documents", f"h2load_{row}"), etcd),
            f"documents by Python / etcd by Python, {row}": ratio(
                per_second("documents", f"python_{row}"), per_second("etcd", f"python_{row}")
            ),
            f"proposals / pysyncobj, {row}": ratio(
                per_second("proposals", row), per_second("pysyncobj", row)
            ),
        }
    return ratios


async def _repeat(order: Order, part: str, rows: dict[str, Callable[[], Awaitable[Measured]]]) -> Figures:
    """Row by row within each run; medians over the runs."""
    seen: dict[str, list[Measured]] = {name: [] for name in rows}
    for number in range(order.runs):
        for name, row in rows.items():
            measured = await row()
            seen[name].append(measured)
            order.say(
                f"{part} {number + 1}/{order.runs} {name}: {measured['per_second']:.0f}/s,"
                f" p50 {measured['p50_ms']:.2f} ms, p99 {measured['p99_ms']:.2f} ms"
            )
    return {
        name: {
            key: summary([each[key] for each in measured], 2) for key in ("per_second", "p50_ms", "p99_ms")
        }
        for name, measured in seen.items()
    }


async def _python(kind: str, clients: int, *arguments: str) -> Measured:
    argv = (sys.executable, "-m", "benchmarks.writers", kind, str(clients), str(SECONDS), *arguments)
    answer: Measured = json.loads(await output_of(argv, within_s=WITHIN_S))
    return answer


async def _h2load(
    url: str, message: bytes, clients: int, directory: Path, socket: Path | None = None
) -> Measured:
    traffic = h2load.Traffic(connections=clients, streams=1, seconds=SECONDS)
    answered = await h2load.call(url, message, traffic, directory, socket)
    return {"per_second": answered.per_second, "p50_ms": answered.p50_ms, "p99_ms": answered.p99_ms}


async def _proposals(order: Order) -> Figures:
    async with running_cluster(fresh(order.directory, "p")) as cluster:
        leader = await cluster.leader()
        status = await cluster.status(leader)
        assert status is not None
        row = next(host for host in status.hosts if host.host == leader)
        proposer = next(host.host for host in status.hosts if host.host != leader)
        settings = str(cluster.settings_path(proposer))

        def by(clients: int) -> Callable[[], Awaitable[Measured]]:
            return lambda: _python("propose", clients, settings, row.member, row.address)

        return await _repeat(order, "proposals", {f"{clients}_clients": by(clients) for clients in CLIENTS})


async def _documents(order: Order) -> Figures:
    async with running_cluster(fresh(order.directory, "d")) as cluster:
        socket = _admin_socket(cluster, await cluster.leader())
        message = config_sync_pb2.PutDocumentRequest(name=NAMES[0], value=VALUE).SerializeToString()

        def fast(clients: int) -> Callable[[], Awaitable[Measured]]:
            return lambda: _h2load(
                f"http://localhost{PUT_DOCUMENT}", message, clients, order.directory, socket
            )

        def python(clients: int) -> Callable[[], Awaitable[Measured]]:
            return lambda: _python("documents", clients, str(socket))

        return await _repeat(order, "documents", _two_kinds(python, fast))


def _admin_socket(cluster: Cluster, host: str) -> Path:
    return cluster.directory / host / "run" / "admin.sock"


async def _etcd(order: Order) -> Figures:
    async with running_etcd(fresh(order.directory, "e")) as etcd:
        leader, _ = await etcd.wait_leader()
        address = etcd.address(leader)
        message = PutRequest(key=NAMES[0].encode(), value=VALUE).SerializeToString()

        def fast(clients: int) -> Callable[[], Awaitable[Measured]]:
            return lambda: _h2load(f"http://{address}{PUT}", message, clients, order.directory)

        def python(clients: int) -> Callable[[], Awaitable[Measured]]:
            return lambda: _python("etcd", clients, address)

        return await _repeat(order, "etcd", _two_kinds(python, fast))


Row = Callable[[int], Callable[[], Awaitable[Measured]]]


def _two_kinds(python: Row, fast: Row) -> dict[str, Callable[[], Awaitable[Measured]]]:
    rows = {f"python_{clients}_clients": python(clients) for clients in CLIENTS}
    return rows | {f"h2load_{clients}_clients": fast(clients) for clients in CLIENTS}


async def _pysyncobj(order: Order) -> Figures:
    if importlib.util.find_spec("pysyncobj") is None:
        raise CannotMeasure("pysyncobj is not installed: pip install pysyncobj")
    members = [f"127.0.80.81:{port}" for port in (7601, 7602, 7603)]
    module = (sys.executable, "-m", "benchmarks.pysyncobj_member")
    async with Programs(fresh(order.directory, "y")) as programs:
        for own in members[1:]:
            others = ",".join(each for each in members if each != own)
            await programs.start(own.replace(":", "-"), (*module, own, others, "0", "0"))

        def by(clients: int) -> Callable[[], Awaitable[Measured]]:
            async def measured() -> Measured:
                argv = (*module, members[0], ",".join(members[1:]), str(clients), str(SECONDS))
                answer: Measured = json.loads(await output_of(argv, within_s=WITHIN_S))
                return answer

            return measured

        return await _repeat(order, "pysyncobj", {f"{clients}_clients": by(clients) for clients in CLIENTS})


def targets(figures: Figures) -> Sequence[Target]:
    """What the design wants."""
    return [
        at_least(
            f"proposals / etcd, {clients} clients",
            dig(figures, "ratios", f"proposals / etcd, {clients}_clients"),
            0.4,
        )
        for clients in CLIENTS
    ]


BENCHMARK: Final = Benchmark(
    "consensus", __doc__, ("proposals", "documents", "etcd", "pysyncobj"), measure, targets
)

if __name__ == "__main__":
    BENCHMARK.main()
