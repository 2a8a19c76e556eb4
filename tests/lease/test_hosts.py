"""Verdicts about hosts, and the rules between the timers."""

import pytest

from mesh import limits
from mesh.ids import HostId
from mesh.lease.hosts import (
    GOOD_BEATS,
    crashed,
    decide_hosts,
    heard,
    next_verdict_at,
    opened,
    suspect_after_ns,
)
from mesh.lease.model import HostStanding, Verdict
from mesh.lease.timers import LeaseTimers, check_timers

A = HostId("a")
TIMERS = LeaseTimers(heartbeat_ns=100_000_000, lease_ns=1_200_000_000)
BEAT = TIMERS.heartbeat_ns
T0 = 10**12


def judge(standing: HostStanding, now: int) -> tuple[HostStanding, list[Verdict]]:
    (after,), changes = decide_hosts([standing], now, TIMERS)
    return after, [change.after for change in changes]


def beats(standing: HostStanding, count: int, start: int) -> tuple[HostStanding, int]:
    """Beats in rhythm, judged after each."""
    for number in range(count):
        standing = heard(standing, start + number * BEAT, TIMERS)
        standing, _ = judge(standing, start + number * BEAT)
    return standing, start + (count - 1) * BEAT


def test_silence_makes_a_host_suspect_and_then_lost() -> None:
    """Goal: no verdict a moment early or late. Method: one beat, then judge 1 ns before and at each bound."""
    standing = heard(opened(A, T0), T0, TIMERS)
    assert judge(standing, T0 + suspect_after_ns(TIMERS) - 1) == (standing, [])
    assert next_verdict_at([standing], TIMERS) == T0 + suspect_after_ns(TIMERS)
    standing, after = judge(standing, T0 + suspect_after_ns(TIMERS))
    assert after == [Verdict.SUSPECT]
    assert next_verdict_at([standing], TIMERS) == T0 + TIMERS.cleared_ns
    assert judge(standing, T0 + TIMERS.cleared_ns - 1)[1] == []
    standing, after = judge(standing, T0 + TIMERS.cleared_ns)
    assert after == [Verdict.LOST]
    assert standing.since == T0 + TIMERS.cleared_ns
    assert next_verdict_at([standing], TIMERS) is None


def test_three_late_beats_are_forgiven_and_a_fourth_makes_a_host_suspect_within_its_lease() -> None:
    """Goal: jitter of a few beats costs nobody its services.

    Method: judge after three and four intervals of silence.
    """
    standing = heard(opened(A, T0), T0, TIMERS)
    assert judge(standing, T0 + 3 * BEAT)[1] == []
    assert judge(standing, T0 + 4 * BEAT)[1] == [Verdict.SUSPECT]
    assert TIMERS.lease_ns > 4 * BEAT


def test_a_crash_proof_loses_a_host_at_once_and_a_beat_of_its_new_process_does_not_save_it() -> None:
    """Goal: a proven death is acted on without waiting, and not undone by a restart.

    Method: proof, then beats one by one.
    """
    standing, now = beats(opened(A, T0), 20, T0)
    standing, after = judge(crashed(standing, now + 1), now + 1)
    assert after == [Verdict.LOST]
    assert judge(standing, now + 2)[1] == []
    standing, now = beats(standing, GOOD_BEATS - 1, now + BEAT)
    assert standing.verdict is Verdict.LOST
    standing, now = beats(standing, 1, now + BEAT)
    assert standing.verdict is Verdict.ALIVE


def test_a_suspect_host_returns_only_after_beats_without_a_gap() -> None:
    """Goal: a flapping host does not count as alive. Method: one good beat too few, a gap, and again."""
    standing, _ = beats(opened(A, T0), 20, T0)
    silent_until = T0 + 19 * BEAT + suspect_after_ns(TIMERS)
    standing, after = judge(standing, silent_until)
    assert after == [Verdict.SUSPECT]
    standing, now = beats(standing, GOOD_BEATS - 1, silent_until + BEAT)
    assert standing.verdict is Verdict.SUSPECT
    gap = now + suspect_after_ns(TIMERS) + 1
    standing, now = beats(standing, GOOD_BEATS - 1, gap)
    assert standing.verdict is Verdict.SUSPECT, "the gap began the count anew"
    assert judge(standing, now + 1)[1] == []
    assert beats(standing, 1, now + BEAT)[0].verdict is Verdict.ALIVE


