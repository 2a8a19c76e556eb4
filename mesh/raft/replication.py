"""What a leader sends to one follower, and what it learns from the answers.

Absent here: who is leader, what is committed (leadership.py).
"""

from mesh.errors import InvariantBroken
from mesh.ids import Index, Term
from mesh.raft.log import RaftLog, entry_bytes
from mesh.raft.model import (
    Append,
    AppendReply,
    Entry,
    EntryId,
    EntryKind,
    ProgressMode,
    RaftSettings,
    SnapshotChunk,
    SnapshotReply,
)
from mesh.raft.outbox import Outbox
from mesh.raft.snapshot import without_data
from mesh.raft.tracker import Progress


class Feeder:
    """Turns the difference between the log and a follower into messages.

    Bound: per call and follower, `inflight_max` appends of `append_bytes_max`
    or one chunk.
    """

    def __init__(self, settings: RaftSettings, term: Term, log: RaftLog, outbox: Outbox) -> None:
        self._settings = settings
        self._term = term
        self._log = log
        self._outbox = outbox

    def feed(self, peer: Progress, now: int) -> None:
        """Send *peer* what its mode allows."""
        if peer.mode is ProgressMode.REPLICATE:
            self._replicate(peer, now)
        elif peer.mode is ProgressMode.PROBE and not peer.paused:
            peer.paused = True
            if not self._append(peer, self._log.last_index):
                self._start_snapshot(peer, now)
        if peer.mode is ProgressMode.SNAPSHOT:
            self._send_chunk(peer, now)

    def is_active(self, peer: Progress, now: int) -> bool:
        """Whether *peer* was heard within an election timeout."""
        return now - peer.heard_tick < self._settings.election_ticks_min

    def _replicate(self, peer: Progress, now: int) -> None:
        last = self._log.last_index
        while peer.next <= last and not peer.inflights.is_full:
            if not self._append(peer, last):
                self._start_snapshot(peer, now)
                return
            peer.inflights.add(Index(peer.next - 1))
        is_due = peer.poke or peer.sent_commit < self._log.commit
        if is_due and not self._append(peer, Index(peer.next - 1)):
            self._start_snapshot(peer, now)

    def _append(self, peer: Progress, end: Index) -> bool:
        """Send entries [next, end]; False when the log no longer has them."""
        log = self._log
        previous = Index(peer.next - 1)
        previous_term = log.term_at(previous)
        if previous_term is None:
            return False
        entries = log.slice(peer.next, end, self._settings.append_bytes_max)
        if peer.is_witness:
            entries = [_for_witness(entry) for entry in entries]
        if entries and peer.mode is ProgressMode.REPLICATE:
            peer.next = Index(previous + len(entries) + 1)
        peer.sent_commit = log.commit
        peer.poke = False
        self._outbox.state(
            Append(
                sender=self._settings.id,
                to=peer.id,
                term=self._term,
                previous=EntryId(previous_term, previous),
                entries=tuple(entries),
                commit=log.commit,
            )
        )
        return True

    def _start_snapshot(self, peer: Progress, now: int) -> None:
        snapshot = self._log.snapshot
        if snapshot is None:
            raise InvariantBroken(f"the log begins at {self._log.first_index} without a snapshot")
        if self.is_active(peer, now):
            peer.to_snapshot(without_data(snapshot) if peer.is_witness else snapshot)

    def _send_chunk(self, peer: Progress, now: int) -> None:
        sending = peer.transmission
        if sending is None:
            raise InvariantBroken(f"{peer.id} is in snapshot mode without a snapshot")
        patience = self._settings.election_ticks_min // 2
        if sending.sent_tick is not None and now - sending.sent_tick < patience:
            return
        if not self.is_active(peer, now):
            return
        sending.sent_tick = now
        end = sending.offset + self._settings.chunk_bytes
        self._outbox.state(
            SnapshotChunk(
                sender=self._settings.id,
                to=peer.id,
                term=self._term,
                meta=sending.snapshot.meta,
                offset=sending.offset,
                data=sending.snapshot.data[sending.offset : end],
            )
        )


def hear_append_reply(peer: Progress, reply: AppendReply, log: RaftLog) -> bool:
    """Take in *reply*; True when `matched` rose."""
    if reply.rejected:
        peer.reject(reply.refused, log.nearest(reply.hint.index, reply.hint.term))
        return False
    is_news = peer.accept(reply.matched)
    sending = peer.transmission
    is_probed = peer.mode is ProgressMode.PROBE and reply.matched >= peer.matched
    if is_probed or (sending is not None and reply.matched >= sending.last.index):
        peer.to_replicate()
    return is_news


def hear_snapshot_reply(peer: Progress, reply: SnapshotReply) -> bool:
    """Take in *reply*; True when `matched` rose."""
    sending = peer.transmission
    if sending is None or reply.last != sending.last:
        return False
    if reply.installed:
        is_news = peer.accept(reply.last.index)
        peer.to_probe()
        return is_news
    if reply.next_offset != sending.offset and 0 <= reply.next_offset < sending.snapshot.meta.size_bytes:
        sending.offset = reply.next_offset
        sending.sent_tick = None
    return False


def total_bytes(entries: list[Entry]) -> int:
    """What *entries* count for in a bound."""
    return sum(map(entry_bytes, entries))


def _for_witness(entry: Entry) -> Entry:
    if entry.kind is EntryKind.COMMAND and entry.data:
        return Entry(entry.index, entry.term, entry.kind)
    return entry
