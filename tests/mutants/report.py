"""What a campaign shows: a table while it runs, and one JSON line at its end."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutants.campaign import Control, Result

#: What must be caught.
SHARE_MIN = 0.95


class Shown(AbstractContextManager["Shown"]):
    """The progress of a campaign, on stderr."""

    def __init__(self, count: int, *, is_quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=is_quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("mutants", total=count)
        self._survivors = 0

    def __enter__(self) -> "Shown":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def told(self, result: Result) -> None:
        """One more has ended."""
        self._survivors += not result.is_caught
        self._progress.update(
            self._task, advance=1, description=f"mutants ({self._survivors} not caught) {result.mutant.name}"
        )
        self._console.print(_line(result), highlight=False, soft_wrap=True)

    def table(self, results: Sequence[Result], control: Control, explained: Mapping[str, str]) -> None:
        """Everything at the end; survivors with what they would have broken."""
        table = Table("mutant", "caught by", "profile", "seed", "CPU s", box=None)
        for each in results:
            trial = each.trial
            caught = trial.checker if each.is_caught else "[bold red]nothing"
            seed = str(trial.seed) if each.is_caught else f"{trial.seeds_clean} clean"
            table.add_row(each.mutant.name, caught, each.mutant.profile, seed, f"{trial.cpu_s:.1f}")
        self._console.print(table)
        for each in results:
            if not each.is_caught:
                reason = explained.get(each.mutant.name, each.mutant.says)
                self._console.print(f"[red]survives[/]  {each.mutant.name}: {reason}", soft_wrap=True)
        for found in control.found:
            self._console.print(f"[red]without a mutant[/]  {found}", soft_wrap=True)


def _line(result: Result) -> str:
    trial = result.trial
    if not result.is_caught:
        return f"[red]survives[/]  {result.mutant.name}  {trial.seeds_clean} seeds  {trial.cpu_s:.1f} s"
    how = f"by {trial.checker}, seed {trial.seed}, {trial.cpu_s:.1f} s"
    return f"[green]caught[/]    {result.mutant.name}  {how}"


def summary(
    results: Sequence[Result], control: Control, explained: Mapping[str, str], wall_s: float
) -> dict[str, Any]:
    """The JSON line. Explained survivors count neither as mutants nor as survivors."""
    counted = [each for each in results if each.is_caught or each.mutant.name not in explained]
    caught = [each for each in counted if each.is_caught]
    times = sorted(each.trial.cpu_s for each in caught)
    return {
        "mutants": len(counted),
        "caught": len(caught),
        "share": round(len(caught) / max(1, len(counted)), 4),
        "cpu_seconds": {f"p{share}": _percentile(times, share) for share in (50, 90, 100)},
        "cpu_seconds_all": round(sum(each.trial.cpu_s for each in results) + control.cpu_s, 1),
        "wall_seconds": round(wall_s, 1),
        "checkers": _by_checker(caught),
        "control_seeds": control.seeds,
        "control_found": list(control.found),
        "survivors": [each.mutant.name for each in counted if not each.is_caught],
        "explained": [each.mutant.name for each in results if each not in counted],
    }


def _by_checker(caught: Sequence[Result]) -> dict[str, int]:
    names = sorted({each.trial.checker for each in caught})
    return {name: sum(each.trial.checker == name for each in caught) for name in names}


def _percentile(times: Sequence[float], share: int) -> float:
    if not times:
        return 0.0
    return round(times[min(len(times) - 1, len(times) * share // 100)], 2)


def is_good(line: Mapping[str, Any]) -> bool:
    """Enough are caught, and nothing is found where nothing is broken."""
    return line["share"] >= SHARE_MIN and not line["control_found"]


def as_json(line: Mapping[str, Any]) -> str:
    """One line."""
    return json.dumps(line)
