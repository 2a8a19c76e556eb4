"""What the northbound calls of a demo show: who answered, what failed, and for how long nothing was answered.

Pure: made from the load process's records, which carry monotonic nanoseconds.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

MS: Final = 10**6
#: Width of one column of the strip chart.
BUCKET_NS: Final = 250 * MS


@dataclass(frozen=True, slots=True)
class Call:
    """One finished northbound call."""

    started_ns: int
    ended_ns: int
    #: Safe to repeat, so it is retried.
    idempotent: bool
    #: gRPC status name; "OK" when it was answered.
    code: str
    #: Host whose instance answered; empty when none did.
    host: str

    @property
    def ok(self) -> bool:
        """It was answered."""
        return self.code == "OK"


@dataclass(slots=True)
class Bucket:
    """The calls that ended within one column of the strip chart."""

    by_host: Counter[str] = field(default_factory=Counter)
    failed: int = 0


@dataclass(slots=True)
class CallLedger:
    """Every call of one demo. Bound: one entry per call and per bucket; a demo lasts a minute."""

    started_ns: int
    calls: int = 0
    failed: int = 0
    failed_idempotent: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    by_host: Counter[str] = field(default_factory=Counter)
    latencies_ns: list[int] = field(default_factory=list)
    #: When each answered call ended, in order of arrival.
    answered_ns: list[int] = field(default_factory=list)
    buckets: dict[int, Bucket] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        """Count one call."""
        self.calls += 1
        self.codes[call.code] += 1
        bucket = self.buckets.setdefault((call.ended_ns - self.started_ns) // BUCKET_NS, Bucket())
        if call.ok:
            self.by_host[call.host] += 1
            bucket.by_host[call.host] += 1
            self.answered_ns.append(call.ended_ns)
            self.latencies_ns.append(call.ended_ns - call.started_ns)
        else:
            self.failed += 1
            self.failed_idempotent += call.idempotent
            bucket.failed += 1

    def largest_gap(self, from_ns: int, to_ns: int) -> tuple[int, int]:
        """The longest time between two answers that overlaps the window, as (from, to).

        The window's own borders count as answers when none lies beyond them.
        """
        ordered = sorted(self.answered_ns)
        before = [at for at in ordered if at <= from_ns]
        after = [at for at in ordered if at >= to_ns]
        inside = [at for at in ordered if from_ns < at < to_ns]
        points = [before[-1] if before else from_ns, *inside, after[0] if after else to_ns]
        gaps = itertools.pairwise(points)
        return max(gaps, key=lambda gap: gap[1] - gap[0])

    def rate_per_s(self, now_ns: int) -> float:
        """Calls answered per second, over the last two seconds."""
        since_ns = now_ns - 2_000 * MS
        recent = 0
        for at in reversed(self.answered_ns):
            if at < since_ns:
                break
            recent += 1
        return recent / 2

    def percentile_ms(self, share: float) -> float:
        """The time within which this share of the answers came."""
        if not self.latencies_ns:
            return 0.0
        ordered = sorted(self.latencies_ns)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / MS
