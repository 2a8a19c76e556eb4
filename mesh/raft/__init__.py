"""Consensus: one log that a majority of the members agrees on.

`RawNode` decides and does nothing else: messages, ticks and proposals go in,
a `Ready` comes out that says what to store, what to send and what to apply.
It has no clock, socket, file or random generator, so a simulator can run it.

The loop that a host must run:

```
node = RawNode(settings, restored, jitter)     # install restored.snapshot, if any, first
forever:
    wait for a message, a tick or a request; pass all that have come to
        node.step / node.tick / node.propose / node.read_index ...
    while node.has_ready():
        ready = node.ready()
        send ready.messages                    # may overlap with the next step
        store ready.snapshot, ready.entries, ready.hard_state in one transaction;
            wait for the disk if ready.must_sync
        send ready.messages_after_durable
        install ready.snapshot; apply ready.committed; answer ready.reads, ready.reads_lost
        node.advance(ready)
```

Storing `ready.snapshot` removes everything stored before, entries on both sides
of it included, in the same transaction. Storing `ready.entries` removes
everything from `entries[0].index` on. An error while storing ends the process: what
`advance` was not called for has not happened, and no promise about it has left.

`committed` holds entries of every kind; commands are for the state machine, the
others are for information. A witness gets commands without data and applies none.

Who may be handed what: a host may call `step` with anything that came from an
authenticated member of the same cluster. Messages that are not addressed to this
member, answers of strangers and malformed appends are counted in `Status.dropped`.

Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm"
(the paper); Ongaro, "Consensus: Bridging Theory and Practice" (the thesis).
"""

from mesh.raft.model import (
    Append,
    AppendHeartbeat,
    AppendHeartbeatReply,
    AppendReply,
    Entry,
    EntryId,
    EntryKind,
    Envelope,
    HardState,
    Membership,
    Message,
    PeerStatus,
    ProgressMode,
    RaftSettings,
    ReadState,
    Ready,
    RequestVote,
    RequestVoteReply,
    Restored,
    Role,
    Snapshot,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    SoftState,
    Status,
    TimeoutNow,
)
from mesh.raft.rawnode import RawNode, first_log

__all__ = [
    "Append",
    "AppendHeartbeat",
    "AppendHeartbeatReply",
    "AppendReply",
    "Entry",
    "EntryId",
    "EntryKind",
    "Envelope",
    "HardState",
    "Membership",
    "Message",
    "PeerStatus",
    "ProgressMode",
    "RaftSettings",
    "RawNode",
    "ReadState",
    "Ready",
    "RequestVote",
    "RequestVoteReply",
    "Restored",
    "Role",
    "Snapshot",
    "SnapshotChunk",
    "SnapshotMeta",
    "SnapshotReply",
    "SoftState",
    "Status",
    "TimeoutNow",
    "first_log",
]
