"""`python -m benchmarks [NAME …]`: all benchmarks, or some, one after the other.

With --json: one JSON object, a benchmark's answer under its name.
"""

import argparse
import importlib
import json
import signal
import sys
from typing import Final

from benchmarks.command import Benchmark, Figures

NAMES: Final = ("failover", "northbound", "consensus", "idle", "supervision", "db_failover", "db_overhead")


def _benchmark(name: str) -> Benchmark:
    found: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return found


def main() -> None:
    """Run what was asked for; what could not be measured is an error in its place, and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--runs", type=int, help="repetitions of each part (default: the benchmark's own)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answers: dict[str, Figures] = {}
    failed = False
    for name in chosen.names or NAMES:
        benchmark = _benchmark(name)
        try:
            answers[name] = benchmark.run(chosen.runs or benchmark.runs)
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:  # noqa: BLE001  # the others are still worth measuring
            failed = True
            answers[name] = {"benchmark": name, "error": f"{type(error).__name__}: {error}"}
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    print(json.dumps(answers, indent=None if chosen.json else 2), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
