"""Runs seeds: one by one or on several processors, with what was found and measured.

One run is a function of its `Job`; so is its trace, whether or not it is drawn or measured.
"""

import gc
import multiprocessing
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import structlog

from tests.sim.checkers import ALL_CHECKERS
from tests.sim.outages import Outages
from tests.sim.phases import Outcome, Run, draw_plan
from tests.sim.picture import Recorder, draw
from tests.sim.picture.about import about
from tests.sim.profiles import SWARM, make_run
from tests.sim.timing import DEFAULT, Timing
from tests.sim.trace import Checker, Violation

#: Simulated hours of one seed.
HOURS: Final = 0.05
#: A process runs so many seeds, since it does not free what they leave.
RUNS_EACH: Final = 4
MODULE: Final = "python -m tests.sim"


@dataclass(frozen=True, slots=True)
class Found:
    """What was wrong in one run, as JSON has it."""

    seed: int
    kind: str
    checker: str
    text: str
    at_s: float
    again: str

    def show(self, tail: Iterable[object]) -> str:
        """For people."""
        events = "\n".join(f"  {each}" for each in tail)
        return (
            f"{events}\nseed {self.seed}, {self.at_s:.6f} s: {self.kind} ({self.checker})\n"
            f"  {self.text}\nAgain: {self.again}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "kind": self.kind,
            "checker": self.checker,
            "text": self.text,
            "at_seconds": self.at_s,
            "again": self.again,
        }


@dataclass(frozen=True, slots=True)
class Job:
    """One seed to be run."""

    seed: int
    hours: float
    is_checked: bool
    #: The kind of world: see profiles.py.
    profile: str = SWARM
    #: The swarm's timers, and the number of hosts; 0: drawn.
    timing: Timing = DEFAULT
    hosts: int = 0
    #: Where its picture goes; empty: none.
    html: str = ""
    #: What runs it; seed and hours are added.
    command: str = MODULE

    @property
    def again(self) -> str:
        """The command that repeats it."""
        told = f"{self.command} --seed {self.seed} --hours {self.hours:g}"
        if self.hosts:
            told += f" --hosts {self.hosts}"
        return told if self.profile == SWARM else f"{told} --profile {self.profile}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to, found, and measured."""

    outcome: Outcome
    found: Found | None = None
    elections: int = 0
    #: Milliseconds without a leader and without an owner, by `GAPS`.
    gaps: dict[str, list[float]] = field(default_factory=dict)


def simulate(job: Job) -> tuple[Outcome, Found | None]:
    """One run; what is found is printed on stderr at once."""
    result = examine(job)
    return result.outcome, result.found


def examine(job: Job) -> Result:
    """As `simulate`, with what was measured; the picture is written if the job wants one."""
    run = _make(job)
    outages, recorder = _observers(run)
    found = None
    try:
        outcome = run.run(job.hours * 3_600)
    except Violation as violation:
        kind = "liveness" if violation.is_liveness else "safety"
        found = _found(job, run, kind, violation.checker, violation.text)
    except Exception as bug:  # noqa: BLE001 - whatever it is, it is a finding
        text = "".join(traceback.format_exception(bug))
        found = _found(job, run, "crash", type(bug).__name__, text)
    if found is not None:
        outcome = run.outcome()
        print(found.show(run.world.tail), file=sys.stderr, flush=True)
    if recorder is not None:
        recorder.end(run.world.now)
        violation_json = None if found is None else {**found.as_json(), "at": run.world.now // 1_000}
        said = about(run, outcome, recorder, outages, f"{job.again} --html {job.html}", violation_json)
        Path(job.html).write_text(draw(recorder, said), encoding="utf-8")
    run.world.close()
    return Result(outcome, found, outages.elections, _by_kind(outages))


def _make(job: Job) -> Run:
    observers: list[type[Checker]] = [Outages, *([Recorder] if job.html else [])]
    # Before the checkers: what they raise ends the run.
    checkers = (*observers, *(ALL_CHECKERS if job.is_checked else ()))
    if job.profile != SWARM:
        return make_run(job.profile, job.seed, checkers)
    return Run(job.seed, checkers, draw_plan(job.seed, job.timing, job.hosts))


def _observers(run: Run) -> tuple[Outages, Recorder | None]:
    outages, *others = run.world.checkers
    assert isinstance(outages, Outages)
    outages.watch(run.world)
    recorder = others[0] if others and isinstance(others[0], Recorder) else None
    if recorder is not None:
        recorder.watch(run.world)
    return outages, recorder


def _by_kind(outages: Outages) -> dict[str, list[float]]:
    kinds: dict[str, list[float]] = {}
    for gap in outages.gaps:
        name = f"{'owner' if gap.name else 'leader'}-{'calm' if gap.is_calm else 'faults'}"
        kinds.setdefault(name, []).append(round(gap.ms, 1))
    return kinds


def _found(job: Job, run: Run, kind: str, checker: str, text: str) -> Found:
    return Found(job.seed, kind, checker, text, run.world.now / 1e9, job.again)


class Quiet:
    """No log lines, and no garbage collection in between."""

    def __enter__(self) -> None:
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=True
        )
        gc.collect()
        gc.freeze()  # what is imported is not looked at again after each run
        gc.disable()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        gc.enable()
        gc.collect()


def quietly(job: Job) -> Result:
    """One run, as `run_all` runs it."""
    with Quiet():
        return examine(job)


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    """Every job, in its order."""
    if len(jobs) == 1:
        yield quietly(jobs[0])
        return
    # Forked: all run the code that was read at the start, and what a run leaves goes with its process.
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, Quiet().__enter__, maxtasksperchild=RUNS_EACH) as pool:
        yield from pool.imap(examine, jobs)
