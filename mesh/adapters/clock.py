"""The clocks of this host."""

import time


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: never set, and goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ns() -> int:
    """Wall clock, for people only; may jump."""
    return time.time_ns()
