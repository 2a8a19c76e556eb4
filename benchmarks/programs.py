"""Starts the programs of a benchmark, and ends all of them.

Long-running programs belong to a ward (`sidecar.demo.ward`): a child subreaper that
ends everything it started, and what that left behind, when this process ends
in whatever way. Short ones are children of the benchmark with a deadline.
"""

import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.command import ROOT, CannotMeasure
from sidecar.demo import orders
from sidecar.demo.orders import Orders, environment


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
        self._orders = Orders(directory / "ward.json", folder=ROOT)

    async def __aenter__(self) -> Self:
        await self._orders.open()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._orders.close()

    async def start(self, name: str, argv: Sequence[str]) -> int:
        """Start a program, its output in NAME.log; its process id."""
        log = self.directory / f"{name}.log"
        answer = await self._orders.tell({"start": name, "argv": list(argv), "log": str(log)})
        self._pids[name] = answer["pid"]
        return answer["pid"]

    async def signal(self, name: str, number: signal.Signals) -> int:
        """Signal a running program; the monotonic time of it in nanoseconds."""
        return (await self._orders.tell({"kill": name, "signal": int(number)}))["at_ns"]

    def pid(self, name: str) -> int:
        """Process id of what was last started under this name."""
        return self._pids[name]


async def output_of(argv: Sequence[str], *, within_s: float, extra: Mapping[str, str] | None = None) -> str:
    """Run a short program in the project's folder; see `sidecar.demo.orders.output_of`."""
    return await orders.output_of(argv, within_s=within_s, extra=extra, folder=ROOT)
