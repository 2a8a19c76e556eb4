"""How the log's records look in SQLite, and the checksums over them.

Every checksum is keyed with cluster id and member, so that a file copied from
another host does not verify. Entries form a chain: each checksum covers the
one before it, its own index, term, kind and data. A zero-filled, stale,
misplaced or missing record breaks the chain.

`end` is one row that names both ends of the chain and is rewritten in every
transaction; a log whose tail was cut off does not reach the end it names.
"""

import hashlib
import struct
from dataclasses import dataclass

from mesh.ids import ClusterId, Index, MemberId, Term
from mesh.raft.model import Entry, EntryId, HardState, SnapshotMeta

FORMAT_VERSION = 1
CHECKSUM_BYTES = 16

#: Statements that lay out an empty database.
SCHEMA = (
    "CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL,"
    " cluster_id TEXT NOT NULL, member TEXT NOT NULL, checksum BLOB NOT NULL)",
    "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL,"
    " term INTEGER NOT NULL, vote TEXT, commit_index INTEGER NOT NULL,"
    " origin_term INTEGER NOT NULL, origin_index INTEGER NOT NULL, origin_chain BLOB NOT NULL,"
    " last_term INTEGER NOT NULL, last_index INTEGER NOT NULL, last_chain BLOB NOT NULL,"
    " checksum BLOB NOT NULL)",
    "CREATE TABLE entries (idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " data BLOB NOT NULL, chain BLOB NOT NULL)",
    "CREATE TABLE snapshot (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL,"
    " idx INTEGER NOT NULL, membership BLOB NOT NULL, size_bytes INTEGER NOT NULL,"
    " sha256 BLOB NOT NULL, checksum BLOB NOT NULL)",
)

WRITE_STATE = "INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
WRITE_SNAPSHOT = "INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?, ?, ?, ?)"

#: Rows in one INSERT; five parameters each, SQLite allows 32,766 parameters.
ROWS_PER_STATEMENT = 1_000

_ENTRY_HEAD = struct.Struct(">QQBQ")
_NUMBERS = struct.Struct(">QQQQQQQ")

EntryRow = tuple[int, int, int, bytes, bytes]


def insert_entries(count: int) -> str:
    """The statement that inserts *count* entries; one step of SQLite however many there are."""
    return f"INSERT INTO entries VALUES {','.join(['(?,?,?,?,?)'] * count)}"  # noqa: S608 - only marks


@dataclass(frozen=True, slots=True)
class State:
    """The one row that is rewritten with every transaction.

    Invariant: `sequence` rises by one per transaction; the chain of entries
    runs from `origin` (exclusive) to `last` (inclusive) without a gap.
    """

    sequence: int
    hard_state: HardState
    origin: EntryId
    origin_chain: bytes
    last: EntryId
    last_chain: bytes

    def row(self, seal: "Seal") -> tuple[object, ...]:
        """The values for `WRITE_STATE`."""
        hard, origin, last = self.hard_state, self.origin, self.last
        return (
            *(self.sequence, hard.term, hard.vote, hard.commit),
            *(origin.term, origin.index, self.origin_chain),
            *(last.term, last.index, self.last_chain),
            seal.of_state(self),
        )


class Seal:
    """Makes the checksums of one member's store."""

    def __init__(self, cluster: ClusterId, member: MemberId) -> None:
        text = f"trellis log {FORMAT_VERSION}\0{cluster}\0{member}"
        self._key = hashlib.blake2b(text.encode(), digest_size=32).digest()

    def _of(self, *parts: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=CHECKSUM_BYTES)
        for part in parts:
            digest.update(part)
        return digest.digest()

    def of_identity(self) -> bytes:
        """For the row that names cluster and member."""
        return self._of(b"identity")

    def of_entry(self, before: bytes, index: Index, term: Term, kind: int, data: bytes) -> bytes:
        """The next link after *before*."""
        return self._of(before, _ENTRY_HEAD.pack(index, term, kind, len(data)), data)

    def of_origin(self, origin: EntryId) -> bytes:
        """The link that a chain starts from when nothing stands before it."""
        return self._of(b"origin", struct.pack(">QQ", origin.term, origin.index))

    def of_state(self, state: State) -> bytes:
        """For the state row."""
        hard, origin, last = state.hard_state, state.origin, state.last
        numbers = _NUMBERS.pack(
            *(state.sequence, hard.term, hard.commit),
            *(origin.term, origin.index, last.term, last.index),
        )
        vote = b"\0" if hard.vote is None else b"\1" + hard.vote.encode()
        return self._of(b"state", numbers, state.origin_chain, state.last_chain, vote)

    def of_snapshot(self, meta: SnapshotMeta) -> bytes:
        """For the row that describes the snapshot file."""
        numbers = struct.pack(">QQQ", meta.last.term, meta.last.index, meta.size_bytes)
        return self._of(b"snapshot", numbers, meta.sha256, meta.membership.encode())

    def of_watermark(self, sequence: int) -> bytes:
        """For the watermark file."""
        return self._of(b"watermark", struct.pack(">Q", sequence))


def entry_row(entry: Entry, chain: bytes) -> EntryRow:
    """The values of one entry for `insert_entries`."""
    return (entry.index, entry.term, int(entry.kind), entry.data, chain)
