"""Verdicts about hosts, from nothing but the age of their heartbeats.

A host is suspect after three missed beats and lost when its lease has run out
on any clock, or at once on a crash proof. It returns to alive only after
`GOOD_BEATS` beats without a gap, so that a flapping link does not move things
to and fro.

Invariant: lost is never left except by beats that came after it was reached.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from mesh.ids import HostId
from mesh.lease.model import HostStanding, Verdict, VerdictChange
from mesh.lease.timers import NS_PER_MS, LeaseTimers

MISSED_BEATS: Final = 3
GOOD_BEATS: Final = 3


def suspect_after_ns(timers: LeaseTimers) -> int:
    """Silence after which a host is suspect: the third beat is overdue by half a beat."""
    return MISSED_BEATS * timers.heartbeat_ns + timers.heartbeat_ns // 2


def opened(host: HostId, now: int, verdict: Verdict = Verdict.ALIVE) -> HostStanding:
    """Start an account: a new leader gives the replicated verdict and full time to beat."""
    return HostStanding(host, verdict, since=now, last_beat=now)


def heard(standing: HostStanding, now: int, timers: LeaseTimers) -> HostStanding:
    """The account after a beat; the verdict itself changes only in `decide_hosts`."""
    in_a_row = now - standing.last_beat <= suspect_after_ns(timers)
    streak = min(standing.streak + 1, GOOD_BEATS) if in_a_row else 1
    return replace(standing, last_beat=now, streak=streak, crashed_at=None)


def crashed(standing: HostStanding, now: int) -> HostStanding:
    """The account after a crash proof of the host's sidecar."""
    return replace(standing, streak=0, crashed_at=now)


def _judge(standing: HostStanding, now: int, timers: LeaseTimers) -> tuple[Verdict, str]:
    silent_ns = now - standing.last_beat
    silence = f"no beat for {silent_ns // NS_PER_MS} ms"
    if standing.crashed_at is not None:
        return Verdict.LOST, "its sidecar is proven dead"
    if silent_ns >= timers.cleared_ns:
        return Verdict.LOST, f"{silence}, its lease has run out"
    if standing.verdict is Verdict.ALIVE:
        if silent_ns >= suspect_after_ns(timers):
            return Verdict.SUSPECT, silence
    elif standing.streak >= GOOD_BEATS and silent_ns < suspect_after_ns(timers):
        return Verdict.ALIVE, f"{GOOD_BEATS} beats in a row"
    return standing.verdict, ""


def decide_hosts(
    standings: Iterable[HostStanding], now: int, timers: LeaseTimers
) -> tuple[tuple[HostStanding, ...], tuple[VerdictChange, ...]]:
    """The accounts with their new verdicts, and what changed, in the order given."""
    kept: list[HostStanding] = []
    changes: list[VerdictChange] = []
    for standing in standings:
        verdict, because = _judge(standing, now, timers)
        if verdict is standing.verdict:
            kept.append(standing)
            continue
        changes.append(VerdictChange(standing.host, standing.verdict, verdict, because))
        streak = 0 if verdict is Verdict.LOST else standing.streak
        kept.append(replace(standing, verdict=verdict, since=now, streak=streak))
    return tuple(kept), tuple(changes)


def next_verdict_at(standings: Iterable[HostStanding], timers: LeaseTimers) -> int | None:
    """When silence alone would change a verdict next; None: never."""
    due: list[int] = []
    for standing in standings:
        if standing.verdict is Verdict.ALIVE:
            due.append(standing.last_beat + suspect_after_ns(timers))
        elif standing.verdict is Verdict.SUSPECT:
            due.append(standing.last_beat + timers.cleared_ns)
    return min(due, default=None)
