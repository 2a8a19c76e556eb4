"""Starts and ends the demo's programs: the ward's other end, and single commands.

Invariant: whatever way the demo ends, also by SIGKILL, the ward's input ends with
it, and the ward stops everything, unless the stage was told to keep it.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mesh.errors import Unavailable
from sidecar.demo.plan import HostPlan, Plan

COMMAND_DEADLINE_S: Final = 30.0
#: More than the ward's own grace, so that it is only cut short when it hangs.
WARD_DEADLINE_S: Final = 15.0


def environment() -> dict[str, str]:
    """The environment of every program of the demo: this Python comes first."""
    own = str(Path(sys.executable).parent)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRELLIS_")}
    return {**kept, "PATH": f"{own}:{os.environ.get('PATH', os.defpath)}"}


class Stage:
    """The running programs of one demo."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kept = False
        self._one_order = asyncio.Lock()

    async def __aenter__(self) -> Self:
        # Not the demo's own standard error: whoever reads that would wait for a kept ward to end.
        with self.plan.ward_path.with_suffix(".log").open("wb") as log:
            self._ward = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar.demo.ward", str(self.plan.ward_path),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=environment(), start_new_session=True,
            )  # fmt: skip
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        assert self._ward.stdin is not None
        self._ward.stdin.close()
        if self.kept:
            return
        ended = asyncio.ensure_future(asyncio.wait_for(self._ward.wait(), WARD_DEADLINE_S))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            await ended
            raise
        except TimeoutError:
            self._ward.kill()
            raise Unavailable(f"The demo's programs did not end in {WARD_DEADLINE_S:.0f} s.") from None

    async def start_sidecar(self, host: HostPlan) -> int:
        """Run a host's sidecar; its process id."""
        argv = [*trellis_argv(), "run", "--settings", str(host.settings_path)]
        answer = await self._order({"start": host.name, "argv": argv, "log": str(host.log_path)})
        return int(answer["pid"])

    async def kill_sidecar(self, name: str) -> int:
        """SIGKILL a host's sidecar; the monotonic time of it in nanoseconds."""
        return int((await self._order({"kill": name, "signal": int(signal.SIGKILL)}))["at_ns"])

    async def keep(self) -> None:
        """Let everything go on when the demo ends."""
        await self._order({"keep": True})
        self.kept = True

    async def trellis(self, *words: str) -> str:
        """Run one command of the CLI and return what it printed.

        Cancellation: the command is killed.

        Fails: `Unavailable` with the command's own words.
        """
        child = await asyncio.create_subprocess_exec(
            *trellis_argv(), *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment(), start_new_session=True,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(child.communicate(), COMMAND_DEADLINE_S)
        except (TimeoutError, asyncio.CancelledError):
            child.kill()
            await child.wait()
            raise
        if child.returncode != 0:
            raise Unavailable(f"trellis {words[0]} failed ({child.returncode}): {err.decode().strip()}")
        return out.decode().strip()

    async def _order(self, order: dict[str, object]) -> dict[str, int]:
        assert self._ward.stdin is not None
        assert self._ward.stdout is not None
        async with self._one_order:
            self._ward.stdin.write(json.dumps(order).encode() + b"\n")
            await self._ward.stdin.drain()
            line = await self._ward.stdout.readline()
        if not line:
            raise Unavailable("The process that owns the demo's programs has ended.")
        answer: dict[str, int] = json.loads(line)
        return answer


def trellis_argv() -> list[str]:
    """The CLI with this Python, whatever PATH says."""
    return [sys.executable, "-m", "sidecar.cli.main"]
