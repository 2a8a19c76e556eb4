"""Running one of PostgreSQL's programs to its end, or ending it.

Each runs as the database's user, in a cgroup, and is killed by the kernel when the
sidecar dies: none goes on writing into a directory that the next sidecar clears.
"""

import asyncio
import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from mesh.adapters.cgroup import Leaf
from mesh.adapters.child import Child, Launch, spawn
from mesh.errors import DatabaseFailed, NotInTime
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.binaries import Binaries
from sidecar.postgres.engine.layout import Layout

LOG = structlog.get_logger(__name__)

#: What of a program's words is kept.
SAID_CHARS_MAX: Final = 16_384
_CLEAR_S: Final = 5.0
#: Before version 14 programs say "fatal:" when they give up.
_BAD: Final = re.compile("error:|fatal:|FATAL|PANIC")

Told = Callable[[str], None]


def environment() -> dict[str, str]:
    """What PostgreSQL's programs are given: messages that can be understood, and no PG* variables."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": os.environ.get("TZ", "UTC")}


class Tools:
    """Runs PostgreSQL's programs on this host, one at a time in each leaf."""

    def __init__(self, binaries: Binaries, layout: Layout, leaf: Leaf) -> None:
        self.binaries = binaries
        self.layout = layout
        self._leaf = leaf

    async def clear(self) -> None:
        """End what an earlier sidecar left running. Fails: `NotInTime`."""
        deadline = time.monotonic() + _CLEAR_S
        while self._leaf.populated():
            self._leaf.kill()
            if time.monotonic() > deadline:
                raise NotInTime("An earlier program of PostgreSQL does not die; look for a hanging disk.")
            await asyncio.sleep(0.005)

    async def drop_fresh(self) -> None:
        """Delete what an unfinished clone has left, beside the event loop.

        Cancellation: comes through when it is deleted; the next clone begins with the same name.
        Fails: as `Layout.drop_fresh`.
        """
        deleting = asyncio.get_running_loop().run_in_executor(None, self.layout.drop_fresh)
        try:
            await asyncio.shield(deleting)
        finally:
            while not deleting.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({deleting})

    async def run(
        self,
        program: str,
        *arguments: str,
        deadline_s: float,
        idle_s: float = 0.0,
        on_line: Told | None = None,
    ) -> str:
        """What it printed, both streams together; success only.

        *idle_s*: it must print something at least this often; 0 does not ask for that.
        Cancellation: killed with all its children, then the cancellation goes on.
        Fails: `DatabaseFailed` with its words, `DiskFull`, `NotInTime` when it was killed for that,
        OSError when it cannot be started.
        """
        name = os.path.basename(program)
        said = _Said(on_line)
        code = await self._run([self.binaries.path(program), *arguments], said, deadline_s, idle_s)
        if code == 0:
            return said.text
        if said.disk_full:
            raise full_disk.full(self.layout.root)
        how = "was killed" if code is None else f"ended with code {code}"
        raise DatabaseFailed(f"{name} {how}: {said.last_words}", program=name, said=said.text[-2_000:])

    async def _run(self, argv: Sequence[str], said: "_Said", deadline_s: float, idle_s: float) -> int | None:
        self._leaf.make(0)
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)
        try:
            child = spawn(
                Launch(
                    command=tuple(argv),
                    environment=environment(),
                    directory="/",
                    user=self.layout.user,
                    dies_with_parent=True,
                    groups=self._leaf.entrances(),
                    output=writing,
                )
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            return await self._watch(child, reading, said, deadline_s, idle_s)
        finally:
            await self._end(child)
            said.drain(reading)
            os.close(reading)

    async def _watch(
        self, child: Child, reading: int, said: "_Said", deadline_s: float, idle_s: float
    ) -> int | None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(child.pidfd, ended.set)
        loop.add_reader(reading, said.read, reading)
        end = time.monotonic() + deadline_s
        try:
            while not ended.is_set():
                wait_s = min(end - time.monotonic(), idle_s or deadline_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(wait_s, 0.0)):
                        await ended.wait()
                self._check_time(said, end, deadline_s, idle_s, done=ended.is_set())
        finally:
            loop.remove_reader(child.pidfd)
            loop.remove_reader(reading)
        said.drain(reading)
        return child.ended().code

    def _check_time(self, said: "_Said", end: float, deadline_s: float, idle_s: float, *, done: bool) -> None:
        if done:
            return
        now = time.monotonic()
        if now >= end:
            raise NotInTime(f"Not done within {deadline_s:g} s.", progress=said.last_words)
        if idle_s and now - said.at >= idle_s:
            raise NotInTime(f"No progress for {idle_s:g} s.", progress=said.last_words)

    async def _end(self, child: Child) -> None:
        """Nothing of it lives on, and it is reaped; what a hanging disk holds is left to the next `clear`."""
        if not self._leaf.kill():
            child.signal_group(signal.SIGKILL)
        deadline = time.monotonic() + _CLEAR_S
        while not select.select([child.pidfd], [], [], 0)[0]:
            if time.monotonic() > deadline:
                LOG.warning("database-tool-hangs", pid=child.pid)
                child.let_go()
                return
            await asyncio.sleep(0.005)
        child.release()


class _Said:
    """What a program prints, bounded."""

    def __init__(self, on_line: Told | None) -> None:
        self.text = ""
        self.disk_full = False
        self.at = time.monotonic()
        self._on_line = on_line

    @property
    def last_words(self) -> str:
        """The last line that says something."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", self.text) if line.strip()]
        errors = [line for line in lines if _BAD.search(line)]
        return (errors or lines or ["it said nothing"])[-1][:500]

    def read(self, descriptor: int) -> bool:
        try:
            chunk = os.read(descriptor, 65_536)
        except BlockingIOError:
            return False
        if not chunk:
            asyncio.get_running_loop().remove_reader(descriptor)
            return False
        self.at = time.monotonic()
        piece = chunk.decode(errors="replace")
        self.disk_full = self.disk_full or full_disk.is_said(self.text[-100:] + piece)
        self.text = (self.text + piece)[-SAID_CHARS_MAX:]
        if self._on_line is not None:
            for line in re.split(r"[\r\n]+", piece):
                if line.strip():
                    self._on_line(line.strip())
        return True

    def drain(self, descriptor: int) -> None:
        while self.read(descriptor):
            pass
