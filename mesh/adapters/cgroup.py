"""One cgroup for each process tree: to kill it whole at once, and to limit its memory.

Both layouts are served: pure v2, where one group does all, and the hybrid one,
where v2 (without controllers) sits beside v1 hierarchies. What is not there or
not writable is left out, and the caller falls back to process groups and
RLIMIT_AS.

Source: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

import contextlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_OWN_LEAF: Final = "sidecar"


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Writable folders under which leaves are made; None where there is none."""

    unified: Path | None
    #: v1 memory hierarchy; on pure v2 the unified group limits memory itself.
    memory: Path | None
    #: The unified leaves have memory.max.
    unified_memory: bool

    def leaves(self) -> list[str]:
        """Names of the groups that exist."""
        if self.unified is None:
            return []
        return sorted(entry.name for entry in self.unified.iterdir() if entry.is_dir())

    def remove(self) -> None:
        """Delete our own folders, unless something outlives this sidecar there."""
        for folder in (self.unified, self.memory):
            if folder is not None:
                with contextlib.suppress(OSError):
                    folder.rmdir()


NOWHERE: Final = Hierarchies(None, None, unified_memory=False)


def find_hierarchies(name: str, run_dir: str) -> Hierarchies:
    """Detect by /proc/mounts, make a folder of our own, and try it.

    The folder is named after the run directory too, so that several sidecars
    of one machine never share one.
    """
    folder = f"trellis-{name}-{zlib.crc32(os.path.realpath(run_dir).encode()):08x}"
    mounts = [line.split() for line in _read(Path("/proc/mounts")).splitlines()]
    own = _own_groups()
    unified = memory = None
    unified_memory = False
    for _, point, kind, options, *_ in mounts:
        if kind == "cgroup2" and unified is None:
            base = Path(point + own.get("", "/"))
            base = base.parent if base.name == _OWN_LEAF else base
            unified = _claim(base / folder)
            _write(base / "cgroup.subtree_control", "+memory")
            unified_memory = unified is not None and _enable_memory(unified)
        elif kind == "cgroup" and "memory" in options.split(","):
            memory = _claim(Path(point + own.get("memory", "/")) / folder)
    if unified_memory:
        memory = None
    return Hierarchies(unified, memory, unified_memory)


def _own_groups() -> dict[str, str]:
    """Controller name ("" for v2) to the path of this process in its hierarchy."""
    groups = {}
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _claim(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder / "cgroup.procs", os.W_OK) else None


def _enable_memory(folder: Path) -> bool:
    """Give the leaves of *folder* the memory controller, where the kernel lets us.

    A group with processes of its own may not hand controllers down: on pure v2
    the sidecar has to live in a leaf called "sidecar" of a delegated group
    (systemd: Delegate=yes, DelegateSubgroup=sidecar), else RLIMIT_AS is used.
    """
    if "memory" not in _read(folder / "cgroup.controllers").split():
        return False
    return _write(folder / "cgroup.subtree_control", "+memory")


class Leaf:
    """The group of one process tree. Every method copes with the group not being there."""

    def __init__(self, hierarchies: Hierarchies, name: str) -> None:
        self.path = hierarchies.unified / name if hierarchies.unified else None
        self._memory = hierarchies.memory / name if hierarchies.memory else None
        self._limits_here = hierarchies.unified_memory
        self._limited = False

    def make(self, memory_bytes_max: int) -> bool:
        """Create it; return whether the memory limit is in force."""
        if self.path is not None:
            self.path.mkdir(exist_ok=True)
        self._limited = memory_bytes_max > 0 and self._limit(memory_bytes_max)
        return self._limited

    def _limit(self, memory_bytes_max: int) -> bool:
        text = str(memory_bytes_max)
        if self._limits_here and self.path is not None:
            _write(self.path / "memory.swap.max", "0")
            return _write(self.path / "memory.max", text)
        if self._memory is None:
            return False
        with contextlib.suppress(OSError):
            self._memory.mkdir(exist_ok=True)
        swap = self._memory / "memory.memsw.limit_in_bytes"
        _write(swap, "-1")
        limited = _write(self._memory / "memory.limit_in_bytes", text)
        _write(swap, text)
        return limited

    def entrances(self) -> tuple[str, ...]:
        """Files a new process writes 0 into to join, before it becomes the command.

        Moved from outside, it might have forked already, and what it forked
        would be out of reach.
        """
        groups = (self.path, self._memory if self._limited else None)
        return tuple(str(group / "cgroup.procs") for group in groups if group is not None)

    def kill(self) -> bool:
        """SIGKILL every member at once; False where the kernel cannot."""
        return self.path is not None and _write(self.path / "cgroup.kill", "1")

    def populated(self) -> bool:
        """Whether any process lives in it; zombies do not count."""
        return self.path is not None and "populated 1" in _read(self.path / "cgroup.events")

    def members(self) -> list[int]:
        """Processes in it now."""
        if self.path is None:
            return []
        return [int(pid) for pid in _read(self.path / "cgroup.procs").split()]

    def oom_kills(self) -> int:
        """How often the kernel killed a member over the memory limit."""
        if not self._limited:
            return 0
        if self._limits_here and self.path is not None:
            text = _read(self.path / "memory.events")
        else:
            text = _read(self._memory / "memory.oom_control") if self._memory else ""
        counts = dict(line.split() for line in text.splitlines())
        return int(counts.get("oom_kill", 0))

    def remove(self) -> None:
        """Delete the empty group; one that is in use or gone stays as it is."""
        for group in (self.path, self._memory):
            if group is not None:
                with contextlib.suppress(OSError):
                    group.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True
