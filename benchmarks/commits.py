"""Commits on two ways to the same database, one on each in turn, so that both meet the same machine.

`python -m benchmarks.commits ORDER` reads ORDER, a JSON object (it bears passwords, so it is no argument):

  urls    a name for each way, and where it leads
  count   commits on each

and prints one JSON object: for each name its milliseconds, p50 and p99. A commit is one INSERT by itself.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.figures import MS, percentile

WARM_UP: Final = 50
_CONNECT_S: Final = 5


def main() -> None:
    """Connect, warm up, measure."""
    order = json.loads(Path(sys.argv[1]).read_text())
    ways = {
        name: psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_S)
        for name, url in order["urls"].items()
    }
    for name, connection in ways.items():
        connection.prepare_threshold = 0
        for _ in range(WARM_UP):
            _commit_ms(connection, name)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(order["count"]):
        for name, connection in ways.items():
            took[name].append(_commit_ms(connection, name))
    shown = {
        name: {"p50": percentile(each, 0.5), "p99": percentile(each, 0.99)} for name, each in took.items()
    }
    print(json.dumps(shown))


def _commit_ms(connection: psycopg.Connection[Any], name: str) -> float:
    began_ns = time.monotonic_ns()
    connection.execute("INSERT INTO commits (way) VALUES (%s)", (name,))
    return (time.monotonic_ns() - began_ns) / MS


if __name__ == "__main__":
    main()
