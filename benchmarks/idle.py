"""What a sidecar costs while nothing happens: share of one core and resident memory.

Parts:
  five         three hosts with five services: echo (gRPC probes, three instances), reporter
               (active-standby) and three that cost nothing themselves (gRPC probe each second).
  two_hundred  three hosts with 200 services that cost nothing themselves, an instance of each on
               every host, gRPC probe each second.
  etcd         beside it: each of three idle members.
  supervisord  beside it, where it is installed: with five programs.

The sidecar, its fence process and its Envoy are told apart; of the three hosts the busiest
counts, which is the leader. CPU is user and system time over the wall time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.backend import compile_backend
from benchmarks.cluster import HOSTS, Cluster, running_cluster
from benchmarks.command import ROOT, Benchmark, CannotMeasure, Figures, Order, fresh
from benchmarks.etcd import MEMBERS, running_etcd
from benchmarks.figures import Target, at_most, dig, summary
from benchmarks.programs import Programs, find

WINDOW_S: Final = 20.0
#: After the last service became ready: back-off of first probes, caches, certificates.
SETTLE_S: Final = 10.0
MIB: Final = 1 << 20
MANY: Final = 200
MANY_SETUP_S: Final = 180.0
#: Declared in files of so many, so that none grows large.
BATCH: Final = 20

_SERVICE: Final = """\
[[service]]
name = "{name}"
command = ["{backend}"]
instances = 3
[service.grpc]
services = ["bench.{grpc_name}"]
[service.probes]
startup = {{ kind = "grpc", interval = "1s" }}
readiness = {{ kind = "grpc", interval = "1s" }}
"""

Processes = dict[str, list[psutil.Process]]


async def measure(order: Order) -> Figures:
    """Every part that is wanted."""
    figures: Figures = {"window_s": WINDOW_S}
    parts: dict[str, Callable[[Order], Awaitable[Figures]]] = {
        "five": _five,
        "two_hundred": _two_hundred,
        "etcd": _etcd,
        "supervisord": _supervisord,
    }
    for name, part in parts.items():
        if order.wants(name):
            try:
                figures[name] = await part(order)
            except CannotMeasure as reason:
                figures[name] = {"result": None, "reason": str(reason)}
    return figures


async def _five(order: Order) -> Figures:
    backend = await compile_backend(order.directory)
    async with running_cluster(fresh(order.directory, "five")) as cluster:
        for name in ("echo/echo.toml", "reporter/reporter.toml"):
            await cluster.apply(ROOT / "services" / name)
        names = await _declare(cluster, order.directory, backend, 3)
        await cluster.wait_whole(["echo", *names])
        return await _sidecars(order, "five", cluster)


async def _two_hundred(order: Order) -> Figures:
    backend = await compile_backend(order.directory)
    async with running_cluster(fresh(order.directory, "many")) as cluster:
        await _declare(cluster, order.directory, backend, MANY)
        order.say(f"{MANY} instances are ready on each host")
        return await _sidecars(order, "two_hundred", cluster)


async def _declare(cluster: Cluster, directory: Path, backend: Path, count: int) -> list[str]:
    names: list[str] = []
    file = directory / "cheap.toml"
    for first in range(0, count, BATCH):
        numbers = range(first, min(count, first + BATCH))
        tables = [
            _SERVICE.format(name=f"cheap-{number}", grpc_name=f"Cheap{number}", backend=backend)
            for number in numbers
        ]
        file.write_text("\n".join(tables))
        names += await cluster.apply(file)
        # All at once would keep the machine from its heartbeats: it plays three hosts.
        await cluster.wait_whole(names, within_s=MANY_SETUP_S)
    return names


async def _sidecars(order: Order, part: str, cluster: Cluster) -> Figures:
    roles: Processes = {"sidecar": [], "fence": [], "envoy": []}
    for host in HOSTS:
        sidecar = psutil.Process(cluster.programs.pid(host))
        roles["sidecar"].append(sidecar)
        for child in sidecar.children():
            role = _role(child)
            if role:
                roles[role].append(child)
    return await _watch(order, part, roles)


def _role(process: psutil.Process) -> str | None:
    if process.name() == "envoy":
        return "envoy"
    return "fence" if any("fence_process" in word for word in process.cmdline()) else None


async def _watch(order: Order, part: str, roles: Processes) -> Figures:
    """Per role: CPU and memory of the busiest process, and of each."""
    await asyncio.sleep(SETTLE_S)
    seen: dict[str, list[list[float]]] = {role: [] for role in roles}
    for number in range(order.runs):
        shares = await _cpu_percent(roles)
        for role, percents in shares.items():
            seen[role].append(percents)
        shown = {role: [round(percent, 2) for percent in percents] for role, percents in shares.items()}
        order.say(f"{part} {number + 1}/{order.runs}: percent of a core {shown}")
    return {role: _figures(processes, seen[role]) for role, processes in roles.items() if processes}


def _figures(processes: list[psutil.Process], runs: list[list[float]]) -> dict[str, Any]:
    rss = [process.memory_info().rss / MIB for process in processes]
    return {
        "cpu_percent_busiest": summary([max(percents) for percents in runs], 2),
        "cpu_percent_each": summary([percent for percents in runs for percent in percents], 2),
        "rss_mib_largest": round(max(rss), 1),
        "rss_mib_each": summary(rss, 1),
    }


async def _cpu_percent(roles: Processes) -> dict[str, list[float]]:
    began = time.monotonic()
    before = {role: [_cpu_s(process) for process in processes] for role, processes in roles.items()}
    await asyncio.sleep(WINDOW_S)
    wall = time.monotonic() - began
    return {
        role: [
            100 * (_cpu_s(process) - was) / wall for process, was in zip(processes, before[role], strict=True)
        ]
        for role, processes in roles.items()
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _etcd(order: Order) -> Figures:
    async with running_etcd(fresh(order.directory, "etcd")) as etcd:
        members = [psutil.Process(etcd.programs.pid(member)) for member in MEMBERS]
        return await _watch(order, "etcd", {"member": members})


async def _supervisord(order: Order) -> Figures:
    program = find("supervisord", "pip install supervisor")
    directory = fresh(order.directory, "supervisord")
    programs = "\n".join(f"[program:idle{number}]\ncommand=sleep infinity" for number in range(5))
    config = directory / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={directory}/own.log\npidfile={directory}/own.pid\n{programs}\n"
    )
    async with Programs(directory) as running:
        pid = await running.start("supervisord", (program, "-n", "-c", str(config)))
        return await _watch(order, "supervisord", {"supervisord": [psutil.Process(pid)]})


def targets(figures: Figures) -> Sequence[Target]:
    """What the design wants."""

    def sidecar(part: str, *path: str) -> Any:
        return dig(figures, part, "sidecar", *path)

    return (
        at_most(
            "5 services: percent of a core, busiest sidecar",
            sidecar("five", "cpu_percent_busiest", "median"),
            2,
        ),
        at_most("5 services: MiB resident, largest sidecar", sidecar("five", "rss_mib_largest"), 120),
        at_most(
            "200 services on each host: percent of a core, busiest sidecar",
            sidecar("two_hundred", "cpu_percent_busiest", "median"),
            6,
        ),
    )


BENCHMARK: Final = Benchmark(
    "idle", __doc__, ("five", "two_hundred", "etcd", "supervisord"), measure, targets, runs=1
)

if __name__ == "__main__":
    BENCHMARK.main()
