"""How long northbound calls are disturbed when something dies, and how soon another leads.

Parts:
  leader_killed     SIGKILL of the leader's sidecar.
  replica_killed    SIGKILL of an echo instance on a host that does not lead.
  replica_frozen    SIGSTOP of an echo instance on a host that does not lead.
  transfer          leadership is handed over on purpose.
  leader_silent     the link of the leader's host goes down (network namespaces, netlink
                    virtual IP; needs root).
  etcd              beside it: etcd's leader is killed, at its defaults and at tight timers;
                    time until another leads, and until the next write succeeds.

Load: 200 calls/s through the virtual IP, four of five idempotent, plain gRPC with the
service configuration that Trellis ships, deadline 5 s.

  leader_ms   from the kill until a survivor says that it leads (asked each 10 ms).
  outage_ms   the longest time between two successive answers, less the normal 5 ms.
  over_ms     from the fault to the end of the last idempotent call that failed or took
              more than 50 ms.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from signal import Signals
from typing import Any, Final

from benchmarks import etcd
from benchmarks.cluster import HOSTS, Cluster, running_cluster
from benchmarks.command import ROOT, Benchmark, CannotMeasure, Figures, Order, fresh
from benchmarks.figures import MS, Target, at_most, dig, ratio, summary
from benchmarks.namespaces import client_namespace, network
from benchmarks.northbound_load import Load, Window, northbound_load
from mesh.errors import Unavailable

ECHO: Final = ROOT / "services" / "echo" / "echo.toml"
LOOK_S: Final = 0.01
LEADER_S: Final = 15.0
#: How long after the fault calls are still counted to it.
WINDOW_S: Final = 4.0
SILENT_WINDOW_S: Final = 10.0
#: Before the fault, so that the load is settled.
CALM_S: Final = 1.0

Run = Callable[[Cluster, Load], Awaitable[dict[str, Any]]]


async def measure(order: Order) -> Figures:
    """Every part that is wanted."""
    figures: Figures = {}
    loopback: dict[str, Run] = {
        "leader_killed": _kill_leader,
        "replica_killed": _kill_replica,
        "replica_frozen": _freeze_replica,
        "transfer": _transfer,
    }
    wanted = {name: run for name, run in loopback.items() if order.wants(name)}
    if wanted:
        async with running_cluster(fresh(order.directory, "c")) as cluster:
            await _deploy(cluster)
            for name, run in wanted.items():
                figures[name] = await _repeat(order, name, cluster, run)
    if order.wants("leader_silent"):
        figures["leader_silent"] = await _or_reason(_silent(order))
    if order.wants("etcd"):
        figures["etcd"] = await _or_reason(etcd.kill_leaders(order))
    figures["ratios"] = _ratios(figures)
    return figures


def _ratios(figures: Figures) -> Figures:
    ours = dig(figures, "leader_killed", "leader_ms", "median")
    return {
        f"leader_ms / etcd {kind}": ratio(ours, dig(figures, "etcd", kind, "leader_ms", "median"))
        for kind in ("defaults", "tight")
    }


async def _or_reason(part: Awaitable[Figures]) -> Figures | dict[str, str | None]:
    try:
        return await part
    except CannotMeasure as reason:
        return {"result": None, "reason": str(reason)}


async def _deploy(cluster: Cluster) -> None:
    await cluster.apply(ECHO)
    await cluster.wait_whole(["echo"])


async def _repeat(
    order: Order, name: str, cluster: Cluster, run: Run, enter: tuple[str, ...] = ()
) -> Figures:
    results: list[dict[str, Any]] = []
    async with northbound_load(cluster.virtual_address, enter=enter) as load:
        for number in range(order.runs):
            await cluster.wait_whole(["echo"])
            await load.wait_steady()
            await asyncio.sleep(CALM_S)
            result = await run(cluster, load)
            results.append(result)
            shown = {key: round(value, 1) for key, value in result.items() if isinstance(value, float | int)}
            order.say(f"{name} {number + 1}/{order.runs}: {shown} {result['codes'] or ''}")
    return _summed_up(results)


def _summed_up(results: list[dict[str, Any]]) -> Figures:
    """Times as medians, counts as sums."""
    figures: Figures = {}
    for key in results[0]:
        values = [result[key] for result in results]
        if key == "codes":
            figures[key] = {
                code: sum(each.get(code, 0) for each in values) for each in values for code in each
            }
        elif key.endswith("_ms"):
            figures[key] = summary([value for value in values if value is not None])
        else:
            figures[key] = sum(values)
    return figures


def _seen(window: Window) -> dict[str, Any]:
    return {
        "outage_ms": window.outage_ms,
        "over_ms": window.over_ms,
        "slowest_idempotent_ms": window.slowest_ms(idempotent=True),
        "slowest_other_ms": window.slowest_ms(idempotent=False),
        "calls": len(window.calls),
        "failed_idempotent": window.failed_idempotent,
        "failed_other": window.failed_other,
        "codes": window.codes(),
    }


# ---- the faults -----------------------------------------------------------------


async def _kill_leader(cluster: Cluster, load: Load) -> dict[str, Any]:
    leader = await cluster.leader()
    before = await cluster.status(leader)
    assert before is not None
    killed_ns = await cluster.signal(leader, Signals.SIGKILL)
    led_ns = await _next_leader(cluster, leader, before.term)
    window = await load.window(killed_ns, WINDOW_S)
    await cluster.start(leader)
    return {"leader_ms": (led_ns - killed_ns) / MS, **_seen(window)}


async def _next_leader(cluster: Cluster, old: str, term: int) -> int:
    """When a survivor first says that it leads in a later term."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def look(host: str) -> None:
        while not found.done():
            status = await cluster.status(host)
            if status and status.leader == host and status.term > term and not found.done():
                found.set_result(time.monotonic_ns())
            await asyncio.sleep(LOOK_S)

    async with asyncio.TaskGroup() as looking:
        tasks = [looking.create_task(look(host), name=f"look:{host}") for host in HOSTS if host != old]
        try:
            return await asyncio.wait_for(found, LEADER_S)
        except TimeoutError:
            raise Unavailable(f"nobody leads {LEADER_S:g} s after {old} was killed") from None
        finally:
            for task in tasks:
                task.cancel()


