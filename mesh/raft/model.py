"""The values that go into and come out of the consensus core.

Everything here is frozen and free of I/O. Wire types stop at `mesh.wire`; the
core, the log adapter, the driver and the simulator speak these.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum, IntEnum
from typing import TypeAlias

from mesh.ids import Index, MemberId, Term


class Role(Enum):
    """What a member is in the present term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


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

    term: Term = Term(0)
    vote: MemberId | None = None
    commit: Index = Index(0)


@dataclass(frozen=True, slots=True)
class Membership:
    """Who votes, who learns, and, while a change is under way, who voted before.

    Joint consensus (Raft paper §6): while `outgoing` is not empty, every
    decision needs a majority of `voters` and a majority of `outgoing`.
    Invariant: all tuples are sorted and without duplicates; `learners` is
    disjoint from both voter sets; `witnesses` is a subset of the voter sets'
    union; `demoting` (voters of `outgoing` that become learners when the joint
    state is left) is a subset of `outgoing`.
    """

    voters: tuple[MemberId, ...] = ()
    outgoing: tuple[MemberId, ...] = ()
    learners: tuple[MemberId, ...] = ()
    witnesses: tuple[MemberId, ...] = ()
    demoting: tuple[MemberId, ...] = ()

    @classmethod
    def of(
        cls,
        voters: Iterable[MemberId],
        learners: Iterable[MemberId] = (),
        witnesses: Iterable[MemberId] = (),
    ) -> "Membership":
        """A membership outside any change, sorted and without duplicates."""
        return cls(
            voters=tuple(sorted(set(voters))),
            learners=tuple(sorted(set(learners))),
            witnesses=tuple(sorted(set(witnesses))),
        )

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def all_voters(self) -> tuple[MemberId, ...]:
        """Everybody whose vote some decision needs, sorted."""
        if not self.outgoing:
            return self.voters
        return tuple(sorted({*self.voters, *self.outgoing}))

    @property
    def members(self) -> tuple[MemberId, ...]:
        """Voters of both sets and learners, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, member: MemberId) -> bool:
        return member in self.voters or member in self.outgoing

    def is_member(self, member: MemberId) -> bool:
        return self.is_voter(member) or member in self.learners

    def may_lead(self, member: MemberId) -> bool:
        """True for a voter that holds data."""
        return self.is_voter(member) and member not in self.witnesses

    def encode(self) -> bytes:
        """Canonical JSON: equal memberships give equal bytes on every host."""
        filled = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}
        return json.dumps(filled, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Membership":
        """The inverse of `encode`.

        Fails: `ValueError` for anything `encode` would not have written, unknown
        fields included: a change of membership is never half understood.
        """
        filled = json.loads(data)
        if not isinstance(filled, dict) or not all(
            isinstance(ids, list) and all(isinstance(each, str) for each in ids)
            for ids in filled.values()
        ):
            raise ValueError("a membership is an object of lists of member ids")
        try:
            membership = cls(**{name: tuple(ids) for name, ids in filled.items()})
        except TypeError as error:
            raise ValueError(f"unknown field in membership: {error}") from error
        if membership.encode() != data:
            raise ValueError("a membership is not in canonical form")
        return membership


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
    refused: Index = Index(0)
    #: On reject: largest entry of the follower that may match (term, index).
    hint: EntryId = EntryId(Term(0), Index(0))


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
    reads_max: int = 4096
    #: Bytes of a whole snapshot; a larger one is neither made nor received.
    snapshot_bytes_max: int = 256 << 20


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
