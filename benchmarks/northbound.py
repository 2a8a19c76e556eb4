"""What a northbound call costs: calls per second, and time added to each.

Paths, each with the same three instances of a backend written in C, on one machine:
  direct    to one instance.
  static    through a hand-written Envoy of one hop, least-request over the three.
  trellis   through the virtual IP: the leader's Envoy, least-request over the three, two
            of them behind mTLS on the other hosts (received at layer 4).
Parts:
  throughput  h2load, 10 connections x 10 streams, as fast as possible; all Envoys with the
              same number of threads.
  latency     h2load, 10 connections, 200 calls/s in all: what each path adds to direct, p50.
  xds         a Python gRPC client (C core): xds:///bench, served by the local sidecar (two of the
              three instances behind mTLS), against plain connections to the same three
              instances, called in turn, and to one of them.

Ratios are medians over the runs of the ratio within one run.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from trellis.echo.v1 import echo_pb2

from benchmarks import grpc_caller
from benchmarks.backend import compile_backend
from benchmarks.cluster import HOSTS, Cluster, running_cluster
from benchmarks.command import Benchmark, CannotMeasure, Figures, Order, fresh
from benchmarks.figures import Target, at_least, dig, summary
from benchmarks.h2load import Answered, Traffic, call
from benchmarks.programs import output_of
from benchmarks.static_envoy import envoy_argv, write_config
from mesh.errors import Unavailable

SERVICE: Final = "bench"
METHOD: Final = "/trellis.echo.v1.EchoService/Echo"
STATIC: Final = "127.0.80.70:8480"
#: Threads of every Envoy: the default of `[envoy] concurrency`.
CONCURRENCY: Final = 2
SATURATION: Final = Traffic(connections=10, streams=10, seconds=5)
TRICKLE: Final = Traffic(connections=10, streams=1, seconds=5, rate=20)
XDS_CONCURRENT, XDS_SECONDS = 32, 5.0

_DECLARATION: Final = """\
[service]
name = "{name}"
command = ["{backend}"]
instances = 3
[service.grpc]
module = "trellis.echo.v1.echo_pb2"
[service.probes]
startup = {{ kind = "grpc", interval = "100ms" }}
readiness = {{ kind = "grpc", interval = "1s" }}
"""


@dataclass(frozen=True)
class Paths:
    """The running cluster, and where each path begins."""

    cluster: Cluster
    directory: Path
    instances: Sequence[str]
    direct: str
    static: str
    trellis: str

    def starts(self) -> dict[str, str]:
        """Path → address that is called."""
        return {"direct": self.direct, "static": self.static, "trellis": self.trellis}


async def measure(order: Order) -> Figures:
    """Every part that is wanted, on one cluster."""
    parts: dict[str, Callable[[Order, Paths], Awaitable[Figures]]] = {
        "throughput": _throughput,
        "latency": _latency,
        "xds": _xds,
    }
    try:
        backend = await compile_backend(order.directory)
    except CannotMeasure as reason:
        return {"result": None, "reason": str(reason)}
    figures: Figures = {}
    async with running_cluster(fresh(order.directory, "c"), concurrency=CONCURRENCY) as cluster:
        paths = await _set_up(cluster, order.directory, backend)
        for name, part in parts.items():
            if not order.wants(name):
                continue
            try:
                figures[name] = await part(order, paths)
            except CannotMeasure as reason:
                figures[name] = {"result": None, "reason": str(reason)}
    return {"concurrency": CONCURRENCY, **figures}


async def _set_up(cluster: Cluster, directory: Path, backend: Path) -> Paths:
    declaration = directory / "bench.toml"
    declaration.write_text(_DECLARATION.format(name=SERVICE, backend=backend))
    await cluster.apply(declaration)
    await cluster.wait_whole([SERVICE])
    instances = [await _address(cluster, host) for host in HOSTS]
    config = directory / "static.json"
    write_config(config, STATIC, instances)
    await cluster.programs.start("static", envoy_argv(config, concurrency=CONCURRENCY))
    paths = Paths(cluster, directory, instances, instances[0], STATIC, cluster.virtual_address)
    for address in paths.starts().values():
        await cluster.wait_for(partial(_is_answering, address), f"{address} answers")
    return paths


async def _address(cluster: Cluster, host: str) -> str:
    status = await cluster.status(host)
    assert status is not None
    for service in status.services:
        for one in service.instances:
            if service.spec.name == SERVICE and f"@{host}#" in one.instance:
                return str(one.address)
    raise Unavailable(f"{SERVICE} does not run on {host}")


async def _is_answering(address: str) -> bool:
    try:
        await grpc_caller.call(address, 1, 0.01)
    except Exception:  # noqa: BLE001  # asked again until the deadline
        return False
    return True


async def _called(address: str, traffic: Traffic, directory: Path) -> Answered:
    message = echo_pb2.EchoRequest(message="benchmark").SerializeToString()
    return await call(f"http://{address}{METHOD}", message, traffic, directory)


async def _throughput(order: Order, paths: Paths) -> Figures:
    seen = await _each_path(order, "throughput", paths, SATURATION)
    rates = {name: [each.per_second for each in answers] for name, answers in seen.items()}
    return {
        **{f"{name}_per_second": summary(values, 0) for name, values in rates.items()},
        "ratios": {
            "trellis / static": _ratio(rates["trellis"], rates["static"]),
            "static / direct": _ratio(rates["static"], rates["direct"]),
        },
    }


async def _latency(order: Order, paths: Paths) -> Figures:
    seen = await _each_path(order, "latency", paths, TRICKLE)
    p50 = {name: [each.p50_ms for each in answers] for name, answers in seen.items()}
    added = {
        name: [through - direct for through, direct in zip(p50[name], p50["direct"], strict=True)]
        for name in ("static", "trellis")
    }
    return {
        **{f"{name}_p50_ms": summary(values, 3) for name, values in p50.items()},
        **{f"{name}_p99_ms": summary([each.p99_ms for each in answers], 3) for name, answers in seen.items()},
        **{f"{name}_added_p50_ms": summary(values, 3) for name, values in added.items()},
        "ratios": {"trellis added / static added": _ratio(added["trellis"], added["static"])},
    }


async def _each_path(order: Order, part: str, paths: Paths, traffic: Traffic) -> dict[str, list[Answered]]:
    """Run by run, one path after the other, so that a busy moment hits them all."""
    seen: dict[str, list[Answered]] = {name: [] for name in paths.starts()}
    for number in range(order.runs):
        for name, address in paths.starts().items():
            answered = await _called(address, traffic, paths.directory)
            seen[name].append(answered)
            order.say(
                f"{part} {number + 1}/{order.runs} {name}: {answered.per_second:.0f}/s,"
                f" p50 {answered.p50_ms:.2f} ms, p99 {answered.p99_ms:.2f} ms"
            )
    return seen


async def _xds(order: Order, paths: Paths) -> Figures:
    bootstrap = paths.directory / "xds.json"
    await paths.cluster.trellis(HOSTS[0], "xds-bootstrap", "--output", str(bootstrap))
    targets = {"one": paths.direct, "direct": f"ipv4:{','.join(paths.instances)}", "xds": f"xds:///{SERVICE}"}
    rates: dict[str, list[float]] = {name: [] for name in targets}
    for number in range(order.runs):
        for name, target in targets.items():
            answer = await _call_from_python(target, bootstrap)
            rates[name].append(answer["per_second"])
            order.say(
                f"xds {number + 1}/{order.runs} {name}: {answer['per_second']:.0f}/s,"
                f" p50 {answer['p50_ms']:.2f} ms"
            )
    return {
        **{f"{name}_per_second": summary(values, 0) for name, values in rates.items()},
        "ratios": {
            "xds / direct": _ratio(rates["xds"], rates["direct"]),
            "xds / one": _ratio(rates["xds"], rates["one"]),
        },
    }


async def _call_from_python(target: str, bootstrap: Path) -> dict[str, Any]:
    argv = (sys.executable, "-m", "benchmarks.grpc_caller", target, str(XDS_CONCURRENT), str(XDS_SECONDS))
    said = await output_of(argv, within_s=60, extra={"GRPC_XDS_BOOTSTRAP": str(bootstrap)})
    answer: dict[str, Any] = json.loads(said)
    return answer


def _ratio(parts: Sequence[float], wholes: Sequence[float]) -> Figures | None:
    return summary([part / whole for part, whole in zip(parts, wholes, strict=True) if whole > 0], 3)


def targets(figures: Figures) -> Sequence[Target]:
    """What the design wants."""
    return (
        at_least(
            "throughput: trellis / static Envoy",
            dig(figures, "throughput", "ratios", "trellis / static", "median"),
            0.8,
        ),
        at_least("throughput: xds / direct", dig(figures, "xds", "ratios", "xds / direct", "median"), 0.9),
    )


BENCHMARK: Final = Benchmark("northbound", __doc__, ("throughput", "latency", "xds"), measure, targets)

if __name__ == "__main__":
    BENCHMARK.main()
