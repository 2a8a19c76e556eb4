"""One member of a pysyncobj group: `python -m benchmarks.pysyncobj_member OWN OTHERS CLIENTS SECONDS`.

Keeps 100 values by name. When CLIENTS is not 0 it writes with so many commands outstanding
and prints one JSON object; else it serves until its input ends. Nothing of it is durable: pysyncobj
keeps its journal in memory unless told otherwise, which favours it.
"""

import itertools
import json
import sys
import threading
import time
from typing import Any

from pysyncobj import SyncObj, replicated

from benchmarks.figures import percentile
from benchmarks.writers import NAMES, VALUE

READY_S = 20.0
POLL_S = 0.001


class Values(SyncObj):  # type: ignore[misc]  # untyped package
    """What is replicated."""

    def __init__(self, own: str, others: list[str]) -> None:
        super().__init__(own, others)
        self._values: dict[str, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, name: str, value: bytes) -> None:
        """Write one value."""
        self._values[name] = value


def write(values: Values, clients: int, seconds: float) -> dict[str, float]:
    """Keep *clients* commands outstanding for so long."""
    took: list[float] = []
    names = itertools.cycle(NAMES)
    end = time.perf_counter() + seconds

    def send() -> None:
        began = time.perf_counter()

        def answered(_result: Any, error: int) -> None:
            now = time.perf_counter()
            if error == 0 and now < end:
                took.append(now - began)
            if now < end:
                send()

        values.put(next(names), VALUE, callback=answered)

    for _ in range(clients):
        send()
    while time.perf_counter() < end:
        _pause(0.05)
    return {
        "per_second": len(took) / seconds,
        "p50_ms": percentile(took, 0.5) * 1000 if took else 0.0,
        "p99_ms": percentile(took, 0.99) * 1000 if took else 0.0,
    }


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def main() -> None:
    """Serve, or write and print."""
    own, others, clients, seconds = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), float(sys.argv[4])
    values = Values(own, others)
    if not clients:
        while True:
            _pause(60)
    deadline = time.monotonic() + READY_S
    while not values.isReady():
        if time.monotonic() > deadline:
            sys.exit("the group has no leader")
        _pause(0.02)
    print(json.dumps(write(values, clients, seconds)), flush=True)
    values.destroy()


if __name__ == "__main__":
    main()
