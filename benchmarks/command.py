"""The command line that every benchmark has: --runs, --json, --only; progress goes to standard error.

Invariant: with --json, standard output is one JSON object and nothing else.
"""

import argparse
import asyncio
import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Target

#: Fixed addresses and two cores: two benchmarks at once would measure each other.
LOCK: Final = Path(tempfile.gettempdir()) / "trellis-benchmarks.lock"
ROOT: Final = Path(__file__).resolve().parent.parent

Figures = dict[str, Any]


class CannotMeasure(Exception):  # a sentence, like the names of mesh.errors
    """A part that needs what is not here; the figure is null and this sentence its reason."""


@dataclass(frozen=True)
class Order:
    """What the caller asked for."""

    runs: int
    #: Parts to run; empty: all.
    only: tuple[str, ...]
    directory: Path
    say: Callable[[str], None]

    def wants(self, part: str) -> bool:
        """Whether to run this part."""
        return not self.only or part in self.only


@dataclass(frozen=True)
class Benchmark:
    """One benchmark as the command line sees it."""

    name: str
    about: str
    parts: tuple[str, ...]
    measure: Callable[[Order], Coroutine[Any, Any, Figures]]
    targets: Callable[[Figures], Sequence[Target]]
    runs: int = 3

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Entry point of the module; exits 0 when everything could be run, 130 after Ctrl-C."""
        chosen = self._parser().parse_args(argv)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            answer = self.run(chosen.runs, tuple(chosen.only))
        except KeyboardInterrupt:
            sys.exit(130)
        if chosen.json:
            print(json.dumps(answer), flush=True)
        else:
            print(json.dumps(answer, indent=2), flush=True)

    def run(self, runs: int, only: tuple[str, ...] = ()) -> Figures:
        """Measure and return the whole answer."""
        with _alone(), _directory() as directory:
            order = Order(runs, only, directory, _Progress(self.name))
            started = time.monotonic()
            figures = asyncio.run(self.measure(order))
        return {
            "benchmark": self.name,
            "runs": runs,
            "seconds": round(time.monotonic() - started, 1),
            "machine": machine(),
            **figures,
            "targets": [target.as_json() for target in self.targets(figures)],
        }

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{self.name}",
            description=self.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"Example: python -m benchmarks.{self.name} --runs 1 --only {self.parts[0]}",
        )
        parser.add_argument("--runs", type=_positive, default=self.runs, help="repetitions (%(default)s)")
        parser.add_argument(
            "--only", action="append", choices=self.parts, default=[], help="just this part; may be repeated"
        )
        parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
        return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


@contextmanager
def _alone() -> Iterator[None]:
    with LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"Another benchmark runs (it holds {LOCK}); two at once would measure each other.")
        yield


@contextmanager
def _directory() -> Iterator[Path]:
    """A short path: sockets lie below it. Kept when the benchmark fails, for its logs."""
    directory = Path(tempfile.mkdtemp(prefix="tb-"))
    try:
        yield directory
    except BaseException:
        print(f"Logs: {directory}", file=sys.stderr, flush=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


class _Progress:
    """Lines on standard error with the time since the start."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"{self._name} {time.monotonic() - self._started:6.1f} s  {line}", file=sys.stderr, flush=True)


def machine() -> Figures:
    """What the figures were measured on, and how busy it was before."""
    return {
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def fresh(directory: Path, name: str) -> Path:
    """A new empty directory for one part."""
    path = directory / name
    path.mkdir(parents=True)
    return path
