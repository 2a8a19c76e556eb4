"""The postmaster of this host, and the end of its whole process tree.

A backend survives its postmaster and goes on committing, and a frozen postmaster's
sessions go on too; backends leave the process group. So everything runs in one cgroup,
which the kernel kills at once, and "stopped" is said only when that group and every other
process that uses the data directory were seen to be gone.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from mesh.adapters.cgroup import Leaf
from mesh.adapters.child import Child, Launch, open_again, own_pids, spawn, start_ticks
from mesh.adapters.reaper import Reaper
from mesh.errors import Conflict, DatabaseFailed, NotInTime, TrellisError
from sidecar.postgres.engine import full_disk, server_log
from sidecar.postgres.engine.binaries import Binaries
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.tool import environment

_LOOK_S_MIN, _LOOK_S_MAX = 0.001, 0.02
#: An archive command is left alone so long when the server is to end.
ARCHIVE_S: Final = 0.5
#: Line of postmaster.pid that says how far the start is (pidfile.h).
_STATUS_LINE: Final = 8
_STATUS_UP: Final = "ready"


class StopMode(Enum):
    """How the server is asked to end; the value is the signal."""

    #: Sessions are ended, a shutdown checkpoint is written and sent to the standbys.
    FAST = signal.SIGINT
    #: As a crash, but tidy: recovery at the next start.
    IMMEDIATE = signal.SIGQUIT


@dataclass(frozen=True, slots=True)
class Running:
    """The running server, for the fence and for people."""

    pid: int
    start_ticks: int
    #: Its cgroup's folder; empty where there is none.
    cgroup: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a server ended. Its tree is verified empty."""

    #: None: killed by a signal, or nobody could see it.
    code: int | None
    took_s: float
    #: It did not end in time and was killed.
    was_killed: bool


