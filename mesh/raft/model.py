"""The values that go into and come out of the consensus core.

Everything here is frozen and free of I/O. Wire types stop at `mesh.wire`; the
core, the log adapter, the driver and the simulator speak these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final, TypeAlias

from mesh.ids import Index, MemberId, Term
from mesh.limits import READS_PENDING_MAX, SNAPSHOT_BYTES_MAX
from mesh.raft.membership import Membership as Membership

#: Before the first entry.
NO_INDEX: Final = Index(0)
#: Before the first election.
NO_TERM: Final = Term(0)


class Role(Enum):
    """What a member is in the present term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Standing(Enum):
    """Why a member stood for election."""

    #: It had heard from no leader for an election timeout.
    TIMEOUT = "timeout"
    #: The leader was proven dead, so nobody had to wait.
    CRASH_PROOF = "crash-proof"
    #: The leader asked it to.
    TRANSFER = "transfer"


class EntryKind(IntEnum):
    """What the payload of an entry is. The values are stored: never renumber."""

    #: An empty entry a leader commits at the start of its term.
    NOOP = 0
    #: A command for the state machine, opaque to the core.
    COMMAND = 1
    #: A membership, encoded by `Membership.encode`.
    MEMBERSHIP = 2


@dataclass(frozen=True, slots=True)
class EntryId:
    """Where an entry stands and who wrote it; equal ids mean equal logs up to there."""

    term: Term
    index: Index


#: Where an empty log ends.
NOWHERE: Final = EntryId(NO_TERM, NO_INDEX)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the replicated log.

    A witness holds entries of kind COMMAND with empty `data`: it proves that
    the entry exists without holding what it says.
    """

    index: Index
    term: Term
    kind: EntryKind
    data: bytes = b""

    @property
    def id(self) -> EntryId:
        return EntryId(self.term, self.index)


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before any message that depends on it leaves.

    Invariant: `term` never falls; within one term `vote` changes at most once,
    from None to a member; `commit` never falls.
    """

    term: Term = NO_TERM
    vote: MemberId | None = None
    commit: Index = NO_INDEX


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """Which prefix of the log a snapshot stands for, and how to check its bytes."""

    last: EntryId
    membership: Membership
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine after `meta.last`, as opaque bytes."""

    meta: SnapshotMeta
    data: bytes


# ---- messages -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every message carries: who sent it, to whom, in which term."""

    sender: MemberId
    to: MemberId
    term: Term


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestVote(Envelope):
    """Asks for a vote (paper §5.2) or, with `pre_vote`, whether one would be given (thesis §9.6).

    With `pre_vote`, `term` is the term the sender *would* use.
    `transfer`: the leader asked the sender to stand, so leases do not refuse it.
    """

    last: EntryId
    pre_vote: bool = False
    transfer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestVoteReply(Envelope):
    """Answer to RequestVote. A granted pre-vote carries the term that was asked for."""

    granted: bool
    pre_vote: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Append(Envelope):
    """Entries to add after `previous`, and how far the leader has committed (paper §5.3)."""

    previous: EntryId
    entries: tuple[Entry, ...]
    commit: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendReply(Envelope):
    """`matched` is the last index known equal; on reject, `hint` is where to probe next."""

    matched: Index
    rejected: bool = False
    #: On reject: the previous.index that was refused, so stale rejects can be told.
    refused: Index = NO_INDEX
    #: On reject: largest entry of the follower that may match (term, index).
    hint: EntryId = NOWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendHeartbeat(Envelope):
    """Keeps followers quiet and confirms leadership; `round` rises per leader and term."""

    commit: Index
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendHeartbeatReply(Envelope):
    """Echoes `round`, so that a confirmation is never counted for a later question."""

    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotChunk(Envelope):
    """Bytes `[offset, offset + len(data))` of the snapshot described by `meta`."""

    meta: SnapshotMeta
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReply(Envelope):
    """How far the receiver has the snapshot ending at `last`.

    `next_offset` is where to go on; `installed` means it is complete, verified
    and taken; a failed hash answers with `next_offset` 0.
    """

    last: EntryId
    next_offset: int
    installed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutNow(Envelope):
    """The leader hands over: the receiver stands for election at once (thesis §3.10)."""