async def _kill_replica(cluster: Cluster, load: Load) -> dict[str, Any]:
    pid = await _replica(cluster)
    killed_ns = _send(pid, Signals.SIGKILL)
    return _seen(await load.window(killed_ns, WINDOW_S))


async def _freeze_replica(cluster: Cluster, load: Load) -> dict[str, Any]:
    pid = await _replica(cluster)
    frozen_ns = _send(pid, Signals.SIGSTOP)
    try:
        return _seen(await load.window(frozen_ns, WINDOW_S))
    finally:
        # Its own liveness probe may have had it replaced by now.
        with contextlib.suppress(ProcessLookupError):
            _send(pid, Signals.SIGCONT)


async def _replica(cluster: Cluster) -> int:
    leader = await cluster.leader()
    return await cluster.instance_pid(next(host for host in HOSTS if host != leader), "echo")


def _send(pid: int, number: Signals) -> int:
    at_ns = time.monotonic_ns()
    os.kill(pid, number)
    return at_ns


async def _transfer(cluster: Cluster, load: Load) -> dict[str, Any]:
    leader = await cluster.leader()
    to = HOSTS[(HOSTS.index(leader) + 1) % len(HOSTS)]
    asked_ns = time.monotonic_ns()
    took_ms = await cluster.transfer(to)
    return {"transfer_ms": took_ms, **_seen(await load.window(asked_ns, WINDOW_S))}


async def _silent(order: Order) -> Figures:
    directory = fresh(order.directory, "n")
    async with network(HOSTS) as lan, running_cluster(directory, net=lan.net) as cluster:
        await _deploy(cluster)

        async def cut(cluster: Cluster, load: Load) -> dict[str, Any]:
            leader = await cluster.leader()
            cut_ns = await lan.link(leader, up=False)
            try:
                return _seen(await load.window(cut_ns, SILENT_WINDOW_S))
            finally:
                await lan.link(leader, up=True)

        return await _repeat(order, "leader_silent", cluster, cut, enter=client_namespace(lan))


def targets(figures: Figures) -> Sequence[Target]:
    """What the design wants."""
    return (
        at_most(
            "leader killed: new leader, ms p50", dig(figures, "leader_killed", "leader_ms", "median"), 200
        ),
        at_most("leader killed: outage, ms p50", dig(figures, "leader_killed", "outage_ms", "median"), 400),
        at_most(
            "leader killed: failed idempotent calls", dig(figures, "leader_killed", "failed_idempotent"), 0
        ),
        at_most(
            "replica killed: failed idempotent calls", dig(figures, "replica_killed", "failed_idempotent"), 0
        ),
        at_most(
            "replica frozen: failed idempotent calls", dig(figures, "replica_frozen", "failed_idempotent"), 0
        ),
        at_most("replica frozen: over, ms p50", dig(figures, "replica_frozen", "over_ms", "median"), 300),
        at_most("transfer: gap, ms p50", dig(figures, "transfer", "outage_ms", "median"), 100),
        at_most("transfer: failed idempotent calls", dig(figures, "transfer", "failed_idempotent"), 0),
        at_most("transfer: other failed calls", dig(figures, "transfer", "failed_other"), 0),
        at_most("leader silent: outage, ms p50", dig(figures, "leader_silent", "outage_ms", "median"), 3000),
    )


BENCHMARK: Final = Benchmark(
    "failover",
    __doc__,
    ("leader_killed", "replica_killed", "replica_frozen", "transfer", "leader_silent", "etcd"),
    measure,
    targets,
    runs=5,
)

if __name__ == "__main__":
    BENCHMARK.main()
