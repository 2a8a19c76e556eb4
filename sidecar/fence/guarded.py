"""What the fence process can clear: process trees and addresses.

Part of the program `fence_process`: standard library only. Signals go through
pidfds whose start time was compared, so a re-used process id is never hit.
"""

import errno
import json
import os
import signal
import socket
import struct
from contextlib import suppress
from typing import Protocol

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
    #: May outlive the sidecar, until the deadline.
    waits: bool

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

    def __init__(
        self, name: str, pid: int, start_time: int, cgroup: str | None, *, waits: bool = False
    ) -> None:
        self.name = name
        self.waits = waits
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
    waits = False

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
        waits = bool(fields.get("waits", False))
        return Tree(str(fields["name"]), pid, start_time, fields["cgroup"], waits=waits)
    if fields["kind"] == "vip":
        ifindex, prefix = int(fields["ifindex"]), int(fields["prefix"])
        return Address(str(fields["name"]), ifindex, str(fields["address"]), prefix)
    raise ValueError(f"unknown kind {fields['kind']}")
