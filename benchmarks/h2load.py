"""h2load (nghttp2) as a gRPC client: a load generator in C that costs little itself.

Source: h2load(1). `--log-file` writes start, status and microseconds of each request.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import percentile
from benchmarks.programs import find, output_of
from mesh.errors import Unavailable

WARM_UP_S: Final = 1
#: More than the measuring time: connecting and ending.
OVERTIME_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What to send, and how much of it at once."""

    connections: int
    streams: int
    seconds: int
    #: Calls per second on each connection; 0: as many as possible.
    rate: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it; every call was answered."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def call(
    url: str, message: bytes, traffic: Traffic, directory: Path, socket: Path | None = None
) -> Answered:
    """Send the same gRPC message again and again; *socket* is a UNIX socket to connect to instead.

    Fails: `CannotMeasure` without h2load; `Unavailable` when calls failed.
    """
    body = directory / "h2load.body"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    log = directory / "h2load.log"
    log.unlink(missing_ok=True)
    argv = [
        find("h2load", "apt install nghttp2-client"),
        *("-c", str(traffic.connections), "-m", str(traffic.streams), "-d", str(body)),
        *("-D", str(traffic.seconds), f"--warm-up-time={WARM_UP_S}", f"--log-file={log}"),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        *((f"--rps={traffic.rate}",) if traffic.rate else ()),
        *((f"--base-uri=unix:{socket}",) if socket else ()),
        url,
    ]
    said = await output_of(argv, within_s=traffic.seconds + WARM_UP_S + OVERTIME_S)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    if counts is None:
        raise Unavailable(f"h2load said nothing that can be read about {url}: {said[-400:]}")
    _done, succeeded, *bad = (int(number) for number in counts.groups())
    if any(bad) or not succeeded:
        raise Unavailable(f"calls to {url} failed: {counts.group(0)}")
    took = [int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines()]
    return Answered(succeeded / traffic.seconds, percentile(took, 0.5), percentile(took, 0.99))