class Postmaster:
    """At most one server, from its start until nothing of it is left.

    Must be used from the main thread. Cancellation of a wait changes nothing about the server.
    """

    def __init__(self, binaries: Binaries, layout: Layout, leaf: Leaf) -> None:
        self._binaries = binaries
        self._layout = layout
        self._leaf = leaf
        self._reaper = Reaper(leaf.path.parent) if leaf.path is not None else None
        self._child: Child | None = None
        self._ended = asyncio.Event()
        self._log_from = 0
        self._last_end: Exception | None = None
        self._last_damage: Exception | None = None
        #: Why the last server ended by itself, in its own words; empty: it did not.
        self.why_ended = ""
        self._is_asked_to_end = self._was_up = False
        #: Called when the main process ends.
        self.on_end: Callable[[], None] = lambda: None

    @property
    def running(self) -> Running | None:
        """The server's main process; None when it has ended, whatever may be left of its tree."""
        if self._child is None or self._ended.is_set():
            return None
        return Running(self._child.pid, self._child.start_ticks, str(self._leaf.path or ""))

    def is_gone(self) -> bool:
        """Nothing of it, and nothing else, uses the data directory; `kill_tree` has seen to its end."""
        return self._child is None and not self._leaf.populated() and not self.strangers()

    def strangers(self) -> list[int]:
        """PostgreSQL processes in the data directory outside our cgroup."""
        ours = set(self._leaf.members())
        return [pid for pid in processes_in(self._layout.data) if pid not in ours]

    # ---- start ---------------------------------------------------------------------

    def start(self) -> Running:
        """Start it; `wait_ready` says how that goes on.

        Order: nothing of an earlier one lives; the new process joins its cgroup before it
        becomes PostgreSQL. Fails: `Conflict` when something lives there or the data is
        partial, `DiskFull`, `DatabaseFailed` when the program cannot be run.
        """
        with full_disk.trouble_told(self._layout.root):
            self._check_free()
            self._remove_misleading_pid_file()
        self._leaf.make(0)
        output = server_log.open_log(self._layout.log)
        self._log_from = server_log.size_of(self._layout.log)
        try:
            child = spawn(
                Launch(
                    command=(self._binaries.path("postgres"), "-D", str(self._layout.data)),
                    environment=environment(),
                    directory="/",
                    user=self._layout.user,
                    dies_with_parent=False,
                    groups=self._leaf.entrances(),
                    output=output,
                    dispensable=False,
                )
            )
        except OSError as error:
            raise DatabaseFailed(f"PostgreSQL cannot be started: {error}") from error
        finally:
            os.close(output)
        return self._take(child)

    def _take(self, child: Child) -> Running:
        self._child = child
        self._is_asked_to_end, self._was_up, self._last_end, self._last_damage = False, False, None, None
        self.why_ended = ""
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(child.pidfd, self._on_end)
        self._layout.note(
            self._layout.process_note, pid=child.pid, start_ticks=child.start_ticks, boot=_boot()
        )
        running = self.running
        assert running is not None
        return running

    def _on_end(self) -> None:
        assert self._child is not None
        asyncio.get_running_loop().remove_reader(self._child.pidfd)
        self._ended.set()
        if not self._is_asked_to_end:
            error = self.explain_end()
            self.why_ended = str(error)
            self._last_end = None if self._was_up else error
            self._last_damage = error if server_log.is_ended_by_a_page(self.said()) else None
        self.on_end()

    def adopt(self) -> Running | None:
        """Go on with a server that an earlier sidecar started; None when it is not there any more."""
        note = self._layout.read_note(self._layout.process_note) or {}
        if note.get("boot") != _boot() or self._child is not None:
            return None
        child = open_again(int(str(note.get("pid", 0))), int(str(note.get("start_ticks", 0))))
        if child is None:
            return None
        self._log_from = server_log.size_of(self._layout.log)
        return self._take(child)

    def let_go(self) -> None:
        """Leave it running for a later sidecar."""
        if self._child is not None:
            asyncio.get_running_loop().remove_reader(self._child.pidfd)
            self._child.let_go()
            self._child = None

    def _check_free(self) -> None:
        if not self._layout.data.is_dir() or self._layout.is_partial:
            raise Conflict(f"{self._layout.data} is not a whole database: clone this host first.")
        if self._child is not None or self._leaf.populated():
            raise Conflict("A PostgreSQL of this host still runs, or something is left of it: end it first.")
        strangers = self.strangers()
        if strangers:
            raise Conflict(
                f"Process {strangers[0]}, which Trellis did not start, is a PostgreSQL in"
                f" {self._layout.data}:"
                f" stop it (pg_ctl stop -D {self._layout.data}).",
                pids=strangers,
            )

    def _remove_misleading_pid_file(self) -> None:
        """Its number may by now be another process, for which PostgreSQL would refuse to start.

        Only when that process exists; else the file is PostgreSQL's own to judge.
        """
        path = self._layout.data / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        if start_ticks(pid):  # not one of ours: strangers() would have named it
            path.unlink(missing_ok=True)

    # ---- waiting -------------------------------------------------------------------

    async def wait_ready(self, deadline_s: float) -> None:
        """Until it lets sessions in, as primary or standby.

        A standby does so when it is consistent: one that was cloned or rewound needs WAL from its
        primary for that, and never comes up without. Fails: `NotInTime` with the progress; it goes
        on starting and this may be asked again. When it has ended: `DiskFull`, `DataDamaged`,
        `Conflict` or `DatabaseFailed`, by its last words; what is left of its tree is for `kill_tree`.
        """
        deadline, pause = time.monotonic() + deadline_s, _LOOK_S_MIN
        while True:
            if self.running is None:
                raise self.explain_end()
            status = self.status()
            if status == _STATUS_UP:
                return
            if time.monotonic() > deadline:
                progress = self.progress()
                far = progress or status or "not begun"
                raise NotInTime(f"PostgreSQL is not up after {deadline_s:g} s ({far}).", progress=progress)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LOOK_S_MAX)

    def status(self) -> str:
        """Line 8 of postmaster.pid: starting, ready, stopping; empty before there is one."""
        try:
            lines = (self._layout.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return ""
        of_this = self._child is not None and lines[:1] == [str(self._child.pid)]
        status = lines[_STATUS_LINE - 1].strip() if of_this and len(lines) >= _STATUS_LINE else ""
        self._was_up = self._was_up or status == _STATUS_UP
        return status

    def progress(self) -> str:
        """What its startup process does, in its own words: "recovering 0000000100000000000000A3"."""
        for pid in self._leaf.members() or processes_in(self._layout.data):
            title = _told(pid, "cmdline").replace("\0", " ")
            if " startup " in title:
                return title.rpartition(" startup ")[2].strip()
        return ""

    def said(self) -> list[str]:
        """What it printed since its start, the newest 64 KiB."""
        return server_log.said_since(self._layout.log, self._log_from)

    async def trim_log(self) -> None:
        """Keep its log bounded: to be called every few seconds. Some megabytes may be copied, in a thread."""
        await asyncio.to_thread(server_log.cut_if_full, self._layout.log)

    def explain_end(self) -> Exception:
        """Why it ended, as an error that can be raised."""
        return server_log.explain(self.said(), self._layout.data)

    def last_end(self) -> Exception | None:
        """Why the last server did not come up; None: it did, or was asked to end, or there was none."""
        return self._last_end

    def last_damage(self) -> Exception | None:
        """That the last server came up and then met a page that is damaged, of which it ended."""
        return self._last_damage

    async def wait_end(self, deadline_s: float) -> bool:
        """Whether the main process has ended in time."""
        if self._child is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._ended.wait()
        return self._ended.is_set()

    # ---- end -----------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """To the main process only. Fails: `DatabaseFailed` when there is none."""
        if self._child is None or self._ended.is_set():
            raise DatabaseFailed("PostgreSQL does not run.")
        signal.pidfd_send_signal(self._child.pidfd, number)

    async def stop(self, mode: StopMode, *, deadline_s: float, kill_s: float = 5.0) -> Stopped:
        """End it, and see that nothing is left; killed when it takes longer than *deadline_s*.

        A frozen server is thawed so that it can hear. Fails: `NotInTime` as `kill_tree`.
        """
        began = time.monotonic()
        self._is_asked_to_end = True
        if self.running is not None:
            self.signal(mode.value)
            self.signal(signal.SIGCONT)
        in_time = await self.wait_end(min(deadline_s, ARCHIVE_S))
        if not in_time:
            self._end_archive_command()
            in_time = await self.wait_end(max(deadline_s - (time.monotonic() - began), 0.0))
        code = self._child.ended().code if self._child is not None and in_time else None
        await self.kill_tree(kill_s)
        return Stopped(code, time.monotonic() - began, was_killed=not in_time)

    def _end_archive_command(self) -> None:
        """A declared `archive_command` that hangs would hold up the end of the server for ever.

        It is run again at the next start. The archiver ends with it, which is all that it was still to do.
        """
        for pid in self._leaf.members() or processes_in(self._layout.data):
            if " archiver " in _told(pid, "cmdline").replace("\0", " "):
                for child in _told(pid, f"task/{pid}/children").split():
                    with contextlib.suppress(OSError):
                        os.kill(int(child), signal.SIGKILL)

    def kill_now(self) -> None:
        """SIGKILL everything of it, without waiting: also from a signal handler or on the way out."""
        self._is_asked_to_end = True
        if not self._leaf.kill():
            for pid in (*self._main(), *processes_in(self._layout.data)):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _main(self) -> tuple[int, ...]:
        return (self._child.pid,) if self._child is not None and not self._ended.is_set() else ()

    async def kill_tree(self, deadline_s: float) -> float:
        """Kill everything of it, and return after how many seconds it was verified gone.

        Order: kill, look, kill again: a process may fork while it is being killed. Frozen ones die too.
        Fails: `NotInTime` when a process does not die (state D): then it must not be said to be gone.
        `Conflict` when a server that Trellis did not start uses the data directory.
        """
        began, pause = time.monotonic(), _LOOK_S_MIN
        while True:
            self.kill_now()
            if not self._leaf.populated() and not self._lives():
                break
            if time.monotonic() - began > deadline_s:
                left = self._leaf.members() or list(self._main())
                raise NotInTime(
                    f"PostgreSQL's processes {left} do not die within {deadline_s:g} s: a disk may hang."
                    " This host stays fenced.",
                    pids=left,
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LOOK_S_MAX)
        self._release()
        if self.strangers():
            raise Conflict(
                f"Process {self.strangers()[0]}, which Trellis did not start, is a PostgreSQL in"
                f" {self._layout.data}: stop it."
            )
        return time.monotonic() - began

    def _lives(self) -> bool:
        if self._child is not None and not self._ended.is_set():
            return True
        return self._leaf.path is None and bool(processes_in(self._layout.data))

    def _release(self) -> None:
        if self._child is not None:
            self._child.release()
            self._child = None
        if self._reaper is not None:
            self._reaper.reap(own_pids())
        self._leaf.remove()
        with contextlib.suppress(TrellisError):  # it names a process that is gone, as whoever reads it sees
            self._layout.drop_note(self._layout.process_note)


def processes_in(folder: Path) -> list[int]:
    """PostgreSQL processes whose working directory is *folder*: every one of a server has it.

    Found also when a rename has moved the folder, and when they left session and group.
    Bound: some ms for a thousand processes.
    """
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            where, program = os.readlink(f"/proc/{name}/cwd"), os.readlink(f"/proc/{name}/exe")
        except OSError:
            continue
        if where == str(folder) and program.removesuffix(" (deleted)").endswith("/postgres"):
            found.append(int(name))
    return found


def _told(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
