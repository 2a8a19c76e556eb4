"""Runs mutants in child processes, several beside each other, and the true code on the same seeds."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.mutant import Mutant
from tests.mutants.trial import Task, Trial

ROOT: Final = Path(__file__).resolve().parent.parent.parent
FIRST_SEED: Final = 1
#: More than any budget allows for.
SEEDS_MAX: Final = 1_000
#: What the true code may take for seeds that a mutant needed: a mutant that is caught late runs as long.
CONTROL_SECONDS: Final = 240.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one mutant."""

    mutant: Mutant
    trial: Trial

    @property
    def is_caught(self) -> bool:
        return bool(self.trial.checker)


class ChildFailed(Exception):
    """A child ended without a result."""


async def run_child(task: Task) -> Trial:
    """One trial in a process of its own, which is never left behind. Fails: `ChildFailed`."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.mutants.trial",
        task.encode(),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        told, errors = await child.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        raise
    line = told.decode().strip().rpartition("\n")[2]
    if not line.startswith("{"):
        return _ended(task, child.returncode, errors.decode())
    return Trial.decode(line)


def _ended(task: Task, code: int | None, errors: str) -> Trial:
    """A child that said nothing: by a signal it is the victim, else a mistake is here."""
    if task.mutant is None or code is None or code >= 0:
        raise ChildFailed(f"exit code {code}: {errors[-2_000:]}")
    return Trial(f"process: signal {-code}", errors[-200:], task.first_seed, 0, 0.0, 0.0)


async def try_mutants(
    mutants: Sequence[Mutant], *, jobs: int, seconds: float, told: Callable[[Result], None]
) -> list[Result]:
    """Every mutant, `jobs` beside each other; *told* of each as it ends. In the order given."""
    gate = asyncio.Semaphore(jobs)
    results: dict[str, Result] = {}

    async def one(mutant: Mutant) -> None:
        async with gate:
            task = Task(mutant, mutant.profile, FIRST_SEED, SEEDS_MAX, seconds)
            result = results[mutant.name] = Result(mutant, await run_child(task))
            told(result)

    async with asyncio.TaskGroup() as tasks:
        for mutant in mutants:
            tasks.create_task(one(mutant))
    return [results[mutant.name] for mutant in mutants]


@dataclass(frozen=True, slots=True)
class Control:
    """The true code on the seeds on which mutants were caught, and on all before them."""

    seeds: int
    cpu_s: float
    #: What was found, which makes every catch by that profile doubtful.
    found: tuple[str, ...]


async def run_control(results: Iterable[Result], *, jobs: int) -> Control:
    """Every profile up to its last seed that caught a mutant."""
    last: dict[str, int] = {}
    for result in results:
        profile = result.mutant.profile
        last[profile] = max(last.get(profile, 0), result.trial.seed)
    gate = asyncio.Semaphore(jobs)

    async def part(profile: str, first: int, count: int) -> Trial:
        async with gate:
            return await run_child(Task(None, profile, first, count, CONTROL_SECONDS))

    ranges = [each for profile, end in sorted(last.items()) for each in _ranges(profile, end, jobs)]
    trials = await asyncio.gather(*(part(*each) for each in ranges))
    found = tuple(
        f"{profile}, seed {trial.seed}: {trial.checker}: {trial.text}"
        for (profile, _, _), trial in zip(ranges, trials, strict=True)
        if trial.checker
    )
    return Control(sum(last.values()), sum(trial.cpu_s for trial in trials), found)


def _ranges(profile: str, end: int, parts: int) -> list[tuple[str, int, int]]:
    """(profile, first seed, how many): all up to *end*, in *parts* of about equal length."""
    ranges, first = [], FIRST_SEED
    for part in range(parts):
        count = (end - first + 1) // (parts - part)
        if count:
            ranges.append((profile, first, count))
        first += count
    return ranges
