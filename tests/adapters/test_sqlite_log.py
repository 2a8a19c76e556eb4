"""The log store: what was saved comes back, and nothing else does."""

import hashlib
import sqlite3
from pathlib import Path

import pytest

from mesh.adapters.sqlite_log import SqliteLog
from mesh.errors import Conflict, Corruption, InvariantBroken
from mesh.ids import ClusterId, Index, MemberId, Term
from mesh.raft import first_log
from mesh.raft.model import (
    Entry,
    EntryId,
    EntryKind,
    HardState,
    Membership,
    Ready,
    Restored,
    Snapshot,
    SnapshotMeta,
)

CLUSTER = ClusterId("c" * 32)
MEMBER = MemberId("host1.1")
MEMBERSHIP = Membership.of([MEMBER, MemberId("host2.1")])


def entry(index: int, term: int = 1, data: bytes = b"data") -> Entry:
    return Entry(Index(index), Term(term), EntryKind.COMMAND, data)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [entry(index, term, b"entry %d" % index) for index in range(first, last + 1)]


def snapshot(index: int, term: int = 1, data: bytes = b"state") -> Snapshot:
    meta = SnapshotMeta(
        EntryId(Term(term), Index(index)), MEMBERSHIP, len(data), hashlib.sha256(data).digest()
    )
    return Snapshot(meta, data)


def hard(term: int = 1, commit: int = 0, vote: MemberId | None = None) -> HardState:
    return HardState(Term(term), vote, Index(commit))


def opened(directory: Path, *, create: bool = True) -> SqliteLog:
    return SqliteLog(directory, CLUSTER, MEMBER, create=create)


def reopened(store: SqliteLog, directory: Path) -> Restored:
    store.close()
    again = opened(directory, create=False)
    restored = again.load()
    again.close()
    return restored


def test_a_new_store_holds_nothing(tmp_path: Path) -> None:
    """Goal: a new member starts from nothing, and is not taken for damaged. Method: load twice."""
    store = opened(tmp_path)
    assert store.load() == Restored()
    assert reopened(store, tmp_path) == Restored()


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    """Goal: term, vote, commit and entries survive a restart. Method: save, close, load."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(3, 2, MEMBER), entries=entries(1, 5, 3), must_sync=True))
    assert reopened(store, tmp_path) == Restored(hard(3, 2, MEMBER), None, tuple(entries(1, 5, 3)))


def test_a_founding_log_comes_back(tmp_path: Path) -> None:
    """Goal: the first entry, a membership, is stored like any other. Method: save a first log, load."""
    first = first_log(MEMBERSHIP.voters)
    store = opened(tmp_path)
    store.save(Ready(hard_state=first.hard_state, entries=first.entries, must_sync=True))
    assert reopened(store, tmp_path) == first


def test_entries_replace_everything_from_their_first_index_on(tmp_path: Path) -> None:
    """Goal: a conflicting tail is gone for good. Method: overwrite the middle of nine with two."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1), entries=entries(1, 9), must_sync=True))
    store.save(Ready(hard_state=hard(2), entries=entries(4, 5, 2), must_sync=True))
    store.save(Ready(entries=entries(6, 6, 2), must_sync=True))
    assert reopened(store, tmp_path).entries == (*entries(1, 3), *entries(4, 6, 2))


def test_a_whole_log_can_be_replaced(tmp_path: Path) -> None:
    """Goal: index 1 is no special case. Method: overwrite all three by one."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1), entries=entries(1, 3), must_sync=True))
    store.save(Ready(hard_state=hard(2), entries=entries(1, 1, 2), must_sync=True))
    assert reopened(store, tmp_path).entries == tuple(entries(1, 1, 2))


def test_more_entries_than_one_statement_takes_are_saved_in_one_transaction(tmp_path: Path) -> None:
    """Goal: a long catch-up is not cut by a limit of SQLite. Method: 2,500 at once."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1), entries=entries(1, 2_500), must_sync=True))
    assert len(reopened(store, tmp_path).entries) == 2_500


def test_a_gap_in_the_log_is_a_bug(tmp_path: Path) -> None:
    """Goal: half a log is never stored. Method: begin at index 2, then properly."""
    store = opened(tmp_path)
    with pytest.raises(InvariantBroken, match="gap"):
        store.save(Ready(entries=entries(2, 3), must_sync=True))
    store.save(Ready(entries=entries(1, 1), must_sync=True))
    assert reopened(store, tmp_path).entries == tuple(entries(1, 1))


