"""The clocks of one simulated machine, none of which shows true time."""

from collections.abc import Callable
from typing import Final

NS: Final = 1_000_000_000
MS: Final = 1_000_000
PPM: Final = 1_000_000


class Clock:
    """Boottime, monotonic and wall clock, at one rate against true time.

    Boottime goes on while the machine is suspended; monotonic stands still then; the wall clock
    can be set. Invariant: boottime and monotonic never go back.
    """

    def __init__(self, true_now: Callable[[], int], *, rate_ppm: int, offset_ns: int, wall_ns: int) -> None:
        self._true_now = true_now
        self._rate = PPM + rate_ppm
        self._since = true_now()
        self._local = offset_ns
        self._wall_ahead = wall_ns
        #: How long the machine was suspended in all, on its own clock.
        self._asleep = 0

    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        return self._local + (self._true_now() - self._since) * self._rate // PPM

    def monotonic_s(self) -> float:
        """CLOCK_MONOTONIC, as `loop.time()` gives it."""
        return (self._local + (self._true_now() - self._since) * self._rate // PPM - self._asleep) / 1e9

    def wall_ns(self) -> int:
        """CLOCK_REALTIME."""
        return self.boottime_ns() + self._wall_ahead

    def true_ns(self, local_ns: int) -> int:
        """How long *local_ns* on this clock lasts in truth, rounded up."""
        return -(-local_ns * PPM // self._rate)

    def true_at(self, boottime_ns: int) -> int:
        """The true time at which boottime will show this."""
        return self._since + self.true_ns(boottime_ns - self._local)

    def set_rate(self, rate_ppm: int) -> None:
        """Run so much faster than true time from now on."""
        self._local = self.boottime_ns()
        self._since = self._true_now()
        self._rate = PPM + rate_ppm

    def slept(self, true_ns: int) -> None:
        """The machine was suspended for so long: only boottime went on."""
        self._asleep += true_ns * self._rate // PPM

    def step_wall(self, by_ns: int) -> None:
        """The wall clock is set."""
        self._wall_ahead += by_ns
