"""The fence process: clears this host when its sidecar is late, frozen or dead.

Run as `python3 -IS fence_process.py FD PID`: FD is one end of a SOCK_SEQPACKET
pair, PID the sidecar. It knows nothing of leases beyond one deadline on
CLOCK_BOOTTIME, and shares no code with the sidecar, on purpose. What is
registered is cleared when the deadline passes, when the sidecar ends, or when
the socket closes without `close`; and at once when it is registered while no
deadline lies ahead, since that comes from a sidecar that has slept. A tree that
`waits` may outlive a sidecar that has died, until the deadline and no longer.

Messages in, one per packet: `deadline NS`, `add JSON`, `remove NAME`,
`ping TEXT`, `close`. Messages out: `pong TEXT`, `refused JSON` (an `add` that
cannot be held), `fenced JSON` (cleared; a later deadline arms it again).

Trees: `{"kind": "tree", "name", "pid", "start_time", "cgroup", "waits"}`; a cgroup v2 path
is killed as a whole and verified empty; without one the process, its group, its
session and its descendants are stopped, collected and killed until none is
left. Signals go through pidfds whose start time was compared, so a re-used
process id is never hit. Addresses: `{"kind": "vip", "name", "ifindex",
"address", "prefix"}`.

Absent here: any decision about who may act.
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.fence.guarded import Guarded, parse_guarded
else:
    # Isolated mode leaves the program's own folder out; last, so that nothing there shadows the library.
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    from guarded import Guarded, parse_guarded

CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
TFD_NONBLOCK = os.O_NONBLOCK
TFD_TIMER_ABSTIME = 1
#: Between two looks at what is being cleared.
VERIFY_PAUSE_S = 0.001
VERIFY_PAUSE_S_MAX = 0.05
#: After this an orphaned fence process gives up on what cannot be cleared.
VERIFY_S_MAX = 60.0
#: A process closes its sockets just before it can be seen to have ended.
END_SEEN_MS = 250
PACKET_BYTES_MAX = 4096


def clear(guarded: list[Guarded]) -> list[str]:
    """Clear everything; names of what is still there after `VERIFY_S_MAX`.

    Order: everything is struck once before anything is verified, so that one
    stubborn process delays nothing else.
    """
    pending = list(guarded)
    pause = VERIFY_PAUSE_S
    give_up = time.monotonic() + VERIFY_S_MAX
    while True:
        for thing in pending:
            attempt(thing.strike)
        pending = [thing for thing in pending if not attempt(thing.is_cleared)]
        if not pending or time.monotonic() > give_up:
            return [thing.name for thing in pending]
        select.select([], [], [], pause)  # the kernel announces an empty tree in no one way
        pause = min(2 * pause, VERIFY_PAUSE_S_MAX)


def attempt(step: Callable[[], bool | None]) -> bool:
    """Take one step; its failure is reported and must not keep the others from theirs."""
    try:
        return bool(step())
    except OSError as error:
        with suppress(OSError):
            os.write(2, f"fence: {error}\n".encode())
        return False


class Timer:
    """A timer on CLOCK_BOOTTIME: after a suspend it fires on waking, not later."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | os.O_CLOEXEC))
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def arm(self, at_ns: int) -> None:
        seconds, rest = divmod(max(1, at_ns), 1_000_000_000)
        value = struct.pack("=qqqq", 0, 0, seconds, rest)
        if self._libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, value, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")


class Fence:
    """The registered things, the deadline, and the sidecar they belong to."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._guarded: dict[str, Guarded] = {}
        self._deadline = 0
        self.timer = Timer()

    def is_late(self) -> bool:
        return time.clock_gettime_ns(CLOCK_BOOTTIME) >= self._deadline

    def answer(self, text: str) -> None:
        # A frozen sidecar does not read, a dead one cannot; neither may stop the fence.
        with suppress(OSError):
            self._channel.send(text.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def take(self, packet: bytes) -> bool:
        """Handle one message; False after `close`."""
        verb, _, rest = packet.decode().partition(" ")
        if verb == "deadline":
            self._deadline = int(rest)
            self.timer.arm(self._deadline)
        elif verb == "add":
            self._add(rest)
        elif verb == "remove":
            thing = self._guarded.pop(rest, None)
            if thing is not None:
                thing.close()
        elif verb == "ping":
            self.answer(f"pong {rest}")
        return verb != "close"

    def _add(self, text: str) -> None:
        try:
            thing = parse_guarded(text)
        except (OSError, KeyError, ValueError, TypeError) as error:
            self.answer("refused " + json.dumps({"add": text, "error": str(error)}))
            return
        former = self._guarded.pop(thing.name, None)
        if former is not None:
            former.close()
        self._guarded[thing.name] = thing

    def end(self, sidecar: int) -> int:
        """The sidecar has ended or hung up: clear what must not outlive it, then the rest; the exit code.

        What waits is left alone until the deadline if the sidecar is dead: another may take it over.
        """
        done = self.fence([name for name, thing in self._guarded.items() if not thing.waits])
        poll = select.poll()
        poll.register(sidecar, select.POLLIN)
        if self._guarded and poll.poll(END_SEEN_MS):
            while not self.is_late():
                select.select([self.timer.fd], [], [], 1.0)
        return 0 if self.fence() and done else 1

    def fence(self, chosen: list[str] | None = None) -> bool:
        """Clear and forget everything, or what is chosen; True if nothing of it is left."""
        chosen = list(self._guarded) if chosen is None else chosen
        names = sorted(chosen, key=lambda name: (self._guarded[name].slow, name))
        began = time.monotonic()
        left = clear([self._guarded[name] for name in names])
        for name in names:
            if name not in left:
                self._guarded.pop(name).close()
        took_ms = (time.monotonic() - began) * 1000
        self.answer("fenced " + json.dumps({"cleared": names, "left": left, "ms": round(took_ms, 2)}))
        return not left

    def run(self, sidecar: int) -> int:
        """Serve until the sidecar ends or takes its leave; the exit code."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self.timer.fd, select.POLLIN)
        poll.register(sidecar, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            # Messages first: a new deadline may already be waiting behind an old one.
            while True:
                try:
                    packet = self._channel.recv(PACKET_BYTES_MAX, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except ConnectionResetError:
                    packet = b""
                if not packet:
                    return self.end(sidecar)
                if not self.take(packet):
                    return 0
            if sidecar in ready:
                return self.end(sidecar)
            if self.timer.fd in ready:
                with suppress(BlockingIOError):  # armed anew by a message just taken
                    os.read(self.timer.fd, 8)
            if self._guarded and self.is_late():
                self.fence()


def harden() -> None:
    """Ignore what is meant for the sidecar, and be the last to be chosen when memory ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for score in ("-1000", "-500", "0"):
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(score)
            return
        except OSError:
            continue


def main() -> int:
    harden()
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        sidecar = os.pidfd_open(int(sys.argv[2]))
    except ProcessLookupError:
        return 0  # it ended before it registered anything
    fence = Fence(channel)
    fence.answer("pong start")
    return fence.run(sidecar)


if __name__ == "__main__":
    sys.exit(main())
