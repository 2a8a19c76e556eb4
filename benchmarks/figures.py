"""Samples as figures, and figures against what was wanted.

A figure that could not be measured is `None`, and a reason stands beside it.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

MS: Final = 10**6


def summary(samples: Sequence[float], digits: int = 1) -> dict[str, float | int] | None:
    """Median, least and greatest of the samples; nothing of none."""
    if not samples:
        return None
    return {
        "median": round(statistics.median(samples), digits),
        "min": round(min(samples), digits),
        "max": round(max(samples), digits),
        "samples": len(samples),
    }


def percentile(samples: Sequence[float], share: float) -> float:
    """The least sample that this share of them does not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ratio(part: float | None, whole: float | None) -> float | None:
    """part / whole, where both were measured."""
    return round(part / whole, 3) if part is not None and whole else None


def dig(figures: Any, *path: str) -> Any:
    """A value inside nested figures; None when any step is missing."""
    for step in path:
        figures = figures.get(step) if isinstance(figures, dict) else None
    return figures


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, what was wanted of it, and whether it is so."""

    what: str
    measured: float | None
    wanted: float
    #: Reached when `measured` is no more than `wanted`; else when it is no less.
    at_most: bool

    def as_json(self) -> dict[str, object]:
        """As the answer shows it; `reached` is null when nothing was measured."""
        reached: bool | None = None
        if self.measured is not None:
            reached = self.measured <= self.wanted if self.at_most else self.measured >= self.wanted
        return {
            "what": self.what,
            "measured": self.measured,
            "wanted": f"{'<=' if self.at_most else '>='} {self.wanted:g}",
            "reached": reached,
        }


def at_most(what: str, measured: float | None, wanted: float) -> Target:
    """Wanted: no more than this."""
    return Target(what, measured, wanted, True)


def at_least(what: str, measured: float | None, wanted: float) -> Target:
    """Wanted: no less than this."""
    return Target(what, measured, wanted, False)
