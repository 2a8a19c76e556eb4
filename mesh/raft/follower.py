"""What a follower does with what its leader sends; nothing here knows about roles.

Each function returns the answer's content as a value; core.py addresses it.
"""

from dataclasses import dataclass

from mesh.errors import InvariantBroken
from mesh.ids import Index, Term
from mesh.raft.history import decode_entry
from mesh.raft.log import RaftLog
from mesh.raft.model import NOWHERE, Append, EntryId, Membership, SnapshotChunk
from mesh.raft.snapshot import Assembly


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of an append: `matched`, or where to probe next."""

    matched: Index
    rejected: bool = False
    hint: EntryId = NOWHERE


@dataclass(frozen=True, slots=True)
class ChunkTaken:
    """The outcome of a chunk: the log already matches, or where to go on."""

    next_offset: int = 0
    installed: bool = False
    matched: Index | None = None


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


def append(log: RaftLog, message: Append, memberships: list[tuple[Index, Membership]]) -> Appended:
    """Merge the leader's entries and commit index (paper §5.3)."""
    matched = log.merge(message.previous, message.entries, memberships)
    if matched is not None:
        log.commit_to(min(message.commit, matched))
        return Appended(matched)
    at = log.nearest(message.previous.index, message.previous.term)
    return Appended(Index(0), rejected=True, hint=EntryId(log.term_at(at) or Term(0), at))


def take_chunk(log: RaftLog, assembly: Assembly, message: SnapshotChunk, bytes_max: int) -> ChunkTaken | None:
    """Take in one chunk and install what it completes; None for one that is too large.

    Fails: `InvariantBroken` for a snapshot that contradicts a committed entry.
    """
    last = message.meta.last
    here = log.term_at(last.index)
    if last.index <= log.commit:
        if here is not None and here != last.term:
            raise InvariantBroken(
                f"snapshot {last.index} has term {last.term}, but term {here} is committed here"
            )
        return ChunkTaken(matched=log.commit)
    if here == last.term:
        log.commit_to(last.index)
        return ChunkTaken(matched=last.index)
    if message.meta.size_bytes > bytes_max:
        return None
    assembled = assembly.add(message)
    if assembled.snapshot is not None:
        log.install(assembled.snapshot)
    return ChunkTaken(assembled.next_offset, installed=assembled.snapshot is not None)
