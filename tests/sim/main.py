"""`python -m tests.sim`: simulate clusters, seed after seed, and say in one JSON line what was found.

Exit code: 0 clean, 1 production code raised what it must not, 2 a safety promise was broken, 3 a healed
majority did not get on.
"""

import argparse
import gc
import hashlib
import json
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from tests.sim.checkers import ALL_CHECKERS
from tests.sim.phases import Outcome, Run
from tests.sim.profiles import PROFILES, SWARM, hours_of, make_run
from tests.sim.trace import Checker, Violation

CLEAN: Final = 0
BUG: Final = 1
SAFETY: Final = 2
LIVENESS: Final = 3
#: Simulated hours of one seed.
HOURS: Final = 0.04


@dataclass(frozen=True, slots=True)
class Found:
    """What was wrong in one run, as JSON has it."""

    seed: int
    kind: str
    checker: str
    text: str
    at_s: float
    again: str

    def show(self, tail: Sequence[object]) -> str:
        """For people."""
        events = "\n".join(f"  {each}" for each in tail)
        return (
            f"{events}\nseed {self.seed}, {self.at_s:.6f} s: {self.kind} ({self.checker})\n"
            f"  {self.text}\nAgain: {self.again}"
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One seed to be run."""

    seed: int
    hours: float
    is_checked: bool
    #: The kind of world: see profiles.py.
    profile: str = SWARM


def simulate(job: Job) -> tuple[Outcome, Found | None]:
    """One run; what is found is printed on stderr at once."""
    checkers: tuple[type[Checker], ...] = tuple(ALL_CHECKERS) if job.is_checked else ()
    run = make_run(job.profile, job.seed, checkers)
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
        print(found.show(run.world.tail[-60:]), file=sys.stderr, flush=True)
    run.world.close()
    return outcome, found


def _found(job: Job, run: Run, kind: str, checker: str, text: str) -> Found:
    again = f"python -m tests.sim --seed {job.seed} --hours {job.hours:g}"
    if job.profile != SWARM:
        again += f" --profile {job.profile}"
    return Found(job.seed, kind, checker, text, run.world.now / 1e9, again)


class Quiet:
    """No log lines, and no garbage collection in between."""

    def __enter__(self) -> None:
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=True
        )
        gc.collect()
        gc.freeze()  # what is imported is not looked at again after each run
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()
        gc.collect()


def _simulate(job: Job) -> tuple[Outcome, Found | None]:
    with Quiet():
        return simulate(job)


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Outcome, Found | None]]:
    """Every job, in its order."""
    if processes == 1:
        yield from map(_simulate, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_simulate, jobs)


def summary(results: Iterable[tuple[Outcome, Found | None]], began: float) -> dict[str, Any]:
    """The JSON line."""
    faults: Counter[str] = Counter()
    violations, events, done, simulated_s, hashes = [], 0, 0, 0.0, list[str]()
    for outcome, found in results:
        faults.update(outcome.faults)
        events += outcome.events
        done += outcome.done
        simulated_s += outcome.simulated_s
        hashes.append(outcome.trace_hash)
        if found is not None:
            violations.append(
                {
                    "seed": found.seed,
                    "kind": found.kind,
                    "checker": found.checker,
                    "text": found.text,
                    "at_seconds": found.at_s,
                    "again": found.again,
                }
            )
    return {
        "violations": violations,
        "events": events,
        "simulated_seconds": round(simulated_s, 3),
        "wall_seconds": round(time.monotonic() - began, 3),
        "trace_hash": hashes[0] if len(hashes) == 1 else _together(hashes),
        "seeds": len(hashes),
        "requests_done": done,
        "faults": dict(sorted(faults.items())),
    }


def _together(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def exit_code(violations: Sequence[dict[str, Any]]) -> int:
    """The gravest kind decides."""
    kinds = {each["kind"] for each in violations}
    for kind, code in (("crash", BUG), ("safety", SAFETY), ("liveness", LIVENESS)):
        if kind in kinds:
            return code
    return CLEAN


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; the JSON line goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--hours", type=float, help="simulated hours of each (safety phase)")
    parser.add_argument("--profile", choices=[SWARM, *PROFILES], default=SWARM, help="the kind of world")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--unchecked", action="store_true", help="without checkers, to measure them")
    options = parser.parse_args(arguments)
    hours = options.hours or hours_of(options.profile, HOURS)
    jobs = [
        Job(seed, hours, not options.unchecked, options.profile)
        for seed in range(options.seed, options.seed + options.seeds)
    ]
    began = time.monotonic()
    line = summary(run_all(jobs, options.jobs), began)
    print(json.dumps(line))
    return exit_code(line["violations"])
