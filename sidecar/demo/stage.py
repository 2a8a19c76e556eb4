"""Starts and ends the demo's programs: sidecars, and single commands."""

import signal
import sys
from types import TracebackType
from typing import Final, Self

from sidecar.demo.orders import Orders, output_of
from sidecar.demo.plan import HostPlan, Plan

COMMAND_DEADLINE_S: Final = 30.0


class Stage:
    """The running programs of one demo."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kept = False
        self._orders = Orders(plan.ward_path)

    async def __aenter__(self) -> Self:
        # Not the demo's own standard error: whoever reads that would wait for a kept ward to end.
        with self.plan.ward_path.with_suffix(".log").open("wb") as log:
            await self._orders.open(log)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._orders.close(wait=not self.kept)

    async def start_sidecar(self, host: HostPlan) -> int:
        """Run a host's sidecar; its process id."""
        argv = [*trellis_argv(), "run", "--settings", str(host.settings_path)]
        answer = await self._orders.tell({"start": host.name, "argv": argv, "log": str(host.log_path)})
        return int(answer["pid"])

    async def kill_sidecar(self, name: str) -> int:
        """SIGKILL a host's sidecar; the monotonic time of it in nanoseconds."""
        return int((await self._orders.tell({"kill": name, "signal": int(signal.SIGKILL)}))["at_ns"])

    async def keep(self) -> None:
        """Let everything go on when the demo ends."""
        await self._orders.tell({"keep": True})
        self.kept = True

    async def trellis(self, *words: str, within_s: float = COMMAND_DEADLINE_S) -> str:
        """Run one command of the CLI and return what it printed.

        Cancellation: the command is killed.

        Fails: `Unavailable` with the command's own words.
        """
        argv = [*trellis_argv(), *words]
        said = await output_of(argv, within_s=within_s, called=f"trellis {words[0]}")
        return said.strip()


def trellis_argv() -> list[str]:
    """The CLI with this Python, whatever PATH says."""
    return [sys.executable, "-m", "sidecar.cli.main"]
