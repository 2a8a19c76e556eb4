"""A member's log, hard state and newest snapshot in SQLite: one transaction, one fsync per Ready.

What is read back is verified in full before anything is used. Whatever does
not verify is `Corruption`: nothing is repaired, and a log that lost its end
is never taken for a shorter one (see sqlite_records for the chain and data_dir
for the watermark). What is found at opening is first written anew: an earlier
process may have seen its fsync fail, after which the kernel shows data that
the disk never got.

Order: calls come from one thread at a time; which one may change between calls.
Absent here: the thread that runs it (log_writer.py).
"""

import contextlib
import dataclasses
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mesh import failpoints
from mesh.adapters.data_dir import DirectoryLock, SnapshotFiles, Watermark, sync_directory
from mesh.adapters.log_reading import read_entries, read_snapshot_meta, read_state
from mesh.adapters.sqlite_records import (
    FORMAT_VERSION,
    ROWS_PER_STATEMENT,
    SCHEMA,
    WRITE_SNAPSHOT,
    WRITE_STATE,
    Seal,
    State,
    entry_row,
    insert_entries,
)
from mesh.errors import Conflict, Corruption, InvariantBroken, StorageFailed
from mesh.ids import ClusterId, Index, MemberId, Term
from mesh.raft.model import Entry, EntryId, HardState, Ready, Restored, Snapshot

#: Pages in the write-ahead log before SQLite moves them into the database: about 16 MiB.
AUTOCHECKPOINT_PAGES = 4_096

NOWHERE = EntryId(Term(0), Index(0))


