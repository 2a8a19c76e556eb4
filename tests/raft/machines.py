"""A host without a machine: a node, a disk that forgets what was not synced, a state machine.

The duties of a Ready are split into `begin` and `finish`, so that messages and
crashes can come between them.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.ids import Index, MemberId
from mesh.raft import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    RaftSettings,
    RawNode,
    ReadState,
    Ready,
    Restored,
    Snapshot,
)

Jitter = Callable[[int, int], int]


def patience(member: MemberId) -> Jitter:
    """A jitter without chance: a waits least, b and c a little longer each."""
    return lambda low, high: min(high, low + 3 * (ord(member[0]) - ord("a")))


@dataclass
class Disk:
    """What survives a crash. Checks on the way that nothing durable goes backwards."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def holding(cls, restored: Restored) -> "Disk":
        return cls(restored.hard_state, restored.snapshot, list(restored.entries))

    @property
    def base(self) -> int:
        return self.snapshot.meta.last.index if self.snapshot else 0

    def store(self, ready: Ready) -> None:
        """One transaction."""
        if ready.snapshot is not None:
            assert ready.snapshot.meta.last.index > self.hard_state.commit
            self.snapshot, self.entries = ready.snapshot, []
        if ready.entries:
            keep = ready.entries[0].index - self.base - 1
            assert 0 <= keep <= len(self.entries), "a gap in the stored log"
            assert ready.entries[0].index > self.hard_state.commit, "a committed entry is replaced"
            self.entries[keep:] = ready.entries
        if ready.hard_state is not None:
            self._store_hard_state(ready.hard_state)

    def _store_hard_state(self, new: HardState) -> None:
        old = self.hard_state
        assert new.term >= old.term, "the term fell"
        assert new.commit >= old.commit, "the commit index fell"
        if new.term == old.term and old.vote is not None:
            assert new.vote == old.vote, "a vote was changed within a term"
        assert new.commit <= self.base + len(self.entries), "a commit index beyond the stored log"
        self.hard_state = new

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """The host's own snapshot: drop the entries it covers."""
        del self.entries[: snapshot.meta.last.index - self.base]
        self.snapshot = snapshot

    def restored(self) -> Restored:
        return Restored(self.hard_state, self.snapshot, tuple(self.entries))


@dataclass
class StateMachine:
    """A hash over every command: equal histories give equal digests."""

    index: int = 0
    digest: str = ""

    def apply(self, entry: Entry) -> None:
        self.index = entry.index
        text = f"{self.digest}/{entry.index}/{entry.term}/{entry.kind}".encode()
        if entry.kind is EntryKind.COMMAND:
            self.digest = hashlib.sha256(text + entry.data).hexdigest()[:16]

    def dump(self) -> bytes:
        return json.dumps([self.index, self.digest]).encode()

    def load(self, snapshot: Snapshot) -> None:
        self.index = snapshot.meta.last.index
        if snapshot.data:
            index, self.digest = json.loads(snapshot.data)
            assert index == self.index


class Machine:
    """One host: runs the loop of the package's docstring, one half at a time."""

    def __init__(
        self, settings: RaftSettings, disk: Disk, jitter: Jitter, *, is_witness: bool = False
    ) -> None:
        self.settings = settings
        #: A host knows by its settings that it is a witness; the log tells it only later.
        self.is_witness = is_witness
        self.disk = disk
        self.jitter = jitter
        self.is_up = False
        self.start()

    @property
    def id(self) -> MemberId:
        return self.settings.id

    def start(self) -> None:
        """From the disk, as after a crash."""
        restored = self.disk.restored()
        self.node = RawNode(self.settings, restored, self.jitter)
        self.state = StateMachine()
        if restored.snapshot is not None:
            self.state.load(restored.snapshot)
        self.in_flight: Ready | None = None
        self.reads: list[ReadState] = []
        self.reads_lost: list[int] = []
        self.is_up = True

    def crash(self) -> None:
        """Everything that is not on disk is gone."""
        self.is_up = False
        self.in_flight = None

    def begin(self) -> list[Message]:
        """Take a Ready if there is one; what may be sent at once."""
        if self.in_flight is None and self.node.has_ready():
            self.in_flight = self.node.ready()
            return list(self.in_flight.messages)
        return []

    def store(self) -> None:
        """The durable half; a crash may follow at once."""
        assert self.in_flight is not None
        self.disk.store(self.in_flight)

    def finish(self) -> tuple[list[Message], list[Entry]]:
        """After `store`: (messages, entries that were applied)."""
        ready = self.in_flight
        assert ready is not None
        if ready.snapshot is not None:
            self.state.load(ready.snapshot)
        for entry in ready.committed:
            assert entry.index == self.state.index + 1, "applied out of order"
            assert entry.index <= self.disk.base + len(self.disk.entries), "applied before durable"
            self.state.apply(entry)
        self.reads += ready.reads
        self.reads_lost += ready.reads_lost
        self.in_flight = None
        self.node.advance(ready)
        return list(ready.messages_after_durable), list(ready.committed)

    def compact(self) -> Snapshot:
        """Snapshot the state machine where it stands, and store it."""
        data = b"" if self.is_witness else self.state.dump()
        snapshot = self.node.compact(Index(self.state.index), data)
        self.disk.save_snapshot(snapshot)
        return snapshot

    @property
    def membership(self) -> Membership:
        return self.node.membership
