"""A disk in memory that forgets at power-off what was not synced, as far as POSIX allows.

Each file has what processes see (the page cache) and what would survive (the
platter). fsync of a file brings its data over, fsync of a directory its names: one
does not do the other. At power-off each page of 4 KiB that was not synced survives,
is lost, or is torn at sectors of 512 bytes; of a directory's changes the first
few survive.

A failed fsync leaves the pages clean without having written them, as Linux does: a
later fsync reports success and the data is gone at power-off all the same.
"""

import errno
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

PAGE, SECTOR = 4096, 512


class DiskError(OSError):
    """What a call fails with; only the number counts."""

    def __init__(self, number: int) -> None:
        super().__init__(number, errno.errorcode[number])


@dataclass(eq=False)
class File:
    """A regular file."""

    mode: int
    seen: bytearray = field(default_factory=bytearray)
    kept: bytearray = field(default_factory=bytearray)
    #: Pages that processes wrote since the last fsync, by number.
    dirty: set[int] = field(default_factory=set)

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.seen):
            self.resize(end)
        self.seen[offset:end] = data
        self.dirty.update(range(offset // PAGE, (end - 1) // PAGE + 1 if data else 0))

    def resize(self, size: int) -> None:
        if size < len(self.seen):
            del self.seen[size:]
            self.dirty = {page for page in self.dirty if page * PAGE < size}
            if size % PAGE:
                self.dirty.add(size // PAGE)
        else:
            self.seen.extend(bytes(size - len(self.seen)))

    def sync(self) -> None:
        _resize(self.kept, len(self.seen))
        for page in self.dirty:
            self.kept[page * PAGE : (page + 1) * PAGE] = self.seen[page * PAGE : (page + 1) * PAGE]
        self.dirty.clear()

    def lose_power(self, chance: random.Random) -> int:
        """What is on the platter now is all there is; the number of pages that were not synced."""
        unsynced = len(self.dirty)
        size = chance.choice((len(self.kept), len(self.seen)))
        _resize(self.kept, size)
        for page in sorted(self.dirty):
            for start in range(page * PAGE, min((page + 1) * PAGE, size), SECTOR):
                if start % PAGE == 0:
                    fate = chance.choice(("lost", "kept", "torn"))
                if fate == "kept" or (fate == "torn" and chance.random() < 0.5):
                    end = min(start + SECTOR, size)
                    self.kept[start:end] = self.seen[start:end].ljust(end - start, b"\0")
        self.dirty.clear()
        self.seen = bytearray(self.kept)
        return unsynced


@dataclass(eq=False)
class Link:
    """A symbolic link."""

    target: str


@dataclass(eq=False)
class Directory:
    """Names, and what has become of them since the last fsync."""

    mode: int
    seen: "dict[str, Node]" = field(default_factory=dict)
    kept: "dict[str, Node]" = field(default_factory=dict)
    #: In order: names that change in one step and what they stand for then, None for nothing.
    changes: "list[dict[str, Node | None]]" = field(default_factory=list)

    def change(self, names: "dict[str, Node | None]") -> None:
        self.changes.append(names)
        _change(self.seen, names)

    def sync(self) -> None:
        self.kept = dict(self.seen)
        self.changes.clear()

    def lose_power(self, chance: random.Random) -> int:
        unsynced = len(self.changes)
        for names in self.changes[: chance.randint(0, unsynced)]:
            _change(self.kept, names)
        self.changes.clear()
        self.seen = dict(self.kept)
        return unsynced


Node = File | Directory | Link


def _change(present: dict[str, Node], names: dict[str, Node | None]) -> None:
    for name, node in names.items():
        if node is None:
            present.pop(name, None)
        else:
            present[name] = node


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


class VolatileDisk:
    """A tree of such files, with faults on request.

    Bound: `capacity` bytes of data; beyond it writes fail with ENOSPC.
    """

    def __init__(self, capacity: int = 256 << 20) -> None:
        self.root = Directory(0o755)
        self.capacity = capacity
        #: So many further calls of fsync fail with EIO.
        self.failing_syncs = 0
        self.unsynced_lost = 0
        self._handles: dict[int, File] = {}
        self._numbers = itertools.count(1)

    # ---- paths ----------------------------------------------------------------------

    def find(self, path: str) -> Node:
        node: Node = self.root
        for name in path.split("/"):
            if name:
                found = node.seen.get(name) if isinstance(node, Directory) else None
                if found is None:
                    raise DiskError(errno.ENOENT)
                node = found
        return node

    def folder(self, path: str) -> tuple[Directory, str]:
        """The directory that a path's last name is in, and that name."""
        parent, _, name = path.rpartition("/")
        node = self.find(parent)
        if not isinstance(node, Directory):
            raise DiskError(errno.ENOTDIR)
        return node, name

    def put(self, path: str, node: Node) -> None:
        folder, name = self.folder(path)
        if name in folder.seen:
            raise DiskError(errno.EEXIST)
        folder.change({name: node})

    def remove(self, path: str) -> None:
        self.find(path)
        folder, name = self.folder(path)
        folder.change({name: None})

    def rename(self, old: str, new: str) -> None:
        """One step: inside one directory both names change together, or neither does."""
        node = self.find(old)
        (before, name), (after, to) = self.folder(old), self.folder(new)
        if before is after:
            before.change({name: None, to: node})
        else:
            after.change({to: node})
            before.change({name: None})

    # ---- data -----------------------------------------------------------------------

    def open(self, path: str) -> int:
        node = self.find(path)
        if not isinstance(node, File):
            raise DiskError(errno.EISDIR)
        handle = next(self._numbers)
        self._handles[handle] = node
        return handle

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)

    def file(self, path: str, handle: int | None) -> File:
        """By handle, which outlives the name; of a process that lost power: EIO."""
        if handle:
            found = self._handles.get(handle)
            if found is None:
                raise DiskError(errno.EIO)
            return found
        node = self.find(path)
        if not isinstance(node, File):
            raise DiskError(errno.EISDIR)
        return node

    def write(self, file: File, data: bytes, offset: int) -> int:
        grows = max(0, offset + len(data) - len(file.seen))
        if grows and self.used() + grows > self.capacity:
            raise DiskError(errno.ENOSPC)
        file.write(data, offset)
        return len(data)

    def used(self) -> int:
        return sum(len(node.seen) for node in _walk(self.root) if isinstance(node, File))

    def sync(self, node: File | Directory) -> None:
        if self.failing_syncs:
            self.failing_syncs -= 1
            if isinstance(node, File):
                node.dirty.clear()
            raise DiskError(errno.EIO)
        node.sync()

    # ---- power ----------------------------------------------------------------------

    def lose_power(self, chance: random.Random) -> None:
        """Everything that was not synced meets its fate; open handles are of another life."""
        self._handles.clear()
        for node in list(_walk(self.root)):
            if not isinstance(node, Link):
                self.unsynced_lost += node.lose_power(chance)


def _walk(directory: Directory) -> Iterator[Node]:
    """Every node that a process sees or that would survive."""
    yield directory
    found = {id(node): node for names in (directory.seen, directory.kept) for node in names.values()}
    for names in directory.changes:
        found |= {id(node): node for node in names.values() if node is not None}
    for node in found.values():
        if isinstance(node, Directory):
            yield from _walk(node)
        else:
            yield node
