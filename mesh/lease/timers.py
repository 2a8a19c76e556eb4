"""The durations that leases rest on, and the rules that tie them together.

Everything else in this package assumes `check_timers` found no problem.
"""

from dataclasses import dataclass
from typing import Final

from mesh import limits
from mesh.errors import Problem

NS_PER_MS: Final = 1_000_000
#: `clock_rate_error` is held in millionths, so that no decision uses floats.
PPM: Final = 1_000_000
HEARTBEATS_PER_LEASE_MIN: Final = 3
CLOCK_RATE_ERROR_MAX: Final = 0.1


@dataclass(frozen=True, slots=True)
class LeaseTimers:
    """Durations in nanoseconds.

    Invariant: the same on every host of the cluster, and free of `check_timers`
    problems.
    """

    heartbeat_ns: int = limits.HEARTBEAT_MS * NS_PER_MS
    lease_ns: int = limits.LEASE_MS * NS_PER_MS
    #: How much faster than another host's clock a host's clock may run, in millionths.
    clock_rate_error_ppm: int = round(limits.CLOCK_RATE_ERROR * PPM)
    #: Longest time from the end of a lease until nothing acts under it any more.
    release_bound_ns: int = limits.RELEASE_BOUND_MS * NS_PER_MS
    #: The same after a crash proof.
    crash_release_ns: int = limits.CRASH_RELEASE_MS * NS_PER_MS

    @property
    def lease_elsewhere_ns(self) -> int:
        """How long a lease of `lease_ns` on any other host's clock lasts at most on this one."""
        return self.lease_ns + -(-self.lease_ns * self.clock_rate_error_ppm // PPM)

    @property
    def cleared_ns(self) -> int:
        """From the last acknowledgement until nothing acts under it, on the leader's clock."""
        return self.lease_elsewhere_ns + self.release_bound_ns


def check_timers(
    *,
    heartbeat_ms: int,
    lease_ms: int,
    clock_rate_error: float,
    release_bound_ms: int,
    election_min_ms: int,
    election_max_ms: int,
) -> tuple[Problem, ...]:
    """Every rule between the timers that these settings break.

    The last rule carries the proof in `grantor`: voters stay loyal to a leader
    at least until everything its own lease covered is gone.
    """
    problems: list[Problem] = []
    durations = {
        "heartbeat_ms": heartbeat_ms,
        "lease_ms": lease_ms,
        "release_bound_ms": release_bound_ms,
        "election_min_ms": election_min_ms,
        "election_max_ms": election_max_ms,
    }
    for key, value in durations.items():
        if value <= 0:
            problems.append(Problem(f"timers.{key}", f"is {value}, must be above 0"))
    if not 0 <= clock_rate_error <= CLOCK_RATE_ERROR_MAX:
        problems.append(
            Problem(
                "timers.clock_rate_error",
                f"is {clock_rate_error}, must be from 0 to {CLOCK_RATE_ERROR_MAX}",
                str(limits.CLOCK_RATE_ERROR),
            )
        )
    if problems:
        return tuple(problems)
    if lease_ms < HEARTBEATS_PER_LEASE_MIN * heartbeat_ms:
        problems.append(
            Problem(
                "timers.lease_ms",
                f"is {lease_ms}; with a heartbeat each {heartbeat_ms} ms it must be at least"
                f" {HEARTBEATS_PER_LEASE_MIN * heartbeat_ms}, or one lost heartbeat ends a lease",
                str(HEARTBEATS_PER_LEASE_MIN * heartbeat_ms),
            )
        )
    cleared_ppm = lease_ms * (PPM + round(clock_rate_error * PPM)) + release_bound_ms * PPM
    cleared_ms = -(-cleared_ppm // PPM)
    if election_min_ms < cleared_ms:
        problems.append(
            Problem(
                "timers.election_min_ms",
                f"is {election_min_ms}, must be at least {cleared_ms}"
                " (lease_ms x (1 + clock_rate_error) + release_bound_ms), or a new leader"
                " could take over while the old one still acts",
                str(cleared_ms),
            )
        )
    if election_max_ms <= election_min_ms:
        problems.append(
            Problem(
                "timers.election_max_ms",
                f"is {election_max_ms}, must be above election_min_ms ({election_min_ms}),"
                " or candidates keep splitting the vote",
                str(2 * election_min_ms),
            )
        )
    return tuple(problems)
