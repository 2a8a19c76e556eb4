"""What happens in a simulated cluster, as small records; checkers see every one of them at once.

`at_ns` is true time since the world began, which no host knows; `host` is the machine, "" for the
world itself. `member` is the incarnation that ran there. Records are tuples: equal runs give
equal text, and their SHA-256 is the trace hash.

Order: a record is told in the instant in which it became true, before anything that follows from it.
Promises (`Voted`, `Acked`, `Granted`, `Return`) are told when they leave the host, durable facts
(`Stored`, `Compacted`) when the disk has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from mesh.ids import FencingTerm, HostId, Index, MemberId, OwnedName, Term
from mesh.lease.timers import LeaseTimers
from mesh.raft.model import Entry, EntryId, HardState, Membership, Role, SnapshotMeta, Standing
from tests.sim.postgres.events import Acknowledged, Branched, Opened, Published

# ---- lives ------------------------------------------------------------------------


class Start(NamedTuple):
    """A sidecar begins; what its disk gave it. `life` counts the starts of this host, from 1.

    `is_new`: the disk is empty on purpose (a founder, or a joiner's first start): no promise
    of this member can be older.
    """

    at_ns: int
    host: HostId
    member: MemberId
    life: int
    is_new: bool
    hard_state: HardState
    first_index: Index
    last: EntryId


class Crash(NamedTuple):
    """A sidecar is gone between two instructions: killed, or its machine lost power."""

    at_ns: int
    host: HostId
    member: MemberId
    kind: str


class End(NamedTuple):
    """A sidecar ended by itself: told to (`error` empty), or after a fatal error, by its type's name."""

    at_ns: int
    host: HostId
    member: MemberId
    error: str


class Pause(NamedTuple):
    """Nothing of this host runs from now on; its clock goes on as `Resume` says."""

    at_ns: int
    host: HostId
    member: MemberId


class Resume(NamedTuple):
    """It runs again."""

    at_ns: int
    host: HostId
    member: MemberId


class Fault(NamedTuple):
    """Something was broken (or healed) on purpose. `host` may be "" (a link, everything)."""

    at_ns: int
    host: HostId
    kind: str
    detail: str


class Phase(NamedTuple):
    """The run enters a phase: "safety", then "liveness" with the `hosts` that are healed for good."""

    at_ns: int
    host: HostId
    name: str
    hosts: tuple[HostId, ...]


# ---- consensus --------------------------------------------------------------------


class RoleChanged(NamedTuple):
    """A member's role, term or known leader is another."""

    at_ns: int
    host: HostId
    member: MemberId
    role: Role
    term: Term
    leader: MemberId | None
    #: The end of its log, and its commit index, at this moment.
    last: EntryId
    commit: Index
    #: Why it stood for election last.
    stood_for: Standing = Standing.TIMEOUT


class TermRaised(NamedTuple):
    """A message of `by` made this member enter a newer term. `was_asked`: it was a pre-vote's question."""

    at_ns: int
    host: HostId
    member: MemberId
    term: Term
    by: MemberId
    was_asked: bool = False


class Voted(NamedTuple):
    """A granted vote (not a pre-vote) leaves this member, to `candidate`."""

    at_ns: int
    host: HostId
    member: MemberId
    term: Term
    candidate: MemberId


class Acked(NamedTuple):
    """This member tells `leader` of `term` that it holds the leader's log up to `at_index`, durably."""

    at_ns: int
    host: HostId
    member: MemberId
    term: Term
    leader: MemberId
    at_index: Index


class Stored(NamedTuple):
    """A Ready is durable. `entries` replace everything from the first of them on.

    `snapshot`: the log now begins after it (received from a leader).
    """

    at_ns: int
    host: HostId
    member: MemberId
    hard_state: HardState
    entries: tuple[Entry, ...]
    snapshot: SnapshotMeta | None


class Compacted(NamedTuple):
    """An own snapshot is durable: entries that it covers are gone from the disk."""

    at_ns: int
    host: HostId
    member: MemberId
    snapshot: SnapshotMeta


class Committed(NamedTuple):
    """This member knows these entries to be committed, and is about to apply them, in order."""

    at_ns: int
    host: HostId
    member: MemberId
    term: Term
    entries: tuple[Entry, ...]


class Applied(NamedTuple):
    """One command is applied; `state_hash` of the whole state after it, empty when not computed."""

    at_ns: int
    host: HostId
    member: MemberId
    at_index: Index
    state_hash: bytes


class Restored(NamedTuple):
    """The state machine became what a snapshot says."""

    at_ns: int
    host: HostId
    member: MemberId
    at_index: Index
    state_hash: bytes


class MembershipCommitted(NamedTuple):
    """A member learned of a committed membership."""

    at_ns: int
    host: HostId
    member: MemberId
    membership: Membership


class Removed(NamedTuple):
    """The state as applied on `host` has `gone` no more: removed, or replaced by its next incarnation."""

    at_ns: int
    host: HostId
    member: MemberId
    at_index: Index
    gone: MemberId


# ---- leases and ownership ---------------------------------------------------------


class Granted(NamedTuple):
    """The leader of `term` answers a beat of `to` with *granted*, as it decided at `decided_ns`.

    Its process may have stood still in between.
    """

    at_ns: int
    host: HostId
    member: MemberId
    term: Term
    to: MemberId
    decided_ns: int


class LeaseExtended(NamedTuple):
    """A host's lease now ends at `until_ns` of its own CLOCK_BOOTTIME; `left_ns` of it are left there."""

    at_ns: int
    host: HostId
    member: MemberId
    until_ns: int
    left_ns: int


class Owned(NamedTuple):
    """The applied state of `host` names another owner (`holder` None: nobody) than before."""

    at_ns: int
    host: HostId
    member: MemberId
    at_index: Index
    name: OwnedName
    holder: HostId | None
    fencing_term: FencingTerm


class Acted(NamedTuple):
    """From now on this host acts for `name`: the address is up, the process runs. True until `Stopped`."""

    at_ns: int
    host: HostId
    member: MemberId
    name: OwnedName
    fencing_term: FencingTerm


class Stopped(NamedTuple):
    """Nothing of `name` acts on this host any more. `by`: sidecar, fence, or kernel."""

    at_ns: int
    host: HostId
    member: MemberId
    name: OwnedName
    fencing_term: FencingTerm
    by: str


class Released(NamedTuple):
    """A beat leaves this host that says: nothing of `name` acts here, nor will under this number again."""

    at_ns: int
    host: HostId
    member: MemberId
    name: OwnedName
    fencing_term: FencingTerm


# ---- clients ----------------------------------------------------------------------


class Invoke(NamedTuple):
    """A client asks `host` for something; `operation` is unique in the run.

    `kind`: put, cas, delete, get, get-stale, list, list-stale, or the name of an operation
    (drain, transfer, remove, …). `value` is what is to be written; `expected` the version for cas.
    """

    at_ns: int
    host: HostId
    client: str
    operation: int
    kind: str
    name: str
    value: bytes
    expected: int | None


class Return(NamedTuple):
    """The answer to `operation`. No Return ever: its host died, so its outcome is unknown.

    `result`: "ok"; "refused" (certainly not done; `reason` says why); "unknown".
    For put, cas and delete that are ok, `version` is the new one; for get, `version` (0: absent)
    and `value` are what was read; `at_index` is the log index of the write, or that the read saw.
    For what is refused with VERSION_CONFLICT, `version` is what the document was at (0: absent).
    For list, `names` has (name, version) of all present documents, in order.
    """

    at_ns: int
    host: HostId
    client: str
    operation: int
    result: str
    reason: str
    version: int
    value: bytes
    at_index: int
    names: tuple[tuple[str, int], ...]


class Queues(NamedTuple):
    """How full the bounded queues of a sidecar are: (name, items, bound); sampled."""

    at_ns: int
    host: HostId
    member: MemberId
    sizes: tuple[tuple[str, int, int], ...]


_Lives: TypeAlias = Start | Crash | End | Pause | Resume | Fault | Phase
_Logs: TypeAlias = Acked | Stored | Compacted | Committed | Applied | Restored
_Members: TypeAlias = RoleChanged | TermRaised | Voted | MembershipCommitted | Removed
_Owners: TypeAlias = Granted | LeaseExtended | Owned | Acted | Stopped | Released
_Databases: TypeAlias = Branched | Opened | Acknowledged | Published
Event: TypeAlias = _Lives | _Logs | _Members | _Owners | _Databases | Invoke | Return | Queues

# ---- checking ---------------------------------------------------------------------


class Violation(Exception):
    """A promise was broken. `checker` names which; the text says by whom and how."""

    def __init__(self, checker: str, text: str, *, is_liveness: bool = False) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker
        self.text = text
        self.is_liveness = is_liveness


@dataclass(frozen=True, slots=True)
class Facts:
    """What checkers may know beside the events: fixed for one run."""

    seed: int
    hosts: tuple[HostId, ...]
    #: The voters the cluster is founded with.
    founders: tuple[MemberId, ...]
    timers: LeaseTimers
    tick_ns: int
    election_ns: tuple[int, int]
    #: The lease margin that hosts keep free, ns.
    margin_ns: int
    #: Names of checkers whose documented assumption this run breaks, with the reason; they are not made.
    suspended: Mapping[str, str] = field(default_factory=dict)
    #: Where a host's clock stands at this moment (its CLOCK_BOOTTIME), for checkers of leases.
    boottime_ns: Callable[[HostId], int] = lambda _host: 0
    #: What checkers share, by its type (durable_log.py).
    followed: dict[type, Any] = field(default_factory=dict)


class Checker(Protocol):
    """One promise, checked after every event with incremental work only.

    Fails: `seen` and `finished` raise `Violation`.
    """

    #: Stands in `Violation.checker` and in `Facts.suspended`.
    name: ClassVar[str]
    #: The kinds of events it is told of; it is called for no others.
    wants: ClassVar[tuple[type[Event], ...]]

    def __init__(self, facts: Facts) -> None: ...

    def seen(self, event: Event) -> None:
        """Take in one event."""

    def finished(self, at_ns: int) -> None:
        """The run is over: what can only be judged as a whole."""
