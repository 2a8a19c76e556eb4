"""Many seeds: how far it is, and results kept in a file so that a run which was ended can go on.

Results are of the code that gave them: with any other, the file begins anew.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.sim.phases import Outcome
from tests.sim.running import Found, Job, Result, run_all
from tests.sim.summary import Summary

#: The folder that holds `mesh`, `sidecar` and `tests`.
ROOT: Final = Path(__file__).parents[2]
#: What a result depends on.
SOURCES: Final = ("mesh", "sidecar", "tests/sim")
TELL_EACH_S: Final = 15.0


@cache
def code_digest() -> str:
    """SHA-256 over all that runs in a simulation."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.name.startswith("test_"):
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


class Kept:
    """Results in a file, one JSON line each after a first one that says of which code they are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = code_digest()
        self.results: dict[str, Result] = {}
        self.wall_s = 0.0
        first = json.dumps({"code": self._digest})
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # Without its end, a line was under way when the run was ended.
        whole = [line for line in lines if line.endswith("\n")]
        kept = whole[1:] if whole[:1] == [f"{first}\n"] else []
        self._load(kept)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join([f"{first}\n", *kept]), encoding="utf-8")

    def _load(self, lines: Sequence[str]) -> None:
        for line in lines:
            row = json.loads(line)
            self.results[row["job"]] = _result(row)
            self.wall_s += row["wall_s"]

    def add(self, job: Job, result: Result, wall_s: float) -> None:
        """Keep one."""
        self.results[_key(job)] = result
        self.wall_s += wall_s
        row = {"job": _key(job), "wall_s": round(wall_s, 4), **asdict(result)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, job: Job) -> Result | None:
        """What this job came to earlier."""
        return self.results.get(_key(job))


def _key(job: Job) -> str:
    return f"{job.again} {job.is_checked}"


def _result(row: dict[str, Any]) -> Result:
    found = row["found"]
    return Result(
        outcome=Outcome(**row["outcome"]),
        found=None if found is None else Found(**found),
        elections=row["elections"],
        gaps=row["gaps"],
    )


def run_campaign(
    jobs: Sequence[Job], processes: int, kept: Kept | None, tell: Callable[[Summary], None]
) -> tuple[Summary, float]:
    """Run what has not been run; the sum, and the seconds that all of it took."""
    began = time.monotonic()
    todo = [job for job in jobs if kept is None or kept.of(job) is None]
    fresh: Iterator[Result] = run_all(todo, processes)
    total, last = Summary(), began
    for job in jobs:
        earlier = kept.of(job) if kept is not None else None
        result = earlier or next(fresh)
        if kept is not None and earlier is None:
            now = time.monotonic()
            kept.add(job, result, now - last)
            last = now
        total.add(result)
        tell(total)
    wall_s = kept.wall_s if kept is not None else time.monotonic() - began
    return total, wall_s


class Progress:
    """A line now and then: how far, how fast, how long it will take."""

    def __init__(self, seeds: int, say: Callable[[str], None], each_s: float = TELL_EACH_S) -> None:
        self._seeds = seeds
        self._say = say
        self._each_s = each_s
        self._last = self._began = time.monotonic()
        self._first: tuple[float, int, float] | None = None

    def tell(self, total: Summary) -> None:
        """Once in a while, say it."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, total.seeds, total.simulated_s)
        if now - self._last < self._each_s and total.seeds < self._seeds:
            return
        if now - self._began < self._each_s:
            return  # short runs need no progress
        self._last = now
        self._say(self.line(total, now))

    def line(self, total: Summary, now: float) -> str:
        """The line. The rate counts from the first seed that was run here."""
        began, seeds, simulated = self._first or (now, 0, 0.0)
        rate = (total.simulated_s - simulated) / max(now - began, 1e-9)
        left_s = (self._seeds - total.seeds) * (now - began) / max(total.seeds - seeds, 1)
        return (
            f"{total.seeds:,} of {self._seeds:,} seeds, {total.simulated_s / 3_600:,.1f} cluster-hours,"
            f" {rate:,.0f} simulated s/s, {len(total.violations)} violations, {_clock(left_s)} left"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
