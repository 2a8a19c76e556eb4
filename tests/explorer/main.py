"""The command: `python -m tests.explorer --help`."""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from multiprocessing import get_context

from tests.explorer.paths import tell
from tests.explorer.search import Limits, Report, Search
from tests.explorer.start import start_of
from tests.explorer.worlds import SMALL, WORLDS, World

_EVERY = {**WORLDS, **SMALL}
_BOUNDS = [each.name for each in fields(World) if each.type is int]


def main(argv: Sequence[str] | None = None) -> int:
    """Search worlds; 0: no violation, 2: some."""
    arguments = _parser().parse_args(argv)
    if arguments.list:
        for world in _EVERY.values():
            bounds = {name: getattr(world, name) for name in _BOUNDS if getattr(world, name)}
            print(f"{world.name:24}", *(f"{name}={value}" for name, value in bounds.items()))
        return 0
    limits = Limits(arguments.states, arguments.minutes, arguments.depth)
    worlds = [_bounded(_EVERY[name], arguments) for name in _names(arguments.world or ["small"])]
    reports = explore(worlds, limits, jobs=arguments.jobs)
    for report in reports:
        if report.story:
            print(report.story)
    print(json.dumps(summary(reports)))
    return 2 if any(report.found for report in reports) else 0


def _names(asked: list[str]) -> list[str]:
    suites = {"small": list(SMALL), "all": list(WORLDS)}
    return [name for each in asked for name in suites.get(each, [each])]


def _bounded(world: World, arguments: argparse.Namespace) -> World:
    given = {name: getattr(arguments, name) for name in _BOUNDS if getattr(arguments, name) is not None}
    return replace(world, **given)


def explore(worlds: Sequence[World], limits: Limits, *, jobs: int = 1) -> list[Report]:
    """Each world in turn, *jobs* at a time in processes of their own.

    A world is not divided: its speed comes from one table that all its states share.
    """
    if jobs == 1:
        return [explore_one(world, limits) for world in worlds]
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        return list(pool.map(explore_one, worlds, [limits] * len(worlds)))


def explore_one(world: World, limits: Limits) -> Report:
    """One world, with its progress on stderr."""
    search = Search(world, start_of(world.prologue))
    told = [0.0]

    def progress(report: Report) -> None:
        if report.wall_seconds - told[0] >= 5:
            told[0] = report.wall_seconds
            _tell(report)

    was_collecting = gc.isenabled()
    gc.disable()  # nothing here forms cycles, and looking for them costs a third of the time
    try:
        report = search.run(limits, progress)
    finally:
        if was_collecting:
            gc.enable()
    _tell(report)
    if report.found is not None:
        report.story = tell(search, report.found.path, report.found.violation)
    return report


def _tell(report: Report) -> None:
    rate = report.states / max(report.wall_seconds, 0.001)
    end = "searched to the end" if report.is_complete else f"{report.waiting} waiting"
    line = (
        f"{report.world}: depth {report.depth}, {report.states} states, {report.transitions} transitions,"
        f" {end}, {report.hosts} situations of a host, {rate:.0f} states/s"
    )
    print(line if report.found is None else f"{line}: {report.found.violation}", file=sys.stderr, flush=True)


def summary(reports: Sequence[Report]) -> dict[str, object]:
    """The last line; for several worlds the sums, and each by itself."""
    each = [
        {
            "world": report.world,
            "states": report.states,
            "transitions": report.transitions,
            "depth": report.depth,
            "violations": int(report.found is not None),
            "wall_seconds": round(report.wall_seconds, 1),
            "complete": report.is_complete,
        }
        for report in reports
    ]
    if len(each) == 1:
        return each[0]
    return {
        "world": "+".join(report.world for report in reports),
        "states": sum(report.states for report in reports),
        "transitions": sum(report.transitions for report in reports),
        "depth": max(report.depth for report in reports),
        "violations": sum(report.found is not None for report in reports),
        "wall_seconds": round(sum(report.wall_seconds for report in reports), 1),
        "complete": all(report.is_complete for report in reports),
        "worlds": each,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.explorer", description="Exhaustive search over the Raft core."
    )
    parser.add_argument(
        "--world", action="append", choices=[*_EVERY, "small", "all"], metavar="NAME",
        help="a world of --list, or 'small' or 'all'; may be given again (default: small)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="name the worlds and their bounds")
    parser.add_argument("--states", type=int, default=1_000_000, help="distinct states per world at most")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes per world at most")
    parser.add_argument("--depth", type=int, default=1_000, help="moves from the first state at most")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at a time")
    for name in _BOUNDS:
        parser.add_argument(f"--{name}", type=int, help=f"instead of the world's own bound on {name}")
    return parser
