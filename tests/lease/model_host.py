"""One simulated host, what is replicated between hosts, and the rules under test."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mesh.ids import FencingTerm, HostId, OwnedName, ServiceName, Term, owned_service
from mesh.lease.grantor import LeaseTable
from mesh.lease.holder import HostLease
from mesh.lease.model import (
    Assign,
    Decision,
    ElectedBy,
    Election,
    HostStanding,
    OwnershipView,
    RequestRelease,
)
from mesh.lease.timers import LeaseTimers

MS = 1_000_000
ELECTION_MIN = 1_500 * MS
ELECTION_MAX = 2_500 * MS
MARGIN = 50 * MS
NO_TERM = Term(0)
REPORTER = owned_service(ServiceName("reporter"))
Ownerships = dict[OwnedName, OwnershipView]


class TwoActedError(AssertionError):
    """The one thing that must never happen."""


@dataclass(frozen=True)
class Rules:
    """The decisions under test; a broken variant replaces one."""

    make_table: Callable[[HostId, Election, LeaseTimers], LeaseTable] = LeaseTable
    make_lease: Callable[[Term], HostLease] = HostLease
    #: How a leader says it was elected.
    elected_by: Callable[[ElectedBy], ElectedBy] = ElectedBy
    #: What a voter waits for.
    loyal_ns: int = ELECTION_MIN
    #: A leader that steps down stays loyal to itself: its own lease may still run.
    loyal_to_itself: bool = True
    #: A leader that a quorum has not confirmed for so long steps down.
    steps_down_ns: int = ELECTION_MIN


@dataclass(frozen=True)
class Record:
    term: Term
    command: Decision | None = None


def apply(state: Ownerships, record: Record) -> None:
    """What the replicated state machine does with one entry."""
    command = record.command
    if isinstance(command, Assign):
        former = state.get(command.name)
        term = FencingTerm(0) if former is None else former.fencing_term
        if term == command.expected_fencing_term:
            state[command.name] = OwnershipView(command.name, command.holder, FencingTerm(term + 1))
    elif isinstance(command, RequestRelease):
        present = state.get(command.name)
        if present is not None and present.fencing_term == command.expected_fencing_term:
            state[command.name] = replace(present, successor=command.successor)


@dataclass
class Host:
    """One host: what is durable, what its present process knows, what it really does."""

    id: HostId
    rate: float
    offset: int
    lease: HostLease
    # durable
    term: Term = NO_TERM
    vote: HostId | None = None
    log: list[Record] = field(default_factory=list)
    commit: int = 0
    # process
    process: int = 0
    up: bool = True
    frozen: bool = False
    leader: HostId | None = None
    heard: dict[HostId, int] = field(default_factory=dict)
    led: dict[Term, HostId] = field(default_factory=dict)
    loyal_from: int = 0
    campaign_at: int = 0
    votes: set[HostId] = field(default_factory=set)
    standing_by: ElectedBy = ElectedBy.TIMEOUT
    sequence: int = 0
    applied: int = 0
    state: Ownerships = field(default_factory=dict)
    inbox: list[Callable[[], None]] = field(default_factory=list)
    # leading
    table: LeaseTable | None = None
    election: Election | None = None
    is_leader: bool = False
    rounds: dict[int, int] = field(default_factory=dict)
    round: int = 0
    confirmed: dict[HostId, int] = field(default_factory=dict)
    matched: dict[HostId, int] = field(default_factory=dict)
    standings: dict[HostId, HostStanding] = field(default_factory=dict)
    processes: dict[HostId, int] = field(default_factory=dict)
    proofs: dict[HostId, int] = field(default_factory=dict)
    draining: bool = False
    # the truth
    acting: dict[OwnedName, FencingTerm] = field(default_factory=dict)
    #: When what is being stopped will have stopped.
    stopping: dict[OwnedName, int] = field(default_factory=dict)
    deadline: int = 0

    def apply_committed(self) -> None:
        while self.applied < self.commit:
            apply(self.state, self.log[self.applied])
            self.applied += 1

    @property
    def last(self) -> tuple[Term, int]:
        return (self.log[-1].term if self.log else Term(0), len(self.log))
