"""The fence process: clears this host when its sidecar is late, frozen or dead.

Run as `python3 -IS fence_process.py FD PID`: FD is one end of a SOCK_SEQPACKET
pair, PID the sidecar. It knows nothing of leases beyond one deadline on
CLOCK_BOOTTIME, and shares no code with the sidecar, on purpose. What is
registered is cleared when the deadline passes, when the sidecar ends, or when
the socket closes without `close`; and at once when it is registered while no
deadline lies ahead, since that comes from a sidecar that has slept.

Messages in, one per packet: `deadline NS`, `add JSON`, `remove NAME`,
`ping TEXT`, `close`. Messages out: `pong TEXT`, `refused JSON` (an `add` that
cannot be held), `fenced JSON` (cleared; a later deadline arms it again).

Trees: `{"kind": "tree", "name", "pid", "start_time", "cgroup"}`; a cgroup v2 path
is killed as a whole and verified empty; without one the process, its group, its
session and its descendants are stopped, collected and killed until none is
left. Signals go through pidfds whose start time was compared, so a re-used
process id is never hit. Addresses: `{"kind": "vip", "name", "ifindex",
"address", "prefix"}`.

Absent here: any decision about who may act.
"""

import ctypes
import errno
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
from typing import Protocol

CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
TFD_NONBLOCK = os.O_NONBLOCK
TFD_TIMER_ABSTIME = 1
#: Between two looks at what is being cleared.
VERIFY_PAUSE_S = 0.001
VERIFY_PAUSE_S_MAX = 0.05
#: After this an orphaned fence process gives up on what cannot be cleared.
VERIFY_S_MAX = 60.0
PACKET_BYTES_MAX = 4096
CGROUP_ROOT = "/sys/fs/cgroup/"

RTM_DELADDR = 21
NLM_F_REQUEST_ACK = 0x05
IFA_ADDRESS = 1
IFA_LOCAL = 2
NLMSG_ERROR = 2


class Guarded(Protocol):
    """Something that can be cleared."""

    name: str
    #: Struck after what is not slow.
    slow: bool

    def strike(self) -> None:
        """Begin to clear it; may be called again."""

    def is_cleared(self) -> bool:
        """Nothing of it acts any more."""

    def close(self) -> None:
        """Let go of it without clearing."""


