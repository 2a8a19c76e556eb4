"""Starting one process so that nothing leaks into it, and knowing when it ends.

Everything a process must do to itself is done by small programs that become
one another: setpriv(1) sets the parent death signal of exclusive things,
no-new-privileges and the user, a fixed line of sh(1) joins the cgroups, and then
comes the command, as a list of arguments that no shell ever reads. Where one
of the two is missing, launcher.py stands in. No Python code runs between fork
and exec, which could deadlock beside gRPC's threads, and nothing of the
command runs outside its cgroup.

Exit is noticed through a pidfd, which never confuses a process with a later
one of the same number.

Source: pidfd_open(2), prctl(2), setpriv(1).
"""

import contextlib
import ctypes
import errno
import functools
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
#: Of two processes the kernel prefers to kill a service, not the sidecar.
_OOM_SCORE_ADJ: Final = "500"
#: PARENT [PROCS-FILE…] -- COMMAND…: ends if the parent is gone already (its death signal
#: came too early then), joins the groups, and becomes the command.
_JOIN: Final = (
    'if [ -n "$1" ] && [ "$1" != "$PPID" ]; then exit 125; fi; shift; '
    'while [ "$1" != -- ]; do echo 0 >"$1" || exit 126; shift; done; shift; '
    'unset PWD OLDPWD SHLVL; exec "$@"'
)


def become_subreaper() -> None:
    """Have orphans of the instances come to this process, where they are reaped."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is not there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended. `code` is None when a signal ended it, or nobody could see it."""

    code: int | None
    signal: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a new process is given. It inherits nothing else."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    user: str
    #: Killed by the kernel when the sidecar dies.
    dies_with_parent: bool
    #: cgroup.procs files of the groups to join.
    groups: tuple[str, ...] = ()
    #: Open file for its output; -1 throws the output away.
    output: int = -1
    #: When memory runs out, the kernel kills it rather than the sidecar.
    dispensable: bool = True


class Child:
    """A process known by pid, start time and pidfd: our own child or an adopted one."""

    def __init__(self, pid: int, pidfd: int, popen: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start_ticks = start_ticks(pid)
        self._popen = popen

    def signal_group(self, number: int) -> None:
        """Signal its process group, while its own process is there to hold the number."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, 0)
            with contextlib.suppress(PermissionError):
                os.killpg(self.pid, number)

    def wait(self) -> None:
        """Block until it ends: only for programs known to be quick."""
        select.select([self.pidfd], [], [], 10)

    def ended(self) -> Ended:
        """How it ended, once its pidfd has become readable; the zombie stays for now."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            found = os.waitid(os.P_PIDFD, self.pidfd, flags)
        except ChildProcessError:
            return Ended(code=None)
        if found is None:
            return Ended(code=None)
        if found.si_code == os.CLD_EXITED:
            return Ended(code=found.si_status)
        return Ended(code=None, signal=found.si_status)

    def let_go(self) -> None:
        """Leave it running for a later sidecar."""
        if self._popen is not None:
            self._popen.returncode = 0  # else subprocess would try to reap it
        _own.discard(self.pid)
        os.close(self.pidfd)

    def release(self) -> None:
        """Reap it and forget it. Only now can the kernel give its number away."""
        if self._popen is not None:
            self._popen.wait()
        else:
            with contextlib.suppress(ChildProcessError):  # adopted: another's child, or come to us
                os.waitpid(self.pid, os.WNOHANG)
        _own.discard(self.pid)
        os.close(self.pidfd)


#: Main processes that are ours to reap.
_own: set[int] = set()


def own_pids() -> frozenset[int]:
    """Started by `spawn` and not released yet."""
    return frozenset(_own)


def spawn(launch: Launch) -> Child:
    """Start a process in a session of its own.

    Must run in the main thread: the parent death signal is tied to the thread
    that forks. Fails: OSError (ENOENT, EACCES, EAGAIN, ENOMEM, EMFILE …), and
    nothing is left behind.
    """
    popen = subprocess.Popen(
        [*_prefix(launch), *launch.command],
        env=dict(launch.environment),
        cwd=launch.directory or "/",
        stdin=subprocess.DEVNULL,
        stdout=launch.output if launch.output >= 0 else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        close_fds=True,
    )
    try:
        pidfd = os.pidfd_open(popen.pid)
    except OSError:
        popen.kill()
        popen.wait()
        raise
    if launch.dispensable:
        with contextlib.suppress(OSError):
            Path(f"/proc/{popen.pid}/oom_score_adj").write_text(_OOM_SCORE_ADJ)
    _own.add(popen.pid)
    return Child(popen.pid, pidfd, popen)


def open_again(pid: int, ticks: int) -> Child | None:
    """The process an earlier sidecar started, if it still lives."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # Looked at after opening: the pidfd now pins the process the ticks belong to.
    if not ticks or start_ticks(pid) != ticks or _is_zombie(pid):
        os.close(pidfd)
        return None
    return Child(pid, pidfd, None)


def uid_of(user: str) -> int | None:
    """The number of a user given by name or number; None when there is no such name."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def owner_of(user: str) -> tuple[int, int]:
    """User and group number a process runs as; -1 for "as the sidecar does"."""
    uid = uid_of(user) if user else None
    if uid is None:
        return -1, -1
    try:
        return uid, pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid, uid


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@functools.cache
def _shell() -> str | None:
    return shutil.which("sh")


#: The event loop stands still meanwhile, so not for long; a start that fails is tried again.
_TRIAL_S: Final = 2.0


@functools.cache
def _setpriv() -> str | None:
    """The path of a setpriv that knows what we ask of it.

    Fails: OSError when it does not answer, which is not remembered.
    """
    path = shutil.which("setpriv")
    if path is None:
        return None
    trial = [path, "--no-new-privs", "--pdeathsig", "KILL", "--inh-caps=-all", "--", path, "-V"]
    try:
        done = subprocess.run(trial, capture_output=True, timeout=_TRIAL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"{path} does not answer within {_TRIAL_S} s") from error
    return path if done.returncode == 0 else None


def _prefix(launch: Launch) -> list[str]:
    """The programs that become one another before the command.

    Order: death signal first, so that hardly a moment is without it; then the
    groups, which takes rights; then the user, and the death signal once more,
    because a change of user clears it.
    """
    setpriv, shell = _setpriv(), _shell()
    parent = str(os.getpid()) if launch.dies_with_parent else ""
    if setpriv is None or shell is None:
        if launch.user:
            raise OSError("setpriv (util-linux) and sh are needed to run a program as another user")
        launcher = str(Path(__file__).with_name("launcher.py"))
        return [sys.executable, "-IS", launcher, parent, *launch.groups, "--"]
    death = ["--pdeathsig", "KILL"] if launch.dies_with_parent else []
    arguments = [setpriv, "--no-new-privs", "--inh-caps=-all", *death, "--"]
    if launch.groups or parent:
        arguments += [shell, "-c", _JOIN, "sh", parent, *launch.groups, "--"]
    if launch.user:
        arguments += [setpriv, *_user_arguments(launch.user), *death, "--"]
    return arguments


def _user_arguments(user: str) -> list[str]:
    uid, gid = owner_of(user)
    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        groups = [gid]
    listed = ",".join(str(group) for group in groups)
    return ["--reuid", str(uid), "--regid", str(gid), "--groups", listed]
