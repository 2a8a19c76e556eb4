"""What a follower does with what its leader sends; nothing here knows about roles.

Each function changes the log and returns the answer; core.py decides whether the
message counts and when the answer may leave.
"""

from mesh.errors import InvariantBroken
from mesh.ids import Index
from mesh.raft.history import decode_entry
from mesh.raft.log import RaftLog
from mesh.raft.model import (
    NO_INDEX,
    NO_TERM,
    Append,
    AppendReply,
    EntryId,
    Membership,
    SnapshotChunk,
    SnapshotReply,
)
from mesh.raft.snapshot import Assembly


def read_memberships(message: Append) -> list[tuple[Index, Membership]] | None:
    """The memberships among the entries; None when the message is malformed.

    Malformed: a gap, a term that falls or lies after the sender's, a membership
    that can not be understood. Such a message is refused as a whole, so an old
    host never skips an entry that it does not know.
    """
    found: list[tuple[Index, Membership]] = []
    index, term = message.previous.index, message.previous.term
    if index < 0 or not 0 <= term <= message.term:
        return None
    for entry in message.entries:
        index = Index(index + 1)
        if entry.index != index or not term <= entry.term <= message.term:
            return None
        term = entry.term
        try:
            membership = decode_entry(entry)
        except ValueError:
            return None
        if membership is not None:
            found.append((index, membership))
    return found


def append(log: RaftLog, message: Append, memberships: list[tuple[Index, Membership]]) -> AppendReply:
    """Merge the leader's entries and commit index (paper §5.3)."""
    matched = log.merge(message.previous, message.entries, memberships)
    if matched is not None:
        log.commit_to(min(message.commit, matched))
        return reply_matched(message, matched)
    at = log.nearest(message.previous.index, message.previous.term)
    return AppendReply(
        sender=message.to,
        to=message.sender,
        term=message.term,
        matched=NO_INDEX,
        rejected=True,
        refused=message.previous.index,
        hint=EntryId(log.term_at(at) or NO_TERM, at),
    )


def take_chunk(
    log: RaftLog, assembly: Assembly, message: SnapshotChunk, bytes_max: int
) -> SnapshotReply | None:
    """Take in one chunk and install what it completes; None for a snapshot that is too large.

    Where the log already holds the snapshot's last entry, the answer says that it is installed. It
    is never the answer to an append: that has a lane of its own, which a leader that sends a
    snapshot may not have opened to a follower that has just started.
    Fails: `InvariantBroken` for a snapshot that contradicts a committed entry.
    """
    last = message.meta.last
    here = log.term_at(last.index)
    if last.index <= log.commit:
        if here is not None and here != last.term:
            raise InvariantBroken(
                f"snapshot {last.index} has term {last.term}, but term {here} is committed here"
            )
        return _chunk_reply(message, message.meta.size_bytes, installed=True)
    if here == last.term:
        log.commit_to(last.index)
        return _chunk_reply(message, message.meta.size_bytes, installed=True)
    if message.meta.size_bytes > bytes_max:
        return None
    assembled = assembly.add(message)
    if assembled.snapshot is not None:
        log.install(assembled.snapshot)
    return _chunk_reply(message, assembled.next_offset, installed=assembled.snapshot is not None)


def _chunk_reply(message: SnapshotChunk, next_offset: int, *, installed: bool) -> SnapshotReply:
    return SnapshotReply(
        sender=message.to,
        to=message.sender,
        term=message.term,
        last=message.meta.last,
        next_offset=next_offset,
        installed=installed,
    )


def reply_matched(message: Append, matched: Index) -> AppendReply:
    """The answer that everything up to *matched* is equal."""
    return AppendReply(sender=message.to, to=message.sender, term=message.term, matched=matched)
