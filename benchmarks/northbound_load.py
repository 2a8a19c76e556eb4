"""Northbound calls at a steady rate from a process of its own, and what became of each.

The client is the one that Trellis ships (`mesh.client.channel`): plain gRPC with its
service configuration, deadline 5 s. Four calls of five are idempotent (Echo), the
fifth is not (Count) and is never repeated once it may have been processed.

Calls start on a fixed schedule, so a gap in service cannot hide itself by slowing
the client down (no coordinated omission).
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from benchmarks.command import ROOT
from benchmarks.figures import MS
from mesh.errors import Unavailable
from sidecar.demo.calls import Call
from sidecar.demo.orders import environment

RATE: Final = 200.0
#: The client's deadline, and a little more: by then every call has ended.
DEADLINE_S: Final = 5.2
STEADY_S: Final = 1.0
STEADY_DEADLINE_S: Final = 60.0
#: A call that takes this much longer than usual was disturbed by the fault.
SLOW_MS: Final = 50


@dataclass
class Load:
    """Every call so far. Bound: rate × the length of one part."""

    rate: float
    calls: list[Call] = field(default_factory=list)

    async def wait_steady(self) -> None:
        """Until every call of the last second was answered, quickly. Fails: `Unavailable`."""
        deadline = time.monotonic() + STEADY_DEADLINE_S
        while time.monotonic() < deadline:
            since = time.monotonic_ns() - int(STEADY_S * 1e9)
            recent = [call for call in self.calls[-int(4 * self.rate) :] if call.ended_ns >= since]
            if len(recent) >= 0.9 * self.rate * STEADY_S and all(call.ok for call in recent):
                return
            await asyncio.sleep(0.05)
        raise Unavailable(f"calls did not become steady within {STEADY_DEADLINE_S:g} s")

    async def window(self, from_ns: int, seconds: float) -> "Window":
        """The calls that started within the window, once all of them have ended."""
        to_ns = from_ns + int(seconds * 1e9)
        await asyncio.sleep(max(0.0, (to_ns - time.monotonic_ns()) / 1e9))
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            found = self._started_within(from_ns, to_ns)
            if len(found.calls) >= self.rate * seconds - 1:
                break
            await asyncio.sleep(0.1)
        return self._started_within(from_ns, to_ns)

    def _started_within(self, from_ns: int, to_ns: int) -> "Window":
        # A call in hand at the moment of the fault is hit by it too.
        hit = [call for call in self.calls if call.ended_ns >= from_ns and call.started_ns <= to_ns]
        before = [call.ended_ns for call in self.calls if call.ok and call.ended_ns < from_ns]
        return Window(from_ns, to_ns, hit, max(before, default=from_ns), self.rate)


@dataclass(frozen=True)
class Window:
    """The calls that a fault could hit."""

    from_ns: int
    to_ns: int
    calls: list[Call]
    #: When the last call before it was answered.
    before_ns: int
    rate: float

    @property
    def outage_ms(self) -> float:
        """Longest time between two successive answers, less the normal one between two calls."""
        answers = sorted(call.ended_ns for call in self.calls if call.ok)
        points = [self.before_ns, *answers]
        if not answers or self.to_ns > answers[-1]:
            points.append(self.to_ns)
        longest = max(late - early for early, late in itertools.pairwise(points))
        return max(0.0, longest / MS - 1000 / self.rate)

    @property
    def failed_idempotent(self) -> int:
        """Calls that may be repeated and failed all the same."""
        return sum(not call.ok for call in self.calls if call.idempotent)

    @property
    def failed_other(self) -> int:
        """Calls that may not be repeated and failed."""
        return sum(not call.ok for call in self.calls if not call.idempotent)

    def slowest_ms(self, *, idempotent: bool) -> float:
        """How long the slowest answered call took."""
        return max(
            (
                (call.ended_ns - call.started_ns) / MS
                for call in self.calls
                if call.ok and call.idempotent == idempotent
            ),
            default=0.0,
        )

    @property
    def over_ms(self) -> float:
        """From the fault to the end of the last idempotent call that failed or was slow; 0: none was."""
        ends = [
            call.ended_ns
            for call in self.calls
            if call.idempotent and (not call.ok or call.ended_ns - call.started_ns > SLOW_MS * MS)
        ]
        return (max(ends) - self.from_ns) / MS if ends else 0.0

    def codes(self) -> dict[str, int]:
        """Failed calls by status."""
        failed = [call.code for call in self.calls if not call.ok]
        return {code: failed.count(code) for code in sorted(set(failed))}


@asynccontextmanager
async def northbound_load(
    address: str, *, rate: float = RATE, enter: tuple[str, ...] = ()
) -> AsyncIterator[Load]:
    """Calls for as long as the body runs."""
    client = await asyncio.create_subprocess_exec(
        *enter, sys.executable, "-m", "sidecar.demo.load", address, str(rate),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        env=environment(), cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    load = Load(rate)
    reader = asyncio.create_task(_read(client, load), name="northbound-load")
    try:
        yield load
        client.terminate()
        await asyncio.wait_for(reader, 2 * DEADLINE_S)
    finally:
        reader.cancel()
        if client.returncode is None:
            client.kill()
        await client.wait()


async def _read(client: asyncio.subprocess.Process, load: Load) -> None:
    assert client.stdout is not None
    async for line in client.stdout:
        load.calls.append(Call(*json.loads(line)))
