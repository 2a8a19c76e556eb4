"""What many runs came to: the JSON line, and the exit code."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tests.sim.percentiles import figures
from tests.sim.running import Result

CLEAN: Final = 0
BUG: Final = 1
SAFETY: Final = 2
LIVENESS: Final = 3
#: What was measured: nobody led or owned, while a majority was well, or while faults went on.
GAPS: Final = ("leader-calm", "leader-faults", "owner-calm", "owner-faults")


class Summary:
    """Adds up results, in the order of their seeds."""

    def __init__(self) -> None:
        self.violations: list[dict[str, Any]] = []
        self.faults: Counter[str] = Counter()
        self.failpoints: Counter[str] = Counter()
        self.simulated_s = 0.0
        self.seeds = 0
        self.elections = 0
        self.gaps: dict[str, list[float]] = {name: [] for name in GAPS}
        self._events = 0
        self._done = 0
        self._hashes: list[str] = []

    def add(self, result: Result) -> None:
        """One more."""
        outcome = result.outcome
        self.faults.update(outcome.faults)
        self.failpoints.update(outcome.failpoints)
        self.simulated_s += outcome.simulated_s
        self.seeds += 1
        self.elections += result.elections
        for name, lengths in result.gaps.items():
            self.gaps[name] += lengths
        self._events += outcome.events
        self._done += outcome.done
        self._hashes.append(outcome.trace_hash)
        if result.found is not None:
            self.violations.append(result.found.as_json())

    def line(self, wall_s: float) -> dict[str, Any]:
        """The JSON line."""
        return {
            "violations": self.violations,
            "events": self._events,
            "simulated_seconds": round(self.simulated_s, 3),
            "wall_seconds": round(wall_s, 3),
            "trace_hash": self._hashes[0] if len(self._hashes) == 1 else _together(self._hashes),
            "seeds": self.seeds,
            "requests_done": self._done,
            "elections": self.elections,
            "without_ms": {name: figures(lengths) for name, lengths in self.gaps.items()},
            "faults": dict(sorted(self.faults.items())),
            "failpoints": dict(sorted(self.failpoints.items())),
        }


def _together(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def exit_code(violations: Sequence[dict[str, Any]]) -> int:
    """The gravest kind decides."""
    kinds = {each["kind"] for each in violations}
    for kind, code in (("crash", BUG), ("safety", SAFETY), ("liveness", LIVENESS)):
        if kind in kinds:
            return code
    return CLEAN
