"""`trellis sim`: the project's own simulator, with the timers of an operator's settings.

The simulator lies in `tests/sim`, and stands above everything that it simulates. It is imported here alone,
when it is asked for: the one exception to the rule that programs do not import tests, since an operator has
the right to judge by it too.
"""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.errors import InvalidRequest, Problem
from sidecar.cli import exits
from sidecar.cli.options import SETTINGS_VARIABLE, Json

if TYPE_CHECKING:
    from tests.sim.running import Job
    from tests.sim.summary import Summary

#: A wheel carries the simulator here, in a folder of its own so that no other package's `tests` is met.
SHIPPED: Final = Path(__file__).parents[1] / "simulator"
CHECKOUT: Final = Path(__file__).parents[2]
SEEDS_MAX: Final = 1_000_000
#: What `without_ms` of the JSON line means.
GAPS: Final = {
    "leader-calm": "without a leader, a majority being well",
    "leader-faults": "without a leader, faults going on",
    "owner-calm": "without an owner, a majority being well",
    "owner-faults": "without an owner, faults going on",
}


def sim(
    settings: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SETTINGS]...",
            envvar=SETTINGS_VARIABLE,
            help="Settings files of one cluster; their timers must agree. None: the default timers.",
            show_default=False,
        ),
    ] = None,
    *,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=SEEDS_MAX, help="How many.")] = 1,
    hours: Annotated[
        float,
        typer.Option("--hours", min=0.001, max=24, help="Simulated hours of each, before it is healed."),
    ] = 0.04,
    hosts: Annotated[
        int,
        typer.Option(
            "--hosts",
            min=0,
            max=7,
            help="Hosts, 3 to 7. 0: one for each file; of fewer than 3, drawn by seed.",
        ),
    ] = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Processes to run them in.")] = 1,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Draw the run there; of several, the first that found something."),
    ] = None,
    json: Json = False,
) -> None:
    """Simulate clusters with these timers, where anything may fail, and check every promise.

    Each seed is a cluster of the real code with simulated network, disks, clocks and
    processes. Messages are lost, late and doubled; hosts are cut off, killed, frozen and
    damaged; operators work. Then a majority is healed, and has to get on. The table says
    how long nobody led, and nobody acted for what is exclusive, in simulated time: with a
    majority well meanwhile, that is what a failover costs with these timers.

    Exit codes: 0 nothing found, 1 the code raised what it must not, 2 a safety promise was
    broken, 3 a healed majority did not get on. What is found comes with the command that repeats it.

    Examples:

      trellis sim /etc/trellis/settings.toml --seeds 200 --jobs 2

      trellis sim --seed 7 --html run.html

      trellis sim host1.toml host2.toml host3.toml --seeds 20 --json | jq .without_ms
    """
    _find()
    total, line = _simulated(settings or [], seed, seeds, hours, hosts, jobs, html, json)
    from sidecar.cli.output import print_json, show
    from tests.sim.summary import exit_code

    if json:
        print_json(line, line=True)
    else:
        show(_table(line, total))
        if html is not None:
            print(f"The picture is in {html}.")
    raise exits.Verdict(exit_code(total.violations))


def _find() -> None:
    """Make `tests.sim` importable, in the processes of a pool too: they are given this path."""
    sys.path.insert(0, str(SHIPPED if SHIPPED.is_dir() else CHECKOUT))


def _simulated(
    settings: list[Path],
    seed: int,
    seeds: int,
    hours: float,
    hosts: int,
    jobs: int,
    html: Path | None,
    quiet: bool,
) -> "tuple[Summary, dict[str, Any]]":
    from tests.sim.campaign import run_campaign
    from tests.sim.main import draw_one
    from tests.sim.running import Job
    from tests.sim.timing import DEFAULT, HOSTS_MAX, HOSTS_MIN, timing_of_files

    timing = timing_of_files(settings) if settings else DEFAULT
    if not hosts and len(settings) >= HOSTS_MIN:
        hosts = len(settings)
    if hosts and not HOSTS_MIN <= hosts <= HOSTS_MAX:
        problem = Problem(
            "--hosts", f"{hosts} cannot be simulated: {HOSTS_MIN} to {HOSTS_MAX} can", "--hosts 3"
        )
        raise InvalidRequest("So many hosts cannot be simulated.", [problem])
    command = shlex.join(["trellis", "sim", *map(str, settings)])
    one = Job(seed, hours, True, timing=timing, hosts=hosts, command=command)
    work = [replace(one, seed=each) for each in range(seed, seed + seeds)]
    if html is not None and seeds == 1:
        work = [replace(one, html=str(html))]
    with _Progress(work, quiet=quiet) as progress:
        total, wall_s = run_campaign(work, jobs, None, progress.tell)
        if html is not None and seeds > 1:
            draw_one(work, total, str(html))
    return total, total.line(wall_s)


class _Progress:
    """A bar on a terminal, a line now and then elsewhere, nothing for programs; always on standard error."""

    def __init__(self, work: "list[Job]", *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from tests.sim import campaign

        console = Console(stderr=True, quiet=quiet, highlight=False)
        self._is_bar = console.is_terminal
        self._lines = campaign.Progress(len(work), lambda line: console.print(line))
        self._bar = Progress(
            TextColumn("simulating"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not self._is_bar,
            transient=True,
        )
        self._task = self._bar.add_task("", total=len(work), told="")

    def tell(self, total: "Summary") -> None:
        if not self._is_bar:
            self._lines.tell(total)
        told = f"{total.simulated_s / 3_600:.2f} h, {len(total.violations)} violations"
        self._bar.update(self._task, completed=total.seeds, told=told)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _table(line: dict[str, Any], total: "Summary") -> Any:
    from rich.table import Table

    table = Table("what", "figure", box=None, pad_edge=False, show_header=False)
    table.add_row("seeds", f"{line['seeds']:,}")
    table.add_row(
        "simulated", f"{line['simulated_seconds'] / 3_600:,.2f} hours in {line['wall_seconds']:,.0f} s"
    )
    table.add_row("events checked", f"{line['events']:,}")
    table.add_row("requests done", f"{line['requests_done']:,}")
    table.add_row("elections", f"{line['elections']:,}")
    from tests.sim.percentiles import spread

    for name, meaning in GAPS.items():
        table.add_row(meaning, spread(total.gaps[name]))
    faults = ", ".join(f"{kind} {count:,}" for kind, count in line["faults"].items())
    table.add_row("faults, operations", faults or "none")
    table.add_row("violations", _violations(line["violations"]))
    return table


def _violations(found: list[dict[str, Any]]) -> str:
    if not found:
        return "0"
    each = (f"{one['kind']} ({one['checker']}), again: {one['again']}" for one in found)
    return "\n".join([str(len(found)), *each])
