"""`trellis demo`: runs the story with a screen or with lines, and cleans up after it."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console, RenderableType
from rich.live import Live

from mesh.errors import InvalidRequest, NotFound, Problem, TrellisError
from sidecar.demo.board import Board
from sidecar.demo.database import find_database
from sidecar.demo.kept import how_to_talk
from sidecar.demo.plan import HOSTS, Plan, make_plan
from sidecar.demo.report import Outcome, as_json, as_view
from sidecar.demo.screen import draw
from sidecar.demo.stage import Stage
from sidecar.demo.story import play

FRAME_S: Final = 0.125
STOP_S: Final = 20.0
LOG_LINES: Final = 12


def run_demo(*, directory: Path | None, keep: bool, seconds: float, rate: float, as_object: bool) -> int:
    """Play the demo once; its exit code. Everything it started has ended, unless kept.

    Fails: `TrellisError` with the reason when the cluster does not come up;
    its directory is then left for its logs.
    """
    # Standard output is only for the object then.
    console = Console(stderr=as_object, highlight=False)
    plan = make_plan(_new_directory(directory))
    database, why = find_database(plan.directory)
    if database is None:
        console.print(f"The demo runs without a database: {why}", markup=False, soft_wrap=True)
    plan = replace(plan, database=database)
    try:
        outcome, how_to_go_on = asyncio.run(_play(plan, console, keep=keep, seconds=seconds, rate=rate))
    except BaseExceptionGroup as group:
        errors, rest = group.split(TrellisError)
        if errors is None or rest is not None:
            raise
        _show_logs(plan, console)
        raise _first(errors) from group
    except TrellisError:
        _show_logs(plan, console)
        raise
    except KeyboardInterrupt:
        shutil.rmtree(plan.directory, ignore_errors=True)
        raise
    if outcome.exit_code != 0:
        _show_logs(plan, console)
    console.print(as_view(outcome))
    if keep:
        console.print(how_to_go_on, soft_wrap=True)
    elif outcome.exit_code == 0:
        shutil.rmtree(plan.directory, ignore_errors=True)
    else:
        console.print(f"Logs: {plan.directory}")
    if as_object:
        print(json.dumps(as_json(outcome)), flush=True)
    return outcome.exit_code


def _new_directory(directory: Path | None) -> Path:
    if directory is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        # Another user runs PostgreSQL for root, and has to pass.
        is_own = runtime and os.access(runtime, os.W_OK) and os.geteuid() != 0
        root = runtime if is_own else tempfile.gettempdir()
        return Path(tempfile.mkdtemp(prefix="trellis-demo-", dir=root))
    absolute = directory.absolute()
    try:
        absolute.mkdir(parents=True)
    except OSError as error:
        problem = Problem("--directory", f"{absolute} cannot be made: {error.strerror}", "a new directory")
        raise InvalidRequest("The demo was not started.", [problem]) from error
    return absolute


async def _play(
    plan: Plan, console: Console, *, keep: bool, seconds: float, rate: float
) -> tuple[Outcome, RenderableType]:
    live_screen = console.is_terminal

    def tell(at_s: float, text: str) -> None:
        if not live_screen:
            console.print(f"{at_s:6.1f} s  {text}", markup=False, soft_wrap=True)

    board = Board(HOSTS, plan.virtual_address, tell)
    async with Stage(plan) as stage:
        if live_screen:
            outcome = await _with_screen(stage, board, console, seconds=seconds, rate=rate)
        else:
            outcome = await play(stage, board, seconds=seconds, rate=rate)
        if keep:
            await stage.keep()
        else:
            tell(board.elapsed_s(), "ending everything")
    return outcome, how_to_talk(plan, board.leader(), board.pids) if keep else ""


async def _with_screen(
    stage: Stage, board: Board, console: Console, *, seconds: float, rate: float
) -> Outcome:
    with Live(draw(board), console=console, auto_refresh=False) as live:
        drawing = asyncio.create_task(_draw_on(live, board), name="screen")
        try:
            return await play(stage, board, seconds=seconds, rate=rate)
        finally:
            drawing.cancel()
            live.update(draw(board), refresh=True)


async def _draw_on(live: Live, board: Board) -> None:
    while True:
        live.update(draw(board), refresh=True)
        await asyncio.sleep(FRAME_S)


def _first(group: BaseExceptionGroup[TrellisError]) -> TrellisError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _show_logs(plan: Plan, console: Console) -> None:
    for host in plan.hosts:
        if host.log_path.exists():
            console.print(f"[bold]{host.log_path}[/bold]")
            for line in host.log_path.read_text(errors="replace").splitlines()[-LOG_LINES:]:
                console.print(f"  {line}", markup=False, soft_wrap=True)


def stop_demo(directory: Path) -> int:
    """End a demo that was kept, and remove its directory.

    Fails: `NotFound` when no demo of that directory runs.
    """
    plan = Plan(directory.absolute(), 0)
    try:
        record = json.loads(plan.ward_path.read_text())
        ward = psutil.Process(record["pid"])
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess) as error:
        raise NotFound(f"No demo of {directory} runs here.") from error
    if abs(ward.create_time() - record["started"]) > 0.01:
        raise NotFound(f"No demo of {directory} runs here: its process has ended.")
    ward.terminate()
    ward.wait(STOP_S)
    shutil.rmtree(plan.directory, ignore_errors=True)
    print(f"The demo of {directory} has ended.", file=sys.stderr)
    return 0
