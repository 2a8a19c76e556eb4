"""Snapshots in chunks: putting them together, and what a witness gets instead.

Nothing is installed before the hash of the whole has been verified; whatever
does not fit makes the transfer start again at offset 0.
"""

import hashlib
from dataclasses import dataclass

from mesh.raft.model import EntryId, Membership, Snapshot, SnapshotChunk, SnapshotMeta


def take_snapshot(last: EntryId, membership: Membership, data: bytes) -> Snapshot:
    """A snapshot of *data* with the meta that describes it."""
    meta = SnapshotMeta(last, membership, len(data), hashlib.sha256(data).digest())
    return Snapshot(meta, data)


def without_data(snapshot: Snapshot) -> Snapshot:
    """What a witness is given: where the log begins and who votes, nothing else."""
    return take_snapshot(snapshot.meta.last, snapshot.meta.membership, b"")


def is_intact(snapshot: Snapshot) -> bool:
    """Whether the bytes are those the meta describes."""
    return hashlib.sha256(snapshot.data).digest() == snapshot.meta.sha256


@dataclass(frozen=True, slots=True)
class Assembled:
    """How far a transfer is; `snapshot` when it is complete and verified."""

    next_offset: int
    snapshot: Snapshot | None = None


class Assembly:
    """The chunks of one snapshot from one leader in one term.

    Bound: holds at most `meta.size_bytes` of the transfer under way; a chunk of
    another transfer throws the present one away.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._data = bytearray()

    def reset(self) -> None:
        self._key = None
        self._data = bytearray()

    def add(self, chunk: SnapshotChunk) -> Assembled:
        """Take *chunk* if it is the next one; tell where to go on in any case."""
        key = (chunk.sender, chunk.term, chunk.meta)
        if key != self._key:
            self.reset()
            self._key = key
        if chunk.offset == len(self._data):
            self._data += chunk.data
        if len(self._data) < chunk.meta.size_bytes:
            return Assembled(len(self._data))
        snapshot = Snapshot(chunk.meta, bytes(self._data))
        self.reset()
        if len(snapshot.data) != chunk.meta.size_bytes or not is_intact(snapshot):
            return Assembled(0)
        return Assembled(chunk.meta.size_bytes, snapshot)
