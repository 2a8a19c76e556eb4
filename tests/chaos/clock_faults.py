"""Faults of clocks: of the wall clock while a sidecar runs, and of the others across a reboot."""

import sys
from pathlib import Path
from typing import ClassVar

from tests.chaos.fault import Fault
from tests.chaos.process_faults import HostKilled, has_lease
from tests.harness.waiting import let_pass, wait_for

#: Debian and others keep it below the name of the architecture.
PLACES = "usr/lib/*/faketime/libfaketimeMT.so.1"
JUMPS_S = (-1800, -60, -2, 3, 90, 3600, 86_400)


class ClockJump(Fault):
    kind: ClassVar[str] = "clock-jump"
    about: ClassVar[str] = "the wall clock of a host jumps to and fro, by seconds to a day"
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 10.0)
    ends_target: ClassVar[bool] = True

    @classmethod
    def why_not(cls) -> str:
        """See Fault."""
        return "" if library() else f"needs libfaketime (/{PLACES})"

    def inject(self) -> None:
        """The sidecar is started anew under a library that answers for the wall clock only."""
        self._clock = self.target.directory / "clock"
        self._set(0)
        self.stage.kill(self.target)
        self.stage.start(
            self.target,
            *("env", f"LD_PRELOAD={library()}", f"FAKETIME_TIMESTAMP_FILE={self._clock}"),
            *("FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1"),
            *(sys.executable, "-m", "tests.chaos.faked_clock"),
        )
        wait_for(lambda: has_lease(self.target), f"{self.target.name} has its lease", 90.0)

    def hold(self, seconds: float) -> None:
        for _ in range(3):
            self._set(self.chance.choice(JUMPS_S))
            let_pass(seconds / 3)

    def heal(self) -> None:
        """One more jump: the next life is without the library, which makes every look at a clock slow."""
        self.stage.kill(self.target)
        # What the library would leave behind when the sidecar is killed; it has it open.
        for name in (f"faketime_shm_{self.target.pid}", f"sem.faketime_sem_{self.target.pid}"):
            (Path("/dev/shm") / name).unlink(missing_ok=True)

    def _set(self, offset_s: int) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.replace(self._clock)


def library() -> str:
    """Where it is; empty when it is not installed."""
    return next((str(path) for path in sorted(Path("/").glob(PLACES))), "")


class ClockReset(HostKilled):
    kind: ClassVar[str] = "clock-reset"
    about: ClassVar[str] = "a machine loses power, and boots with other monotonic and boot clocks"
    programs: ClassVar[tuple[str, ...]] = ("unshare",)

    def heal(self) -> None:
        # Positive only: a time namespace refuses what would make a clock negative.
        offset_s = self.chance.randint(1, 10_000_000)
        self.stage.network.link_up(self.number)
        clocks = ("unshare", "--time", "--boottime", str(offset_s), "--monotonic", str(offset_s))
        self.stage.start(self.target, *clocks)


ALL: tuple[type[Fault], ...] = (ClockJump, ClockReset)