def test_an_own_snapshot_keeps_the_tail_of_the_log(tmp_path: Path) -> None:
    """Goal: compaction drops only what the snapshot holds. Method: snapshot in the middle, append, load."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1, 8), entries=entries(1, 9), must_sync=True))
    store.save_snapshot(snapshot(6))
    store.save(Ready(entries=entries(10, 11), must_sync=True))
    assert reopened(store, tmp_path) == Restored(hard(1, 8), snapshot(6), (*entries(7, 9), *entries(10, 11)))


def test_an_own_snapshot_of_the_whole_log_leaves_no_entries(tmp_path: Path) -> None:
    """Goal: the log goes on after an empty tail. Method: snapshot at the end, append, overwrite."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1, 9), entries=entries(1, 9), must_sync=True))
    store.save_snapshot(snapshot(9))
    store.save(Ready(entries=entries(10, 10), must_sync=True))
    store.save(Ready(entries=entries(10, 11, 2), must_sync=True))
    assert reopened(store, tmp_path) == Restored(hard(1, 9), snapshot(9), tuple(entries(10, 11, 2)))


def test_a_received_snapshot_replaces_the_log_on_both_sides_of_it(tmp_path: Path) -> None:
    """Goal: no entry of another history stays behind it. Method: a snapshot in the middle of a longer log."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1, 3), entries=entries(1, 9), must_sync=True))
    store.save(
        Ready(hard_state=hard(4, 6), snapshot=snapshot(6, 4), entries=entries(7, 7, 4), must_sync=True)
    )
    assert reopened(store, tmp_path) == Restored(hard(4, 6), snapshot(6, 4), tuple(entries(7, 7, 4)))


def test_an_older_snapshot_than_the_present_one_is_left_alone(tmp_path: Path) -> None:
    """Goal: a late writer does not turn time back, nor leave files. Method: 4 after 6, list the directory."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1, 9), entries=entries(1, 9), must_sync=True))
    store.stage_snapshot(snapshot(4))
    store.save_snapshot(snapshot(6))
    store.save_snapshot(snapshot(4))
    assert reopened(store, tmp_path).snapshot == snapshot(6)
    assert [each.name for each in tmp_path.glob("snapshot-*")] == ["snapshot-1-6"]


def test_a_snapshot_that_another_thread_is_writing_is_left_alone(tmp_path: Path) -> None:
    """Goal: forgetting old snapshots never takes a draft from under its writer.

    Method: a leader's snapshot is saved while a draft of an own one stands there; what a dead
    process left is gone at the next opening.
    """
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1, 9), entries=entries(1, 9), must_sync=True))
    draft = tmp_path / "snapshot-1-8.draft"
    draft.write_bytes(b"half of it")
    store.save(Ready(hard_state=hard(4, 12), snapshot=snapshot(12, 4), must_sync=True))
    assert draft.exists()
    assert reopened(store, tmp_path).snapshot == snapshot(12, 4)
    assert not draft.exists()


def test_a_second_process_may_not_use_the_directory(tmp_path: Path) -> None:
    """Goal: two sidecars never write one log. Method: open twice, close, open."""
    store = opened(tmp_path)
    with pytest.raises(Conflict, match="in use by another process"):
        opened(tmp_path)
    store.close()
    opened(tmp_path).close()


def test_an_empty_directory_of_an_existing_member_is_refused(tmp_path: Path) -> None:
    """Goal: a member that forgot its votes does not vote. Method: open a directory that is gone."""
    with pytest.raises(Conflict, match="remove the host and join it again"):
        opened(tmp_path / "gone", create=False)


@pytest.mark.parametrize(
    ("cluster", "member"), [(ClusterId("d" * 32), MEMBER), (CLUSTER, MemberId("host1.2"))]
)
def test_another_members_directory_is_refused(tmp_path: Path, cluster: ClusterId, member: MemberId) -> None:
    """The watermark of a new store says nothing yet, so the identity row has to."""
    opened(tmp_path).close()
    (tmp_path / "watermark").unlink()
    with pytest.raises(Conflict, match=r"belongs to member host1\.1"):
        SqliteLog(tmp_path, cluster, member, create=False)


# ---- damage that keeps SQLite's own structure intact ------------------------------


