"""Reads the stored records back and checks each against its checksum and its neighbours."""

import sqlite3
import struct
from collections.abc import Iterator

from mesh.adapters.sqlite_records import Seal, State
from mesh.errors import Corruption
from mesh.ids import Index, MemberId, Term
from mesh.raft.model import Entry, EntryId, EntryKind, HardState, Membership, SnapshotMeta


def read_state(database: sqlite3.Connection, seal: Seal) -> State:
    """The state row. Fails: `Corruption`."""
    row = database.execute(
        "SELECT sequence, term, vote, commit_index, origin_term, origin_index, origin_chain,"
        " last_term, last_index, last_chain, checksum FROM state"
    ).fetchone()
    if row is None:
        raise Corruption("state", "the row is missing")
    sequence, term, vote, commit, origin_term, origin_index, origin_chain, *rest = row
    last_term, last_index, last_chain, checksum = rest
    try:
        state = State(
            sequence=sequence,
            hard_state=HardState(Term(term), None if vote is None else MemberId(vote), Index(commit)),
            origin=EntryId(Term(origin_term), Index(origin_index)),
            origin_chain=origin_chain,
            last=EntryId(Term(last_term), Index(last_index)),
            last_chain=last_chain,
        )
        is_right = seal.of_state(state) == checksum
    except (TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise Corruption("state", f"a value is not of its type: {error}") from error
    if not is_right:
        raise Corruption("state", "its checksum does not match")
    return state


def read_entries(database: sqlite3.Connection, seal: Seal, state: State) -> Iterator[Entry]:
    """The entries from the origin to the end that *state* names. Fails: `Corruption`."""
    chain, expected = state.origin_chain, state.origin.index
    for index, term, kind, data, link in database.execute(
        "SELECT idx, term, kind, data, chain FROM entries ORDER BY idx"
    ):
        expected = Index(expected + 1)
        where = f"entry {index}"
        if index != expected:
            raise Corruption(where, f"entry {expected} should stand here")
        try:
            chain = seal.of_entry(chain, index, term, kind, data)
            entry = Entry(index, Term(term), EntryKind(kind), data)
        except (TypeError, ValueError, OverflowError, struct.error) as error:
            raise Corruption(where, f"a value is not of its type: {error}") from error
        if chain != link:
            raise Corruption(where, "its checksum does not match")
        yield entry
    if expected != state.last.index or chain != state.last_chain:
        raise Corruption("entries", f"the log ends at {expected}, but {state.last.index} was durable")


def read_snapshot_meta(database: sqlite3.Connection, seal: Seal) -> SnapshotMeta | None:
    """The description of the stored snapshot, if there is one. Fails: `Corruption`."""
    row = database.execute(
        "SELECT term, idx, membership, size_bytes, sha256, checksum FROM snapshot"
    ).fetchone()
    if row is None:
        return None
    term, index, membership, size_bytes, sha256, checksum = row
    try:
        meta = SnapshotMeta(
            last=EntryId(Term(term), Index(index)),
            membership=Membership.decode(membership),
            size_bytes=size_bytes,
            sha256=sha256,
        )
        is_right = seal.of_snapshot(meta) == checksum
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise Corruption("snapshot", f"a value is not of its type: {error}") from error
    if not is_right:
        raise Corruption("snapshot", "its checksum does not match")
    return meta
