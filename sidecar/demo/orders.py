"""The ward's other end: starts the process that owns all programs, tells it what to start and to kill.

Invariant: whatever way this process ends, also by SIGKILL, the ward's input ends with it, and
the ward stops everything, unless it was told to keep it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from mesh.errors import Unavailable

#: More than the ward's own grace, so that it is only cut short when it hangs.
END_S: Final = 20.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of every program: this Python's programs first, nothing of the caller's settings."""
    own = str(Path(sys.executable).parent)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRELLIS_")}
    return {**kept, "PATH": f"{own}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", **(extra or {})}


class Orders:
    """One ward, which writes down in *record* what it has started."""

    def __init__(self, record: Path, *, folder: Path | None = None) -> None:
        self._record = record
        self._folder = folder
        self._one_order = asyncio.Lock()

    async def open(self, log: BinaryIO | None = None) -> None:
        """Start the ward; its own words go to *log*."""
        self._ward = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar.demo.ward", str(self._record),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            env=environment(), cwd=self._folder, start_new_session=True,
        )  # fmt: skip

    async def close(self, *, wait: bool = True) -> None:
        """Let the ward end everything; without *wait* it was told to keep it.

        Cancellation: continues when the ward has ended.
        Fails: `Unavailable` when it does not; then it is killed.
        """
        assert self._ward.stdin is not None
        self._ward.stdin.close()
        if not wait:
            return
        ended = asyncio.ensure_future(asyncio.wait_for(self._ward.wait(), END_S))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            await ended
            raise
        except TimeoutError:
            self._ward.kill()
            raise Unavailable(f"The programs did not end in {END_S:.0f} s.") from None

    async def tell(self, order: dict[str, object]) -> dict[str, int]:
        """One order and its answer. Fails: `Unavailable` when the ward has ended."""
        assert self._ward.stdin is not None
        assert self._ward.stdout is not None
        async with self._one_order:
            self._ward.stdin.write(json.dumps(order).encode() + b"\n")
            await self._ward.stdin.drain()
            line = await self._ward.stdout.readline()
        if not line:
            raise Unavailable("The process that owns the programs has ended.")
        answer: dict[str, int] = json.loads(line)
        return answer


async def output_of(
    argv: Sequence[str],
    *,
    within_s: float,
    extra: Mapping[str, str] | None = None,
    folder: Path | None = None,
    called: str = "",
) -> str:
    """Run a short program and return what it printed; *called*: its name in errors.

    Cancellation: the program is killed.
    Fails: `Unavailable` with the program's last words, also when it takes too long.
    """
    name = called or " ".join(argv[:4])
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment(extra), cwd=folder, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(child.communicate(), within_s)
    except TimeoutError:
        child.kill()
        await child.wait()
        raise Unavailable(f"{name} took longer than {within_s:g} s") from None
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    if child.returncode != 0:
        words = (err or out).decode(errors="replace").strip()[-800:]
        raise Unavailable(f"{name} failed ({child.returncode}): {words}")
    return out.decode()
