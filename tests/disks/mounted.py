"""Mounts a `VolatileDisk` by FUSE, so that any program can lose power on it.

`python -m tests.disks.mounted DIRECTORY [CAPACITY]` serves until it is unmounted. Orders
are written to the file `.power` at its top, each in one write:

    off SEED        everything that was not synced meets its fate
    fail COUNT      so many further calls of fsync fail with EIO, and lose what they were for
    capacity BYTES  beyond it writes fail with ENOSPC
"""

import errno
import os
import random
import stat
import sys
from typing import Any

import mfusepy

from tests.disks.volatile import Directory, DiskError, File, Link, Node, VolatileDisk

CONTROL = "/.power"
CONTROL_HANDLE = 1 << 40
BLOCK = 4096


class MountedDisk(mfusepy.Operations):  # type: ignore[misc]  # a package without types
    """What the kernel asks, by path; the number of a `DiskError` is what the caller sees."""

    use_ns = True

    def __init__(self, capacity: int) -> None:
        self.disk = VolatileDisk(capacity)

    def _order(self, words: list[str]) -> None:
        match words:
            case ["off", seed]:
                self.disk.lose_power(random.Random(int(seed)))
            case ["fail", count]:
                self.disk.failing_syncs = int(count)
            case ["capacity", size]:
                self.disk.capacity = int(size)
            case _:
                raise DiskError(errno.EINVAL)

    # ---- names ----------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        if path == CONTROL:
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": 0}
        node: Node = self.disk.file(path, fh) if fh else self.disk.find(path)
        size = len(node.seen) if isinstance(node, File) else 0
        return {"st_mode": _mode(node), "st_nlink": 1, "st_size": size, "st_blocks": -(-size // 512)}

    def readdir(self, path: str, fh: int) -> list[str]:
        node = self.disk.find(path)
        return [".", "..", *(node.seen if isinstance(node, Directory) else ())]

    def mkdir(self, path: str, mode: int) -> int:
        self.disk.put(path, Directory(mode))
        return 0

    def rmdir(self, path: str) -> int:
        node = self.disk.find(path)
        if isinstance(node, Directory) and node.seen:
            raise DiskError(errno.ENOTEMPTY)
        self.disk.remove(path)
        return 0

    def unlink(self, path: str) -> int:
        self.disk.remove(path)
        return 0

    def rename(self, old: str, new: str) -> int:
        self.disk.rename(old, new)
        return 0

    def symlink(self, target: str, source: str) -> int:
        self.disk.put(target, Link(source))
        return 0

    def readlink(self, path: str) -> str:
        node = self.disk.find(path)
        if not isinstance(node, Link):
            raise DiskError(errno.EINVAL)
        return node.target

    def chmod(self, path: str, mode: int) -> int:
        node = self.disk.find(path)
        if not isinstance(node, Link):
            node.mode = stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        free = max(0, self.disk.capacity - self.disk.used()) // BLOCK
        return {
            "f_bsize": BLOCK, "f_frsize": BLOCK, "f_blocks": self.disk.capacity // BLOCK,
            "f_bfree": free, "f_bavail": free, "f_namemax": 255,
        }  # fmt: skip

    # ---- data -----------------------------------------------------------------------

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self.disk.put(path, File(mode))
        return self.disk.open(path)

    def open(self, path: str, flags: int) -> int:
        if path == CONTROL:
            return CONTROL_HANDLE
        handle = self.disk.open(path)
        if flags & os.O_TRUNC:
            self.disk.file(path, handle).resize(0)
        return handle

    def release(self, path: str, fh: int) -> int:
        self.disk.close(fh)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self.disk.file(path, fh).seen[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if fh == CONTROL_HANDLE:
            self._order(data.decode().split())
            return len(data)
        return self.disk.write(self.disk.file(path, fh), data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        if path != CONTROL:
            self.disk.file(path, fh).resize(length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self.disk.sync(self.disk.file(path, fh))
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        node = self.disk.find(path)
        if isinstance(node, Directory):
            self.disk.sync(node)
        return 0


def _mode(node: Node) -> int:
    if isinstance(node, Link):
        return stat.S_IFLNK | 0o777
    return (stat.S_IFDIR if isinstance(node, Directory) else stat.S_IFREG) | stat.S_IMODE(node.mode)


def serve(directory: str, capacity: int) -> None:
    """Serve until unmounted. Nothing may be remembered by the kernel past a loss of power."""
    mfusepy.FUSE(
        MountedDisk(capacity), directory, foreground=True, nothreads=True, allow_other=True,
        attr_timeout=0, entry_timeout=0, negative_timeout=0, fsname="trellis-volatile",
    )  # fmt: skip


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 256 << 20)
