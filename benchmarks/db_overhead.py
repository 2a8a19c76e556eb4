"""What the way through the local listener costs, and what looking after the database costs.

Three hosts on loopback; needs PostgreSQL. The client is on a host that is not the primary, so that a
call through its listener crosses its Envoy; the direct one goes straight to the primary's server.
Both use TLS, and each commit waits for one of two standbys.

Parts:
  commit   milliseconds of one INSERT by itself, on both ways in turn.
  pgbench  transactions per second of `pgbench -b simple-update` with eight clients, on both ways in turn.
  idle     share of one core of each host's sidecar, before a database is declared and after, and of
           everything that PostgreSQL runs. `manager_percent` is the largest difference of a host.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.cluster import HOSTS, Cluster
from benchmarks.command import Benchmark, CannotMeasure, Figures, Order, fresh
from benchmarks.database_hosts import PASSWORD, ROLE, ask_server
from benchmarks.figures import Target, at_least, at_most, dig, ratio, summary
from benchmarks.programs import output_of
from benchmarks.trellis_database import (
    declare,
    is_ready,
    running_with_database,
    socket_of,
    url_direct,
    url_through_listener,
)
from sidecar.postgres.engine.binaries import find_binaries
from sidecar.postgres.engine.layout import choose_user

COMMITS: Final = 1000
CLIENTS: Final = 8
THREADS: Final = 2
SCALE: Final = 10
PGBENCH_S: Final = 5
WINDOW_S: Final = 20.0
SETTLE_S: Final = 10.0
_PROGRAM_S: Final = 120.0
_TPS: Final = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_GET_READY_S: Final = 90.0


async def measure(order: Order) -> Figures:
    """Every part that is wanted."""
    figures: Figures = {}
    try:
        async with running_with_database(fresh(order.directory, "o")) as cluster:
            without = await _idle(order, cluster, "without") if order.wants("idle") else {}
            await declare(cluster)
            primary = await _wait_ready(cluster)
            if order.wants("idle"):
                figures["idle"] = _idle_figures(without, await _idle(order, cluster, "with"))
            if order.wants("commit") or order.wants("pgbench"):
                await _make(cluster, primary)
            if order.wants("commit"):
                figures["commit"] = await _commit(order, cluster, primary)
            if order.wants("pgbench"):
                figures["pgbench"] = await _pgbench(order, cluster, primary)
    except CannotMeasure as reason:
        return {"result": None, "reason": str(reason)}
    return figures


async def _wait_ready(cluster: Cluster) -> str:
    ready: list[str] = []

    async def look() -> bool:
        ready[:] = [host for host in HOSTS if await is_ready(cluster, host)]
        return bool(ready)

    await cluster.wait_for(look, "two standbys could take over", _GET_READY_S)
    return ready[0]


async def _make(cluster: Cluster, primary: str) -> None:
    at = socket_of(cluster, primary)
    for database, command in (
        ("postgres", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"),
        ("postgres", f"CREATE DATABASE {ROLE} OWNER {ROLE}"),
        (ROLE, "CREATE TABLE commits (number bigserial PRIMARY KEY, way text NOT NULL)"),
        (ROLE, f"GRANT ALL ON commits, commits_number_seq TO {ROLE}"),
    ):
        await asyncio.to_thread(ask_server, *at, database, command)


def _ways(cluster: Cluster, primary: str) -> dict[str, str]:
    client = next(host for host in HOSTS if host != primary)
    return {"direct": url_direct(cluster, primary), "listener": url_through_listener(cluster, client)}


# ---- commits and transactions --------------------------------------------------------


async def _commit(order: Order, cluster: Cluster, primary: str) -> Figures:
    wanted = order.directory / "commits.json"
    wanted.write_text(json.dumps({"urls": _ways(cluster, primary), "count": COMMITS}))
    argv = (sys.executable, "-m", "benchmarks.commits", str(wanted))
    seen: dict[str, dict[str, list[float]]] = {way: {"p50": [], "p99": []} for way in ("direct", "listener")}
    for number in range(order.runs):
        found = json.loads(await output_of(argv, within_s=_PROGRAM_S))
        for way, each in found.items():
            for which, value in each.items():
                seen[way][which].append(value)
        order.say(f"commit {number + 1}/{order.runs}: {_rounded(found)}")
    figures: Figures = {
        f"{way}_ms": {which: summary(values, 3) for which, values in each.items()}
        for way, each in seen.items()
    }
    figures["ratio"] = {
        which: _ratio_of(seen["listener"][which], seen["direct"][which]) for which in ("p50", "p99")
    }
    return figures


async def _pgbench(order: Order, cluster: Cluster, primary: str) -> Figures:
    program = find_binaries("", choose_user("")).folder / "pgbench"
    if not program.exists():
        return {"result": None, "reason": f"{program} is not installed"}
    ways = {way: url.replace(f":{PASSWORD}@", "@") for way, url in _ways(cluster, primary).items()}
    password = {"PGPASSWORD": PASSWORD}
    start = (str(program), "-i", "-q", "-s", str(SCALE), ways["direct"])
    await output_of(start, within_s=_PROGRAM_S, extra=password)
    seen: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(order.runs):
        # Whoever comes first in a run comes second in the next.
        for way in sorted(ways, reverse=number % 2 == 1):
            seen[way].append(await _tps(program, ways[way], password))
        order.say(f"pgbench {number + 1}/{order.runs}: {_rounded({way: seen[way][-1] for way in seen})}")
    return {
        **{f"{way}_tps": summary(values) for way, values in seen.items()},
        "ratio": _ratio_of(seen["listener"], seen["direct"]),
    }


async def _tps(program: Path, url: str, password: dict[str, str]) -> float:
    load = ("-n", "-b", "simple-update", "-c", str(CLIENTS), "-j", str(THREADS), "-T", str(PGBENCH_S))
    said = await output_of((str(program), *load, url), within_s=_PROGRAM_S, extra=password)
    found = _TPS.search(said)
    if found is None:
        raise CannotMeasure(f"pgbench said no figure: {said[-200:]}")
    return float(found[1])


def _ratio_of(part: list[float], whole: list[float]) -> float | None:
    return ratio(dig(summary(part, 3), "median"), dig(summary(whole, 3), "median"))


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    return round(found, 2)


# ---- idle ----------------------------------------------------------------------------


async def _idle(order: Order, cluster: Cluster, called: str) -> dict[str, list[dict[str, float]]]:
    """Of each window, per role: percent of a core by host."""
    await asyncio.sleep(SETTLE_S)
    seen: dict[str, list[dict[str, float]]] = {"sidecar": [], "postgres": []}
    for number in range(order.runs):
        before, began = _used(cluster), time.monotonic()
        await asyncio.sleep(WINDOW_S)
        wall_s, after = time.monotonic() - began, _used(cluster)
        for role, values in seen.items():
            values.append(
                {host: 100 * (after[role][host] - before[role][host]) / wall_s for host in after[role]}
            )
        shown = {role: _rounded(values[-1]) for role, values in seen.items()}
        order.say(f"idle {called} {number + 1}/{order.runs}: percent of a core {shown}")
    return seen


def _used(cluster: Cluster) -> dict[str, dict[str, float]]:
    """Seconds of CPU so far, by role and host."""
    used: dict[str, dict[str, float]] = {"sidecar": {}, "postgres": {}}
    for host in HOSTS:
        sidecar = psutil.Process(cluster.programs.pid(host))
        used["sidecar"][host] = _cpu_s(sidecar)
        servers = [child for child in sidecar.children() if child.name() == "postgres"]
        # A backend that ended meanwhile counts through its postmaster, which has waited for it.
        used["postgres"][host] = sum(
            _cpu_s(each) for server in servers for each in (server, *server.children())
        ) + sum(_waited_s(server) for server in servers)
    return used


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _waited_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


def _idle_figures(
    without: dict[str, list[dict[str, float]]], with_it: dict[str, list[dict[str, float]]]
) -> Figures:
    cost: dict[str, float] = {}
    for host in HOSTS:
        before = dig(summary([each[host] for each in without["sidecar"]], 2), "median")
        after = dig(summary([each[host] for each in with_it["sidecar"]], 2), "median")
        cost[host] = round(after - before, 2)
    return {
        "window_s": WINDOW_S,
        "without_percent": _busiest(without["sidecar"]),
        "with_percent": _busiest(with_it["sidecar"]),
        "postgres_percent": _busiest(with_it["postgres"]),
        "manager_percent_each": cost,
        "manager_percent": max(cost.values()),
    }


def _busiest(windows: list[dict[str, float]]) -> Any:
    return summary([max(each.values()) for each in windows], 2)


def targets(figures: Figures) -> Sequence[Target]:
    """What the design wants."""
    return (
        at_most("commit: listener / direct, p50", dig(figures, "commit", "ratio", "p50"), 1.5),
        at_least("pgbench: listener / direct", dig(figures, "pgbench", "ratio"), 0.85),
        at_most("idle: percent of a core, manager", dig(figures, "idle", "manager_percent"), 1),
    )


BENCHMARK: Final = Benchmark("db_overhead", __doc__, ("commit", "pgbench", "idle"), measure, targets, runs=5)

if __name__ == "__main__":
    BENCHMARK.main()
