"""Orphans of what the sidecar started come to it (it is their subreaper) and are reaped here.

Other parts of the sidecar have children too, whose exit codes they wait for:
only what is known to be an orphan from our own cgroup folder is touched.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

#: Without cgroups: how long a dead child that nobody has claimed is left to its owner.
_UNCLAIMED_NS: Final = 10_000_000_000


class Reaper:
    """Finds dead orphans. Idle cost: one system call per look."""

    def __init__(self, group: Path | None) -> None:
        #: Path of our cgroup folder inside the hierarchy, as /proc/PID/cgroup tells it.
        self._group = f"/{group.name}/" if group is not None else ""
        self._seen: dict[int, int] = {}

    def reap(self, mine: Collection[int]) -> int:
        """Reap dead orphans except *mine* (main processes); return how many."""
        count = 0
        while (dead := _peek()) is not None:
            orphans = [dead] if self._is_orphan(dead, mine) else self._orphans(mine)
            if not orphans:
                return count
            for pid in orphans:
                os.waitpid(pid, os.WNOHANG)
            count += len(orphans)
        self._seen.clear()
        return count

    def _orphans(self, mine: Collection[int]) -> list[int]:
        children: list[int] = []
        for thread in os.listdir("/proc/self/task"):
            text = _read(f"/proc/self/task/{thread}/children")
            children += [int(pid) for pid in text.split()]
        dead = [pid for pid in children if _state(pid) == "Z"]
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in dead}
        return [pid for pid in dead if self._is_orphan(pid, mine)]

    def _is_orphan(self, pid: int, mine: Collection[int]) -> bool:
        if pid in mine:
            return False
        if self._group:
            return self._group in _read(f"/proc/{pid}/cgroup")
        now = time.monotonic_ns()
        return now - self._seen.setdefault(pid, now) > _UNCLAIMED_NS


def _peek() -> int | None:
    """Any dead child, left as it is; None when there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def _state(pid: int) -> str:
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].strip()[:1]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
