"""Makes the demo's cluster: from an empty directory to three voters with two services."""

import asyncio
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import psutil

from mesh.errors import Unavailable
from sidecar.demo.board import Board
from sidecar.demo.database import DemoDatabase
from sidecar.demo.lookout import wait_until
from sidecar.demo.plan import HostPlan
from sidecar.demo.stage import Stage

SETUP_S: Final = 30.0
#: What is deployed: files of the package `services`, which is found and not imported.
DECLARATIONS: Final = ("echo/echo.toml", "reporter/reporter.toml")
#: With a database, these too.
ON_DATABASE: Final = ("lcm/lcm.toml", "reconciler/reconciler.toml")
DATABASE_S: Final = 90.0


def declarations(names: Iterable[str]) -> list[Path]:
    """Declaration files of the package `services`. Fails: `Unavailable` when that is not installed."""
    found = importlib.util.find_spec("services")
    if found is None or not found.submodule_search_locations:
        raise Unavailable(
            "The package `services` is not installed: install Trellis whole, as `make setup` does."
        )
    root = Path(next(iter(found.submodule_search_locations)))
    return [root / name for name in names]


async def set_up(stage: Stage, board: Board) -> None:
    """From nothing to three voters with both services ready.

    Fails: `Unavailable` with what is missing, when it takes longer than `SETUP_S`.
    """
    first, *others = stage.plan.hosts
    for host in stage.plan.hosts:
        host.directory.mkdir(parents=True)
        host.settings_path.write_text(host.settings())
    board.begin(f"making a cluster on {first.name}")
    await stage.trellis("init", "--settings", str(first.settings_path))
    board.pids[first.name] = await stage.start_sidecar(first)
    await _expect(board, lambda: board.leader() == first.name, f"{first.name} does not lead itself")
    board.begin("joining the others")
    async with asyncio.TaskGroup() as joins:
        for host in others:
            joins.create_task(_join(stage, board, first, host), name=f"join:{host.name}")
    everyone = frozenset(host.name for host in stage.plan.hosts)
    await _expect(
        board,
        lambda: {name for name, sight in board.sights.items() if sight.voters == everyone} == everyone,
        "not all three hosts vote",
    )
    board.begin("deploying echo on every host and reporter on one")
    async with asyncio.TaskGroup() as applying:
        for declaration in declarations(DECLARATIONS):
            words = ("services", "apply", str(declaration), "--settings", str(first.settings_path))
            applying.create_task(stage.trellis(*words), name=f"apply:{declaration.name}")
    await _expect(board, lambda: board.ready("echo") == everyone, "echo is not ready on every host")
    await _expect(board, lambda: len(board.ready("reporter")) == 1, "reporter is not ready on one host")
    if stage.plan.database is not None:
        await _set_up_database(stage, board, stage.plan.database)


async def _set_up_database(stage: Stage, board: Board, database: DemoDatabase) -> None:
    settings = ("--settings", str(stage.plan.hosts[0].settings_path))
    board.begin(f"making a PostgreSQL {database.version} on one host and two copies of it")
    await stage.trellis(
        "db", "declare", "--wait", "--timeout", str(DATABASE_S), *settings, within_s=DATABASE_S
    )
    board.begin("deploying the lifecycle manager on every host and its reconciler on one")
    for declaration in declarations(ON_DATABASE):
        # Anybody may deploy in a demo: it listens on loopback only.
        text = declaration.read_text().replace('LCM_ANONYMOUS = "none"', 'LCM_ANONYMOUS = "deployer"')
        copy = stage.plan.directory / declaration.name
        copy.write_text(text)
        await stage.trellis("services", "apply", str(copy), *settings)
    everyone = frozenset(host.name for host in stage.plan.hosts)
    await _expect(board, lambda: board.ready("lcm") == everyone, "lcm is not ready on every host")
    await _expect(board, lambda: len(board.ready("reconciler")) == 1, "reconciler is not ready on one host")


async def _join(stage: Stage, board: Board, member: HostPlan, host: HostPlan) -> None:
    token = await stage.trellis("token", "--host", host.name, "--settings", str(member.settings_path))
    await stage.trellis("join", token, "--settings", str(host.settings_path))
    board.pids[host.name] = await stage.start_sidecar(host)
    board.say(f"{host.name} has joined and runs")


async def _expect(board: Board, holds: Callable[[], bool], otherwise: str) -> None:
    await wait_until(lambda: holds() or bool(_ended(board)), SETUP_S)
    if ended := _ended(board):
        raise Unavailable(f"The sidecar of {ended[0]} has ended; the end of its log says why.")
    if not holds():
        raise Unavailable(f"The demo's cluster did not come up: {otherwise} after {SETUP_S:.0f} s.")


def _ended(board: Board) -> list[str]:
    return [name for name, pid in sorted(board.pids.items()) if not psutil.pid_exists(pid)]
