"""The disk of one simulated machine, and the thread that writes to it.

A disk outlives the lives of a sidecar. It keeps whole transactions, as the real store does: what was
being written when the process died is there as a whole or not at all, and everything that was told to
be durable is there. What verification finds by checksum in the real store is found here by a mark.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from mesh.errors import Corruption, InvariantBroken, StorageFailed
from mesh.ids import HostId, Index, MemberId
from mesh.ports import Done
from mesh.raft.model import NOWHERE, Entry, EntryId, HardState, Ready, Restored, Snapshot
from tests.sim.clock import MS
from tests.sim.loop import SimLoop
from tests.sim.trace import Compacted, Event, Stored


@dataclass(slots=True)
class DiskFaults:
    """What is wrong with one disk. Probabilities are of one write."""

    #: A durable write takes so long at least and at most, ns.
    fsync_ns: tuple[int, int] = (200_000, 2 * MS)
    #: It stalls, and for how long at most.
    stall: float = 0.0
    stall_ns_max: int = 3_000 * MS
    #: It fails; half of those failed writes are on the disk all the same.
    fail: float = 0.0
    #: Nothing more can be written while this is set.
    is_full: bool = False
    #: A write under way at a crash is lost so often.
    lost_at_crash: float = 0.9


@dataclass(slots=True)
class Disk:
    """What one member has stored."""

    member: MemberId
    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = field(default_factory=list)
    #: Nothing was ever started from it.
    is_new: bool = True
    #: A record is not what was written; the next start finds it.
    damaged: str = ""
    #: The next load is given older bytes, or another record's, and finds that by checksum.
    misread: str = ""

    @property
    def last(self) -> EntryId:
        if self.entries:
            return self.entries[-1].id
        return self.snapshot.meta.last if self.snapshot else NOWHERE

    @property
    def first_index(self) -> Index:
        return self.entries[0].index if self.entries else Index(self.last.index + 1)

    def load(self) -> Restored:
        """Everything stored. Fails: `Corruption`."""
        if self.damaged:
            raise Corruption("log.sqlite", self.damaged)
        if self.misread:
            misread, self.misread = self.misread, ""
            raise Corruption("log.sqlite", misread)
        return Restored(self.hard_state, self.snapshot, tuple(self.entries))

    def write(self, ready: Ready) -> None:
        """One transaction of `LogStore.save`."""
        if ready.snapshot:
            self.snapshot = ready.snapshot
            self.entries = []
        if ready.entries:
            self._append(ready.entries)
        if ready.hard_state:
            self.hard_state = ready.hard_state

    def _append(self, new: Sequence[Entry]) -> None:
        first = new[0].index
        base = self.first_index
        keep = first - base
        if keep < 0 or keep > len(self.entries):
            raise InvariantBroken(f"entry {first} does not follow {self.last.index}")
        del self.entries[keep:]
        self.entries += new

    def compact(self, snapshot: Snapshot) -> bool:
        """The transaction of `LogStore.save_snapshot`; False when it changes nothing."""
        last = snapshot.meta.last
        origin = self.snapshot.meta.last.index if self.snapshot else 0
        if last.index <= origin:
            return False
        at = last.index - self.first_index
        matches = 0 <= at < len(self.entries) and self.entries[at].term == last.term
        self.entries = self.entries[at + 1 :] if matches else []
        self.snapshot = snapshot
        return True


class Machine(Protocol):
    """What a store needs of the world around it."""

    @property
    def now(self) -> int: ...
    def emit(self, event: Event) -> None: ...


class SimStore:
    """`LogStore` on a simulated disk."""

    def __init__(self, disk: Disk, host: HostId, world: Machine) -> None:
        self._disk = disk
        self._host = host
        self._world = world
        #: Why nothing can be written any more.
        self._failed: StorageFailed | None = None
        self.is_closed = False
        self.fsync_s = 0.001

    def load(self) -> Restored:
        """See LogStore."""
        return self._disk.load()

    def save(self, ready: Ready) -> None:
        """See LogStore."""
        self._check()
        disk = self._disk
        disk.write(ready)
        self._world.emit(
            Stored(
                self._world.now,
                self._host,
                disk.member,
                disk.hard_state,
                tuple(ready.entries),
                ready.snapshot.meta if ready.snapshot else None,
            )
        )

    def stage_snapshot(self, snapshot: Snapshot) -> None:
        """See LogStore."""
        self._check()

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """See LogStore."""
        self._check()
        if self._disk.compact(snapshot):
            self._world.emit(Compacted(self._world.now, self._host, self._disk.member, snapshot.meta))

    def close(self) -> None:
        """See LogStore."""
        self.is_closed = True

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def fail(self) -> StorageFailed:
        """Every write fails from now on, as in the real store."""
        self._failed = StorageFailed("log.sqlite: disk I/O error (simulated)")
        return self._failed


class SimWriter:
    """`LogWriter` whose thread is an entry in the scheduler: a write takes its time and may end badly."""

    def __init__(
        self,
        *,
        loop: SimLoop,
        store: SimStore,
        faults: DiskFaults,
        chance: Random,
        now: Callable[[], int],
        count: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._faults = faults
        self._chance = chance
        self._now = now
        self._count = count
        self._jobs: list[tuple[Callable[[], None], Done]] = []
        self._is_busy = False
        self.is_closed = False

    def submit(self, write: Callable[[], None], done: Done, *, yields: bool = False) -> None:
        """See Writer."""
        if self.is_closed:
            raise InvariantBroken("a write was submitted after the writer was closed")
        self._jobs.append((write, done))
        if not self._is_busy:
            self._begin()

    def _begin(self) -> None:
        self._is_busy = True
        faults, chance = self._faults, self._chance
        low, high = faults.fsync_ns
        takes = low + int(chance.random() * (high - low))
        if faults.stall and chance.random() < faults.stall:
            takes += int(chance.random() * faults.stall_ns_max)
            self._count("disk-stall")
        self._store.fsync_s = takes / 1e9
        self._loop.call_true(self._now() + takes, self._end)

    def _end(self) -> None:
        write, done = self._jobs.pop(0)
        error: BaseException | None = None
        faults = self._faults
        if faults.is_full or (faults.fail and self._chance.random() < faults.fail):
            self._count("disk-full" if faults.is_full else "disk-fsync-failed")
            if not faults.is_full and self._chance.random() < 0.5:
                write()  # it is on the disk although the kernel said no
            error = self._store.fail()
        else:
            try:
                write()
            except StorageFailed as failed:
                error = failed
        self._is_busy = False
        if self._jobs:
            self._begin()
        done(error)

    def crash(self) -> None:
        """The process dies: the write under way is there as a whole, or not at all."""
        if self._is_busy and self._jobs:
            if self._chance.random() < self._faults.lost_at_crash:
                self._count("disk-write-lost")
            else:
                self._jobs[0][0]()
                self._count("disk-write-kept")

    async def close(self, *, grace_s: float) -> bool:
        """See Writer."""
        self.is_closed = True
        deadline = self._loop.time() + grace_s
        while (self._jobs or self._is_busy) and self._loop.time() < deadline:
            await asyncio.sleep(0.001)
        return not self._jobs and not self._is_busy
