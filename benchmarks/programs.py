"""Starts the programs of a benchmark, and ends all of them.

Long-running programs belong to a ward (`sidecar.demo.ward`): a child subreaper that
ends everything it started, and what that left behind, when this process ends
in whatever way. Short ones are children of the benchmark with a deadline.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.command import ROOT, CannotMeasure
from mesh.errors import Unavailable

WARD_DEADLINE_S: Final = 20.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of every program: this Python's programs first, nothing of the caller's settings."""
    own = str(Path(sys.executable).parent)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRELLIS_")}
    return {**kept, "PATH": f"{own}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", **(extra or {})}


def find(program: str, remedy: str) -> str:
    """The path of a program. Fails: `CannotMeasure` with what to install."""
    found = shutil.which(program, path=environment()["PATH"])
    if found is None:
        raise CannotMeasure(f"{program} is not installed: {remedy}")
    return found


class Programs:
    """The running programs of one part of a benchmark."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pids: dict[str, int] = {}
        self._one_order = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._ward = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar.demo.ward", str(self.directory / "ward.json"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=environment(), cwd=ROOT, start_new_session=True,
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
        ended = asyncio.ensure_future(asyncio.wait_for(self._ward.wait(), WARD_DEADLINE_S))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            await ended
            raise

    async def start(self, name: str, argv: Sequence[str]) -> int:
        """Start a program, its output in NAME.log; its process id."""
        log = self.directory / f"{name}.log"
        answer = await self._order({"start": name, "argv": list(argv), "log": str(log)})
        self._pids[name] = answer["pid"]
        return answer["pid"]

    async def signal(self, name: str, number: signal.Signals) -> int:
        """Signal a running program; the monotonic time of it in nanoseconds."""
        return (await self._order({"kill": name, "signal": int(number)}))["at_ns"]

    def pid(self, name: str) -> int:
        """Process id of what was last started under this name."""
        return self._pids[name]

    async def _order(self, order: dict[str, object]) -> dict[str, int]:
        assert self._ward.stdin is not None
        assert self._ward.stdout is not None
        async with self._one_order:
            self._ward.stdin.write(json.dumps(order).encode() + b"\n")
            await self._ward.stdin.drain()
            line = await self._ward.stdout.readline()
        if not line:
            raise Unavailable("The process that owns the benchmark's programs has ended.")
        answer: dict[str, int] = json.loads(line)
        return answer


async def output_of(argv: Sequence[str], *, within_s: float, extra: Mapping[str, str] | None = None) -> str:
    """Run a short program and return what it printed.

    Cancellation: the program is killed.
    Fails: `Unavailable` with the program's last words, also when it takes too long.
    """
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment(extra), cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(child.communicate(), within_s)
    except TimeoutError:
        child.kill()
        await child.wait()
        raise Unavailable(f"{' '.join(argv[:4])} took longer than {within_s:g} s") from None
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    if child.returncode != 0:
        words = (err or out).decode(errors="replace").strip()[-800:]
        raise Unavailable(f"{' '.join(argv[:4])} failed ({child.returncode}): {words}")
    return out.decode()
