"""How soon the end of an instance is noticed, and its replacement runs.

Parts: `ten` and `two_hundred` instances on one host; one after the other is killed with SIGKILL.

  replaced_ms  from the kill until the first instruction of the replacement's own program, as the
               program (backend.c) tells by a datagram. The end was noticed before that, so this
               bounds the time to notice from above.

The launcher between the two (own session, cgroup, no privileges gained) is most of it.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

from benchmarks.backend import compile_backend
from benchmarks.cluster import HOSTS, Cluster, running_cluster
from benchmarks.command import Benchmark, CannotMeasure, Figures, Order, fresh
from benchmarks.figures import MS, Target, at_most, dig, percentile, summary

HOST: Final = HOSTS[0]
SIZES: Final = {"ten": 10, "two_hundred": 200}
KILLS: Final = 100
#: Declared as stable, after which a restart is immediate again.
STABLE_S: Final = 1.0
PAUSE_S: Final = 0.03
GIVE_UP_S: Final = 5.0
SETUP_S: Final = 120.0
#: Instances of one service on one host are bounded, so several services share them.
PER_SERVICE: Final = 10

_SERVICE: Final = """\
[service]
name = "{name}"
command = ["{backend}"]
instances = {instances}
[service.env]
BENCH_TELL = "{tell}"
[service.restart]
stable = "{stable_ms}ms"
"""


@dataclass
class Witness:
    """The newest start of each instance's program."""

    pids: dict[str, int] = field(default_factory=dict)
    started_ns: dict[str, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take_datagram(self, listener: socket.socket) -> None:
        """A program has started."""
        instance, pid, at_ns = listener.recv(256).decode().split()
        self.pids[instance] = int(pid)
        self.started_ns[instance] = int(at_ns)
        self.changed.set()

    async def next_start(self, instance: str, after_ns: int) -> int | None:
        """When the instance started, first after *after_ns*; None: not in time."""
        try:
            async with asyncio.timeout(GIVE_UP_S):
                while self.started_ns[instance] <= after_ns:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return None
        return self.started_ns[instance]


async def measure(order: Order) -> Figures:
    """Every part that is wanted."""
    figures: Figures = {"kills_per_run": KILLS}
    for name, size in SIZES.items():
        if order.wants(name):
            try:
                figures[name] = await _part(order, name, size)
            except CannotMeasure as reason:
                figures[name] = {"result": None, "reason": str(reason)}
    return figures


async def _part(order: Order, name: str, size: int) -> Figures:
    directory = fresh(order.directory, name)
    backend = await compile_backend(directory)
    samples: list[float] = []
    missed = 0
    with _witness(directory / "tell") as witness:
        async with running_cluster(fresh(directory, "c"), hosts=(HOST,)) as cluster:
            await _declare(cluster, directory, backend, size)
            await cluster.wait_for(_all_started(witness, size), f"{size} instances run", SETUP_S)
            await asyncio.sleep(2 * STABLE_S)
            for number in range(order.runs):
                missed += await _kill_many(witness, samples)
                shown = f"p50 {percentile(samples, 0.5):.1f} ms, p99 {percentile(samples, 0.99):.1f} ms"
                order.say(f"{name} {number + 1}/{order.runs}: replaced {shown}, missed {missed}")
    figures = summary(samples, 2) or {}
    return {
        "instances": size,
        "kills": order.runs * KILLS,
        "missed": missed,
        "replaced_ms": {**figures, "p99": round(percentile(samples, 0.99), 2)},
    }


async def _declare(cluster: Cluster, directory: Path, backend: Path, size: int) -> None:
    file = directory / "victim.toml"
    for number in range(size // PER_SERVICE):
        text = _SERVICE.format(
            name=f"victim-{number}",
            backend=backend,
            instances=PER_SERVICE,
            tell=directory / "tell",
            stable_ms=int(STABLE_S * 1000),
        )
        file.write_text(text)
        await cluster.apply(file)


def _all_started(witness: Witness, size: int) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def started() -> bool:
        return len(witness.pids) >= size

    return started


@contextmanager
def _witness(path: Path) -> Iterator[Witness]:
    witness = Witness()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        loop.add_reader(listener, witness.take_datagram, listener)
        try:
            yield witness
        finally:
            loop.remove_reader(listener)


async def _kill_many(witness: Witness, samples: list[float]) -> int:
    """Kill one instance after the other, each stable; how many were not replaced in time."""
    missed = 0
    instances = sorted(witness.pids)
    for number in range(KILLS):
        instance = instances[number % len(instances)]
        running_s = (time.monotonic_ns() - witness.started_ns[instance]) / 1e9
        await asyncio.sleep(max(PAUSE_S, 1.5 * STABLE_S - running_s))
        killed_ns = time.monotonic_ns()
        os.kill(witness.pids[instance], SIGKILL)
        started_ns = await witness.next_start(instance, killed_ns)
        if started_ns is None:
            missed += 1
        else:
            samples.append((started_ns - killed_ns) / MS)
    return missed


def targets(figures: Figures) -> Sequence[Target]:
    """What the design wants."""
    return [
        at_most(f"{size} instances: replaced, ms p99", dig(figures, name, "replaced_ms", "p99"), 50)
        for name, size in SIZES.items()
    ]


BENCHMARK: Final = Benchmark("supervision", __doc__, tuple(SIZES), measure, targets, runs=1)

if __name__ == "__main__":
    BENCHMARK.main()