def damaged(directory: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(directory / "log.sqlite")
    with database:
        database.execute(statement, values)
    database.close()


def check_refused(directory: Path, what: str) -> None:
    with pytest.raises(Corruption, match=what):
        load_all(directory)


def load_all(directory: Path) -> Restored:
    store = opened(directory, create=False)
    try:
        return store.load()
    finally:
        store.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(2, 4, MEMBER), entries=entries(1, 9, 2), must_sync=True))
    store.save_snapshot(snapshot(4, 2))
    store.close()
    return tmp_path


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE entries SET data = zeroblob(length(data)) WHERE idx = 7", "entry 7"),
        ("UPDATE entries SET term = 1 WHERE idx = 7", "entry 7"),
        ("UPDATE entries SET kind = 0 WHERE idx = 7", "entry 7"),
        ("UPDATE entries SET kind = 77 WHERE idx = 7", "entry 7"),
        ("UPDATE entries SET term = 'x' WHERE idx = 7", "entry 7"),
        ("DELETE FROM entries WHERE idx = 7", "entry 7 should stand here"),
        ("DELETE FROM entries WHERE idx >= 8", "ends at 7, but 9 was durable"),
        ("DELETE FROM entries", "ends at 4, but 9 was durable"),
        ("UPDATE entries SET idx = 17 WHERE idx = 9", "entry 9 should stand here"),
        ("UPDATE state SET vote = 'host2.1'", "state"),
        ("UPDATE state SET vote = NULL", "state"),
        ("UPDATE state SET term = 1", "state"),
        ("UPDATE state SET term = -1", "state"),
        ("UPDATE state SET commit_index = 3", "state"),
        ("UPDATE state SET last_chain = 'text'", "state"),
        ("DELETE FROM state", "state"),
        ("DELETE FROM identity", "identity"),
        ("UPDATE identity SET member = 'host9.1'", "identity"),
        ("UPDATE snapshot SET idx = 5", "snapshot"),
        ("UPDATE snapshot SET membership = '{}'", "snapshot"),
        ("UPDATE snapshot SET size_bytes = 'x'", "snapshot"),
        ("DELETE FROM snapshot", "snapshot"),
    ],
)
def test_a_changed_or_missing_record_is_corruption(filled: Path, statement: str, what: str) -> None:
    """Goal: no bit of the log is believed unproven.

    Method: table of SQL changes behind the store's back, each with the place it must name.
    """
    damaged(filled, statement)
    check_refused(filled, what)


def test_a_record_of_another_index_is_corruption(filled: Path) -> None:
    """A misdirected write: a whole and valid record at the wrong place."""
    damaged(
        filled,
        "UPDATE entries SET (term, kind, data, chain) ="
        " (SELECT term, kind, data, chain FROM entries WHERE idx = 6) WHERE idx = 7",
    )
    check_refused(filled, "entry 7")


def test_a_stale_record_of_the_same_index_is_corruption(tmp_path: Path) -> None:
    """An old version of an entry has a valid checksum of its own, but not in this chain."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1), entries=entries(1, 5), must_sync=True))
    store.close()
    database = sqlite3.connect(tmp_path / "log.sqlite")
    stale = database.execute("SELECT term, kind, data, chain FROM entries WHERE idx = 4").fetchone()
    database.close()
    store = opened(tmp_path)
    store.load()
    store.save(Ready(hard_state=hard(2), entries=entries(3, 5, 2), must_sync=True))
    store.close()
    damaged(tmp_path, "UPDATE entries SET (term, kind, data, chain) = (?, ?, ?, ?) WHERE idx = 4", *stale)
    check_refused(tmp_path, "entry 4")


def test_another_members_records_are_corruption(
    filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Goal: a mixed-up restore is noticed. Method: copy one sound row of another member."""
    other = tmp_path_factory.mktemp("other")
    store = SqliteLog(other, CLUSTER, MemberId("host2.1"), create=True)
    store.save(Ready(hard_state=hard(2, 4), entries=entries(1, 9, 2), must_sync=True))
    store.close()
    database = sqlite3.connect(filled / "log.sqlite")
    database.execute("ATTACH ? AS other", (str(other / "log.sqlite"),))
    with database:
        database.execute("DELETE FROM entries WHERE idx = 7")
        database.execute("INSERT INTO entries SELECT * FROM other.entries WHERE idx = 7")
    database.close()
    check_refused(filled, "entry 7")


def test_a_changed_or_missing_snapshot_file_is_corruption(filled: Path) -> None:
    """Goal: no state from an unproven file. Method: overwrite it, then delete it."""
    file = filled / "snapshot-2-4"
    file.write_bytes(b"stale")
    check_refused(filled, "do not match their hash")
    file.unlink()
    check_refused(filled, "snapshot-2-4")


def test_a_watermark_that_is_damaged_or_gone_is_corruption(filled: Path) -> None:
    """Goal: its absence does not hide a lost tail. Method: cut, flip a bit, delete."""
    file = filled / "watermark"
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    check_refused(filled, "watermark")
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    check_refused(filled, "watermark")
    file.unlink()
    check_refused(filled, "watermark")


def test_a_database_that_was_put_back_to_an_older_state_is_corruption(tmp_path: Path) -> None:
    """What an older copy, or the loss of SQLite's write-ahead log, looks like."""
    store = opened(tmp_path)
    store.save(Ready(hard_state=hard(1), entries=entries(1, 5), must_sync=True))
    store.close()
    older = (tmp_path / "log.sqlite").read_bytes()
    store = opened(tmp_path)
    store.load()
    store.save(Ready(entries=entries(6, 6), must_sync=True))
    store.close()
    (tmp_path / "log.sqlite").write_bytes(older)
    check_refused(tmp_path, r"ends with transaction 1, but 2 was durable")
    (tmp_path / "log.sqlite").write_bytes(b"")
    check_refused(tmp_path, "it is empty, but transaction 2 was durable")
