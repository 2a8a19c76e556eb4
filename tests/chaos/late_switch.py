"""Makes frames late: a process between the cables of hosts and their switch, over TAP devices.

`python -m tests.chaos.late_switch ORDER`, in the network namespace of the switch. The cable of host
N (`meshN`) is moved from the bridge `mesh` to a bridge `lateN` of its own; what comes out of that is
read from one TAP device and written, later, to another that is a port of `mesh`, and back. So the
kernel has made whole frames of what it would have passed on unfinished (checksums, segments).

ORDER, in JSON: `hosts`, `seed`, `delay_ms` [least, most], `twice_percent`, `straggler_percent`.
Prints "ready" when frames pass. The devices vanish with the process, however it ends; the bridges
and cables are put back by whoever started it.

Bound: `QUEUE_MAX` frames; beyond that they are lost, as on a real link.
"""

import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES_MAX = 65_536
QUEUE_MAX = 20_000
#: A straggler takes so many times the longest delay.
STRAGGLES = 10


def open_tap(name: str) -> int:
    """A device that exists while the descriptor is open. Fails: OSError."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


@dataclass(slots=True)
class LateSwitch:
    """Frames under way, by when they are due."""

    chance: random.Random
    delay_ms: tuple[int, int]
    twice_percent: int
    straggler_percent: int
    #: From a descriptor to the one that its frames go to.
    ways: dict[int, int] = field(default_factory=dict)
    _due: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def take(self, source: int, now: float) -> None:
        """Read what has come, and draw when it goes on."""
        while True:
            try:
                frame = os.read(source, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            copies = 1 + (self.chance.random() * 100 < self.twice_percent)
            for _ in range(copies if len(self._due) < QUEUE_MAX else 0):
                heapq.heappush(
                    self._due, (now + self._delay_s(), next(self._numbers), self.ways[source], frame)
                )

    def _delay_s(self) -> float:
        least, most = self.delay_ms
        if self.chance.random() * 100 < self.straggler_percent:
            most *= STRAGGLES
        return self.chance.uniform(least, most) / 1000

    def send_due(self, now: float) -> float:
        """Send what is due; seconds until the next frame is."""
        while self._due and self._due[0][0] <= now:
            _, _, target, frame = heapq.heappop(self._due)
            try:
                os.write(target, frame)
            except (BlockingIOError, OSError):
                continue  # the other side is full or its link is down: lost
        return max(0.0, self._due[0][0] - now) if self._due else 1.0


def ip(*commands: str) -> None:
    """Fails: CalledProcessError."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def main() -> None:
    """Until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    order = json.loads(sys.argv[1])
    least, most = order["delay_ms"]
    switch = LateSwitch(
        random.Random(order["seed"]), (least, most), order["twice_percent"], order["straggler_percent"]
    )
    for number in order["hosts"]:
        near, far = open_tap(f"near{number}"), open_tap(f"far{number}")
        switch.ways |= {near: far, far: near}
        ip(
            f"link add late{number} type bridge",
            f"link set late{number} up",
            f"link set near{number} master late{number} up",
            f"link set far{number} master mesh up",
            f"link set mesh{number} master late{number}",
        )
    print("ready", flush=True)
    wait_s = 0.0
    while True:
        ready, _, _ = select.select(list(switch.ways), [], [], wait_s)
        for source in ready:
            switch.take(source, time.monotonic())
        wait_s = switch.send_due(time.monotonic())


if __name__ == "__main__":
    main()
