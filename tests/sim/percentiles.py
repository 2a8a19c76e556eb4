"""Durations in few words: how many, the median, the 99th percentile, the longest."""

from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """By nearest rank; *ordered* rises and is not empty."""
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1_000) * len(ordered) // 1_000) - 1))]


def figures(ms: Sequence[float]) -> dict[str, float]:
    """For programs."""
    if not ms:
        return {"count": 0}
    ordered = sorted(ms)
    return {
        "count": len(ordered),
        "p50": round(percentile(ordered, 0.5), 1),
        "p99": round(percentile(ordered, 0.99), 1),
        "max": round(ordered[-1], 1),
    }


def spread(ms: Sequence[float]) -> str:
    """For people."""
    told = figures(ms)
    if not told["count"]:
        return "never"
    if told["count"] == 1:
        return f"once, {told['max']:,.0f} ms"
    return f"{told['count']} times; p50 {told['p50']:,.0f}, p99 {told['p99']:,.0f}, max {told['max']:,.0f} ms"