class Stat:
    """The fields of /proc/PID/stat that identify a process and its relations."""

    def __init__(self, pid: int, text: bytes) -> None:
        fields = text[text.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start_time = int(fields[19])

    @property
    def is_gone(self) -> bool:
        return self.state in (b"Z", b"X")


def read_stat(pid: int) -> Stat | None:
    """The process as it is now; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return Stat(pid, file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def all_stats() -> dict[int, Stat]:
    """Every process that this one can see."""
    found = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {stat.pid: stat for stat in found if stat is not None}


def open_process(pid: int, start_time: int) -> int | None:
    """A pidfd for exactly this process; None when it is gone. The caller closes it."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    stat = read_stat(pid)
    if stat is None or stat.start_time != start_time:
        os.close(pidfd)
        return None
    return pidfd


def send(pidfd: int, number: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


class Cgroup:
    """A cgroup v2 directory, held open so that a later one of the same name is never hit."""

    def __init__(self, path: str) -> None:
        real = os.path.realpath(path)
        if not real.startswith(CGROUP_ROOT) or real.count("/") < CGROUP_ROOT.count("/") + 1:
            raise ValueError(f"{path} is not below {CGROUP_ROOT}")
        self._directory = os.open(real, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.close(os.open("cgroup.kill", os.O_WRONLY, dir_fd=self._directory))
            if os.stat("cgroup.procs", dir_fd=self._directory).st_ino == 0:
                raise ValueError(f"{path} is not a cgroup")
        except OSError:
            os.close(self._directory)
            raise

    def kill(self) -> None:
        try:
            file = os.open("cgroup.kill", os.O_WRONLY, dir_fd=self._directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return  # removed, which needs it to be empty
            raise
        try:
            os.write(file, b"1")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        finally:
            os.close(file)

    def is_empty(self) -> bool:
        try:
            file = os.open("cgroup.events", os.O_RDONLY, dir_fd=self._directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return True
            raise
        try:
            return b"populated 0" in os.read(file, 1024)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return True
        finally:
            os.close(file)

    def close(self) -> None:
        os.close(self._directory)


class Tree:
    """A child of the sidecar with everything it started."""

    slow = True

    def __init__(self, name: str, pid: int, start_time: int, cgroup: str | None) -> None:
        self.name = name
        self._pid = pid
        self._start_time = start_time
        self._cgroup = Cgroup(cgroup) if cgroup else None
        #: Members seen so far: pid -> (start time, pidfd).
        self._members: dict[int, tuple[int, int]] = {}
        root = open_process(pid, start_time)
        if root is not None:
            self._members[pid] = (start_time, root)

    def strike(self) -> None:
        if self._cgroup is not None:
            self._cgroup.kill()
            root = self._members.get(self._pid)
            if root is not None:
                send(root[1], signal.SIGKILL)
            return
        # Stopped processes cannot fork: once no new member turns up, all are known.
        for _, pidfd in self._members.values():
            send(pidfd, signal.SIGSTOP)
        while self._collect():
            pass
        for _, pidfd in self._members.values():
            send(pidfd, signal.SIGKILL)

    def _collect(self) -> bool:
        """Find and stop members that are not known yet; True if there were any."""
        stats = all_stats()
        leader = stats.get(self._pid)
        # The kernel does not give a number away while a group or session still bears it.
        reused = leader is not None and leader.start_time != self._start_time
        found = False
        for stat in stats.values():
            if stat.pid in self._members or stat.is_gone or stat.start_time < self._start_time:
                continue
            is_kin = not reused and self._pid in (stat.group, stat.session)
            if not is_kin and not self._is_member(stats.get(stat.parent)):
                continue
            pidfd = open_process(stat.pid, stat.start_time)
            if pidfd is not None:
                send(pidfd, signal.SIGSTOP)
                self._members[stat.pid] = (stat.start_time, pidfd)
                found = True
        return found

    def _is_member(self, stat: Stat | None) -> bool:
        return stat is not None and self._members.get(stat.pid, (None,))[0] == stat.start_time

    def is_cleared(self) -> bool:
        if self._cgroup is not None:
            return self._cgroup.is_empty() and not self._is_any_alive()
        return not self._is_any_alive() and not self._collect()

    def _is_any_alive(self) -> bool:
        for pid, (start_time, _) in self._members.items():
            stat = read_stat(pid)
            if stat is not None and stat.start_time == start_time and not stat.is_gone:
                return True
        return False

    def close(self) -> None:
        for _, pidfd in self._members.values():
            os.close(pidfd)
        self._members.clear()
        if self._cgroup is not None:
            self._cgroup.close()


class Address:
    """An address of this host that must not stay: removed by rtnetlink."""

    slow = False

    def __init__(self, name: str, ifindex: int, address: str, prefix: int) -> None:
        self.name = name
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._packed = socket.inet_pton(self._family, address)
        self._ifindex = ifindex
        self._prefix = prefix
        self._cleared = False
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(1.0)

    def strike(self) -> None:
        attribute = struct.pack("=HH", 4 + len(self._packed), IFA_LOCAL) + self._packed
        attribute += struct.pack("=HH", 4 + len(self._packed), IFA_ADDRESS) + self._packed
        body = struct.pack("=BBBBI", self._family, self._prefix, 0, 0, self._ifindex) + attribute
        header = struct.pack("=IHHII", 16 + len(body), RTM_DELADDR, NLM_F_REQUEST_ACK, 1, 0)
        self._socket.send(header + body)
        answer = self._socket.recv(4096)
        kind, code = struct.unpack_from("=4xH10xi", answer)
        done = (0, -errno.EADDRNOTAVAIL, -errno.ENODEV)
        self._cleared = kind == NLMSG_ERROR and code in done

    def is_cleared(self) -> bool:
        return self._cleared

    def close(self) -> None:
        self._socket.close()


def parse_guarded(text: str) -> Guarded:
    """What an `add` asks to hold. Fails: OSError, KeyError, ValueError, TypeError."""
    fields = json.loads(text)
    if fields["kind"] == "tree":
        pid, start_time = int(fields["pid"]), int(fields["start_time"])
        return Tree(str(fields["name"]), pid, start_time, fields["cgroup"])
    if fields["kind"] == "vip":
        ifindex, prefix = int(fields["ifindex"]), int(fields["prefix"])
        return Address(str(fields["name"]), ifindex, str(fields["address"]), prefix)
    raise ValueError(f"unknown kind {fields['kind']}")


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
        time.sleep(pause)
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

    def fence(self) -> bool:
        """Clear and forget everything; True if nothing is left."""
        names = sorted(self._guarded, key=lambda name: (self._guarded[name].slow, name))
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
                    return 0 if self.fence() else 1
                if not self.take(packet):
                    return 0
            if sidecar in ready:
                return 0 if self.fence() else 1
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