def test_beats_of_long_ago_do_not_bring_a_host_back() -> None:
    """A good streak counts only while it goes on."""
    standing = HostStanding(A, Verdict.SUSPECT, since=T0, last_beat=T0, streak=GOOD_BEATS)
    assert judge(standing, T0 + suspect_after_ns(TIMERS))[1] == []


def test_changes_say_what_they_rest_on() -> None:
    """Goal: an operator can see why a host was judged.

    Method: one silent host, one proven dead; compare the reasons.
    """
    standings = [opened(HostId("b"), T0), crashed(opened(A, T0), T0)]
    _, changes = decide_hosts(standings, T0 + 5 * BEAT, TIMERS)
    assert [(change.host, change.because) for change in changes] == [
        ("b", "no beat for 500 ms"),
        ("a", "its sidecar is proven dead"),
    ]


SOUND = {
    "heartbeat_ms": 100,
    "lease_ms": 1_200,
    "clock_rate_error": 0.001,
    "release_bound_ms": 250,
    "election_min_ms": 1_500,
    "election_max_ms": 2_500,
}


def test_the_defaults_obey_all_rules() -> None:
    """Goal: nobody who changes nothing runs with timers that contradict each other.

    Method: check the shipped bounds.
    """
    problems = check_timers(
        heartbeat_ms=limits.HEARTBEAT_MS,
        lease_ms=limits.LEASE_MS,
        clock_rate_error=limits.CLOCK_RATE_ERROR,
        release_bound_ms=limits.RELEASE_BOUND_MS,
        election_min_ms=limits.ELECTION_MS_MIN,
        election_max_ms=limits.ELECTION_MS_MAX,
    )
    assert problems == ()


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        ({"lease_ms": 299}, ["timers.lease_ms"]),
        ({"lease_ms": 300}, []),
        ({"election_min_ms": 1_451}, ["timers.election_min_ms"]),
        ({"election_min_ms": 1_452}, []),
        ({"election_max_ms": 1_500}, ["timers.election_max_ms"]),
        ({"lease_ms": 0, "heartbeat_ms": -1}, ["timers.heartbeat_ms", "timers.lease_ms"]),
        ({"clock_rate_error": -0.1}, ["timers.clock_rate_error"]),
        ({"clock_rate_error": 0.2}, ["timers.clock_rate_error"]),
        (
            {"lease_ms": 200, "election_min_ms": 300, "election_max_ms": 200},
            ["timers.lease_ms", "timers.election_min_ms", "timers.election_max_ms"],
        ),
    ],
)
def test_every_broken_rule_is_reported_at_once(change: dict[str, float], paths: list[str]) -> None:
    """Goal: each relation between timers is enforced, right up to its edge.

    Method: table of settings on both sides of each bound.
    """
    problems = check_timers(**(SOUND | change))  # type: ignore[arg-type]  # keys and types as above
    assert [problem.path for problem in problems] == paths


def test_the_example_in_a_problem_is_accepted() -> None:
    """Goal: who follows the advice is not refused again.

    Method: put the example of the problem into the settings.
    """
    (problem,) = check_timers(**(SOUND | {"election_min_ms": 1_000}))  # type: ignore[arg-type]  # as above
    assert check_timers(**(SOUND | {"election_min_ms": int(problem.example)})) == ()  # type: ignore[arg-type]


def test_a_lease_lasts_longer_on_a_faster_clock_rounded_up() -> None:
    """Goal: rounding never makes the wait shorter than the lease.

    Method: an error rate whose product is no whole nanosecond.
    """
    timers = LeaseTimers(lease_ns=1_000_001, clock_rate_error_ppm=1_000)
    assert timers.lease_elsewhere_ns == 1_000_001 + 1_001