class SqliteLog:
    """One member's durable store in one directory.

    Fails: every writing method raises `StorageFailed` when the disk refuses, and
    from then on always: after a failed fsync nobody knows what the disk holds.
    """

    def __init__(self, directory: Path, cluster: ClusterId, member: MemberId, *, create: bool) -> None:
        """Open the store, or lay it out when *create* is set and there is none.

        Fails: `Conflict` when the directory is in use, empty though *create* is not set,
        or belongs to another member; `Corruption`.
        """
        self._seal = Seal(cluster, member)
        self._failed: StorageFailed | None = None
        #: Duration of the newest durable write.
        self.fsync_s = 0.0
        database = directory / "log.sqlite"
        if not create and not database.exists():
            raise Conflict(
                f"{directory} holds no log, but this host is already a member as {member};"
                " if its disk was lost, remove the host and join it again",
                directory=directory,
                member=member,
            )
        with contextlib.ExitStack() as undo, _storage_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(directory.parent)
            self._lock = DirectoryLock(directory)
            undo.callback(self._lock.release)
            self._watermark = Watermark(directory / "watermark", self._seal)
            undo.callback(self._watermark.close)
            self._files = SnapshotFiles(directory)
            self._files.remove_drafts()
            self._db = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._prepare(directory, cluster, member)
            undo.pop_all()

    # ---- opening --------------------------------------------------------------------

    def _prepare(self, directory: Path, cluster: ClusterId, member: MemberId) -> None:
        for setting in (
            "locking_mode=EXCLUSIVE",
            "journal_mode=WAL",
            "synchronous=FULL",
            "temp_store=MEMORY",
            f"wal_autocheckpoint={AUTOCHECKPOINT_PAGES}",
            "journal_size_limit=67108864",
        ):
            self._db.execute(f"PRAGMA {setting}")
        floor = self._watermark.read()
        found = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if found:
            self._check_identity(cluster, member)
        elif floor:
            raise Corruption("log.sqlite", f"it is empty, but transaction {floor} was durable")
        else:
            self._lay_out(cluster, member)
            sync_directory(directory)
            failpoints.hit("log.open.laid-out")
        self._state = read_state(self._db, self._seal)
        if floor is None:
            if self._state.sequence:
                raise Corruption("watermark", "it is missing beside a log that was written to")
        elif self._state.sequence < floor:
            raise Corruption(
                "log.sqlite", f"it ends with transaction {self._state.sequence}, but {floor} was durable"
            )
        self._write_anew(directory / "log.sqlite-wal")
        failpoints.hit("log.open.watermark")
        self._watermark.write(self._state.sequence)
        self._watermark.sync()

    def _write_anew(self, write_ahead_log: Path) -> None:
        """Move the write-ahead log into the database, which writes all of it once more.

        Order: the database durable, then the write-ahead log's emptiness: what the disk still has
        of it may be older than the database, and would be put over it after a loss of power.
        Fails: `StorageFailed`.
        """
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageFailed("log.sqlite: what it holds could not be written anew. Is it open elsewhere?")
        with write_ahead_log.open("rb") as emptied:
            os.fsync(emptied.fileno())

    def _lay_out(self, cluster: ClusterId, member: MemberId) -> None:
        chain = self._seal.of_origin(NOWHERE)
        empty = State(0, HardState(), NOWHERE, chain, NOWHERE, chain)
        self._db.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            self._db.execute(statement)
        self._db.execute(
            "INSERT INTO identity VALUES (1, ?, ?, ?, ?)",
            (FORMAT_VERSION, cluster, member, self._seal.of_identity()),
        )
        self._db.execute(WRITE_STATE, empty.row(self._seal))
        self._db.execute("COMMIT")

    def _check_identity(self, cluster: ClusterId, member: MemberId) -> None:
        row = self._db.execute("SELECT format, cluster_id, member, checksum FROM identity").fetchone()
        if row is None:
            raise Corruption("identity", "the row is missing")
        version, found_cluster, found_member, checksum = row
        if checksum != Seal(found_cluster, found_member).of_identity():
            raise Corruption("identity", "its checksum does not match")
        if (version, found_cluster, found_member) == (FORMAT_VERSION, cluster, member):
            return
        raise Conflict(
            f"the data directory belongs to member {found_member} of cluster {found_cluster}"
            f" (format {version}), not to {member} of {cluster}; give this host its own directory",
            member=found_member,
            cluster=found_cluster,
        )

    def load(self) -> Restored:
        """Everything stored, verified record by record.

        Fails: `Corruption` names the first record that is not what was written.
        """
        with _storage_errors("log.sqlite"):
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise Corruption("log.sqlite", str(problem))
            state = self._state = read_state(self._db, self._seal)
            meta = read_snapshot_meta(self._db, self._seal)
            entries = tuple(read_entries(self._db, self._seal, state))
        if (meta.last if meta else NOWHERE) != state.origin:
            raise Corruption("snapshot", f"the log goes on after {state.origin}, which it does not describe")
        snapshot = None
        if meta:
            data = self._files.read(meta.last)
            if len(data) != meta.size_bytes or hashlib.sha256(data).digest() != meta.sha256:
                raise Corruption(self._files.path(meta.last).name, "its bytes do not match their hash")
            snapshot = Snapshot(meta, data)
        self._files.keep_only(meta.last if meta else None)
        return Restored(state.hard_state, snapshot, entries)

    # ---- writing --------------------------------------------------------------------

    def save(self, ready: Ready) -> None:
        """Make snapshot, entries and hard state of *ready* durable in one transaction."""
        hard_state = ready.hard_state or self._state.hard_state
        if ready.snapshot:
            self.stage_snapshot(ready.snapshot)
        self._write(hard_state, ready.entries, ready.snapshot, keeps_tail=False)

    def stage_snapshot(self, snapshot: Snapshot) -> None:
        """Write *snapshot*'s bytes to their file; beside other calls, in any thread."""
        self._files.write(snapshot.meta.last, snapshot.data)

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Make *snapshot* durable and forget what it covers; the log's tail stays.

        One that is older than the present one is left alone.
        """
        last = snapshot.meta.last
        if last.index <= self._state.origin.index:
            return
        if not self._files.path(last).exists():
            self.stage_snapshot(snapshot)
        self._write(self._state.hard_state, (), snapshot, keeps_tail=True)

    def close(self) -> None:
        """Empty the write-ahead log and give the directory back."""
        self._db.close()
        self._watermark.close()
        self._lock.release()

    def _write(
        self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None, *, keeps_tail: bool
    ) -> None:
        if self._failed:
            raise self._failed
        try:
            with _storage_errors("log.sqlite"):
                self._transact(hard_state, entries, snapshot, keeps_tail=keeps_tail)
        except StorageFailed as error:
            self._failed = error
            raise

    def _transact(
        self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None, *, keeps_tail: bool
    ) -> None:
        started = time.perf_counter()
        failpoints.hit("log.write.before-begin")
        state = dataclasses.replace(self._state, sequence=self._state.sequence + 1, hard_state=hard_state)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if snapshot:
                state = self._replace_origin(state, snapshot, keeps_tail=keeps_tail)
            if entries:
                state = self._append(state, entries)
                failpoints.hit("log.write.entries-written")
            self._db.execute(WRITE_STATE, state.row(self._seal))
            failpoints.hit("log.write.before-commit")
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        failpoints.hit("log.write.committed")
        self._watermark.write(state.sequence)
        failpoints.hit("log.write.marked")
        self._state = state
        self.fsync_s = time.perf_counter() - started
        if snapshot:
            failpoints.hit("log.snapshot.before-forget")
            self._files.keep_only(snapshot.meta.last)

    def _replace_origin(self, state: State, snapshot: Snapshot, *, keeps_tail: bool) -> State:
        """Let the log begin after *snapshot*; with *keeps_tail*, entries that follow it in this log stay."""
        meta, last = snapshot.meta, snapshot.meta.last
        row = self._db.execute("SELECT term, chain FROM entries WHERE idx = ?", (last.index,)).fetchone()
        if keeps_tail and row is not None and row[0] == last.term:
            self._db.execute("DELETE FROM entries WHERE idx <= ?", (last.index,))
            state = dataclasses.replace(state, origin=last, origin_chain=row[1])
        else:
            self._db.execute("DELETE FROM entries")
            chain = self._seal.of_origin(last)
            state = dataclasses.replace(state, origin=last, origin_chain=chain, last=last, last_chain=chain)
        self._db.execute(
            WRITE_SNAPSHOT,
            (
                *(last.term, last.index, meta.membership.encode()),
                *(meta.size_bytes, meta.sha256, self._seal.of_snapshot(meta)),
            ),
        )
        failpoints.hit("log.write.origin-moved")
        return state

    def _append(self, state: State, entries: Sequence[Entry]) -> State:
        """Put *entries* after what stands before the first of them; later ones are replaced."""
        first = entries[0].index
        chain = state.last_chain
        if first <= state.last.index:
            chain = self._truncate(state, first)
        elif first != state.last.index + 1:
            raise InvariantBroken(f"entry {first} would leave a gap after {state.last.index}")
        rows = []
        for entry in entries:
            chain = self._seal.of_entry(chain, entry.index, entry.term, entry.kind, entry.data)
            rows.append(entry_row(entry, chain))
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            part = rows[start : start + ROWS_PER_STATEMENT]
            self._db.execute(insert_entries(len(part)), [value for row in part for value in row])
        return dataclasses.replace(state, last=entries[-1].id, last_chain=chain)

    def _truncate(self, state: State, first: Index) -> bytes:
        """Delete from *first* on; the link that now ends the chain."""
        if first <= state.origin.index:
            raise InvariantBroken(f"entry {first} is already part of the snapshot")
        self._db.execute("DELETE FROM entries WHERE idx >= ?", (first,))
        if first == state.origin.index + 1:
            return state.origin_chain
        found = self._db.execute("SELECT chain FROM entries WHERE idx = ?", (first - 1,)).fetchone()
        return bytes(found[0])


@contextlib.contextmanager
def _storage_errors(where: object) -> Iterator[None]:
    """Turns the errors of disk and SQLite into ours: a bad file is Corruption, all else StorageFailed."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if isinstance(error, sqlite3.Error) and code & 0xFF == sqlite3.SQLITE_ERROR:
            # No condition of the machine, and our statements are right: what they read is not.
            raise Corruption(str(where), str(error)) from error
        raise StorageFailed(
            f"{where}: {error}. Check the disk and the file system; this sidecar stops now.",
            error=error,
        ) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # text, also of messages, may be damaged
        raise Corruption(str(where), str(error)) from error
