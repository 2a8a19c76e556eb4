"""All processes of one instance, however deep they hide, and their end.

With a cgroup the kernel knows them. Without one, a process belongs to the tree
when its session or group is the main process's, when its parent belongs, or
when its environment carries the instance's name: that finds daemons that left
the session, unless they wiped their environment too.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from mesh import failpoints
from mesh.adapters.cgroup import Leaf
from mesh.adapters.child import Child
from mesh.ids import InstanceId

CLEAR_S_MIN: Final = 0.001
CLEAR_S_MAX: Final = 0.1


class Tree:
    """The processes of one start of one instance.

    `main` is 0 when the main process's number may have been given away;
    `inherited` when an earlier sidecar started it, so that its orphans may have
    gone to any ancestor of that one.
    """

    def __init__(
        self, instance: InstanceId, socket_path: str, leaf: Leaf, main: int, *, inherited: bool = False
    ) -> None:
        self._leaf = leaf
        self._main = main
        self._inherited = inherited
        self._marks = (
            f"TRELLIS_INSTANCE={instance}".encode(),
            f"TRELLIS_SOCKET={socket_path}".encode(),
        )

    def kill(self, child: Child | None) -> None:
        """SIGKILL everything in it, now."""
        failpoints.hit("supervisor.before-kill")
        if child is not None:
            child.signal_group(signal.SIGKILL)
        if not self._leaf.kill():
            for pid in self.members():
                _kill(pid)

    def undo(self, child: Child) -> None:
        """Kill and reap what was started a moment ago. Blocks for as long as that takes, some ms."""
        self.kill(child)
        child.wait()
        child.release()

    def empty(self) -> bool:
        """Whether nothing of it lives any more."""
        if self._leaf.path is not None:
            return not self._leaf.populated()
        return not self.members()

    def members(self) -> list[int]:
        """Live processes of the tree."""
        if self._leaf.path is not None:
            return self._leaf.members()
        return _scan(self._main, self._marks, None if self._inherited else (1, os.getpid()))

    async def clear(self) -> None:
        """Kill what is left, and return when it is verified empty.

        Order: kill, look, kill again, because a process may fork while it is
        being killed. A process that cannot die (state D) keeps this waiting:
        a replacement beside it would be two at a time.
        """
        pause = CLEAR_S_MIN
        while not self.empty():
            self.kill(None)
            await asyncio.sleep(pause)
            pause = min(pause * 2, CLEAR_S_MAX)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _scan(main: int, marks: tuple[bytes, ...], reapers: tuple[int, ...] | None) -> list[int]:
    """Members by /proc. Bound: a few ms per thousand processes; only on the way out."""
    own = os.getpid()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == own:
            continue
        pid = int(name)
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            continue
        parents[pid] = int(fields[1])
        of_main = main > 0 and main in (pid, int(fields[2]), int(fields[3]))
        may_be_orphan = reapers is None or parents[pid] in reapers
        if of_main or (may_be_orphan and _is_marked(pid, marks)):
            found.add(pid)
    grew = True
    while grew:
        grown = {pid for pid, parent in parents.items() if parent in found} - found
        found |= grown
        grew = bool(grown)
    return sorted(found)


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _is_marked(pid: int, marks: tuple[bytes, ...]) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(mark in environment for mark in marks)