Message: TypeAlias = (
    RequestVote
    | RequestVoteReply
    | Append
    | AppendReply
    | AppendHeartbeat
    | AppendHeartbeatReply
    | SnapshotChunk
    | SnapshotReply
    | TimeoutNow
)


# ---- what the host must do ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SoftState:
    """Role and leader as seen from here; never stored."""

    role: Role
    leader: MemberId | None
    term: Term


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read that may be answered once the state machine has applied `index`."""

    request: int
    index: Index


@dataclass(frozen=True, slots=True)
class Ready:
    """One round of work for the host. Order of duties:

    1. send `messages` (nothing in them depends on this round's durability);
    2. make `snapshot`, `entries` and `hard_state` durable in one transaction;
       entries replace everything stored from `entries[0].index` on;
    3. send `messages_after_durable`;
    4. install `snapshot` into the state machine, apply `committed` in order,
       answer `reads`;
    5. call `RawNode.advance(ready)`.

    Only one Ready is outstanding at a time. Between `ready()` and `advance()`
    the host may go on calling `step`, `tick` and `propose`.
    """

    messages: Sequence[Message] = ()
    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    snapshot: Snapshot | None = None
    messages_after_durable: Sequence[Message] = ()
    committed: Sequence[Entry] = ()
    reads: Sequence[ReadState] = ()
    #: Reads that can no longer be confirmed (leadership lost); answer NotLeader.
    reads_lost: Sequence[int] = ()
    soft_state: SoftState | None = None
    #: False when all there is to store is a higher commit index: it may be written without
    #: waiting for the disk, because after a crash the leader tells it again.
    must_sync: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """What a member finds in its log store when it starts.

    Invariant: `entries` follow `snapshot.meta.last` without a gap.
    """

    hard_state: HardState = HardState()
    snapshot: Snapshot | None = None
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Timers in ticks and bounds of one member's core.

    `heartbeat_ticks` < `election_ticks_min` <= `election_ticks_max`.
    """

    id: MemberId
    heartbeat_ticks: int = 2
    election_ticks_min: int = 30
    election_ticks_max: int = 50
    #: Appends in flight to one follower before the leader waits.
    inflight_max: int = 256
    #: Bytes of entries in one Append; one entry always fits.
    append_bytes_max: int = 1 << 20
    #: Bytes in the uncommitted tail before proposals are refused.
    uncommitted_bytes_max: int = 16 << 20
    #: Bytes of one snapshot chunk.
    chunk_bytes: int = 1 << 20
    #: Entries kept behind a snapshot for slow followers.
    trailing_entries: int = 4096
    #: Bytes of committed entries in one Ready; one entry always fits.
    committed_bytes_max: int = 4 << 20
    #: Reads waiting for confirmation before more are refused.
    reads_max: int = READS_PENDING_MAX
    #: Bytes of a whole snapshot; a larger one is neither made nor received.
    snapshot_bytes_max: int = SNAPSHOT_BYTES_MAX


class ProgressMode(Enum):
    """How the leader feeds one follower."""

    #: One append at a time until the follower's log end is known.
    PROBE = "probe"
    #: Optimistic pipelining, bounded by inflights.
    REPLICATE = "replicate"
    #: The follower needs a snapshot; chunks flow, appends wait.
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The leader's view of one follower."""

    id: MemberId
    mode: ProgressMode
    matched: Index
    next: Index
    recently_active: bool


@dataclass(frozen=True, slots=True)
class Status:
    """A member's view of itself, for status pages and tests."""

    id: MemberId
    role: Role
    term: Term
    vote: MemberId | None
    leader: MemberId | None
    commit: Index
    applied: Index
    first_index: Index
    last: EntryId
    membership: Membership
    transferring_to: MemberId | None
    #: On a leader: how many ticks ago the last round that a quorum confirmed was sent; else None.
    quorum_confirmed_ticks_ago: int | None
    peers: tuple[PeerStatus, ...] = field(default=())
    #: Messages thrown away before they could touch any state (wrong address, malformed).
    dropped: int = 0
