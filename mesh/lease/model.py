"""The values that go into and come out of the lease and ownership decisions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from mesh.ids import FencingTerm, HostId, OwnedName, Term

# ---- leases ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """The leader's answer to one beat, as the host that beat sees it."""

    sequence: int
    granted: bool
    lease_ns: int
    term: Term


class ElectedBy(Enum):
    """Why voters gave this leader their votes; it decides what may be concluded."""

    #: Every voter had heard from no leader for the shortest election timeout.
    TIMEOUT = "timeout"
    #: Voters did not wait, because the former leader's sidecar was proven dead.
    CRASH_PROOF = "crash-proof"
    #: Voters did not wait, because the former leader asked for the election.
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Election:
    """How and when the leader that keeps a lease table came to lead.

    `predecessor`: the host that led the term of the last entry this leader had
    in its log when it stood, if this leader itself heard from it in that term;
    else None. Leaving it None is always safe and only costs time.
    """

    at: int
    by: ElectedBy
    predecessor: HostId | None
    #: When this host last heard from the predecessor as leader.
    predecessor_heard_at: int


# ---- ownerships -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnershipView:
    """One ownership as the applied state has it.

    Invariant: while `successor` names another host than `holder`, the holder
    does not act; it reports the release with its next beat.
    """

    name: OwnedName
    holder: HostId
    fencing_term: FencingTerm
    successor: HostId | None = None


@dataclass(frozen=True, slots=True)
class HostView:
    """What the leader knows about one host when it decides ownerships."""

    host: HostId
    #: Not lost; a suspect host counts as alive.
    alive: bool
    #: The member that beats is the one in the membership, with its incarnation.
    current: bool = True
    draining: bool = False
    #: Anything that grows with load; compared only between hosts.
    load: int = 0
    has_database: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """Who is to own a name, where more than the fitness of hosts decides that; None: leave it as it is."""

    host: HostId | None
    #: The holder keeps it under a new number.
    renew: bool = False


@dataclass(frozen=True, slots=True)
class OwnershipSituation:
    """All that `decide_ownerships` looks at besides the leases and the time."""

    leader: HostId
    hosts: tuple[HostView, ...]
    #: Owned names that should have an owner; an ownership not in it is ended.
    wanted: tuple[OwnedName, ...]
    ownerships: tuple[OwnershipView, ...]
    #: Names of which something else decides who owns them.
    targets: Mapping[OwnedName, Target] = field(default_factory=dict)
    #: Names that only a host which carries a database can use.
    on_database: Collection[OwnedName] = ()


@dataclass(frozen=True, slots=True)
class Assign:
    """Propose `holder` as owner; applied only if the fencing term is still the expected one.

    Order: `LeaseTable.reserve` comes before the proposal leaves.
    """

    name: OwnedName
    holder: HostId
    #: 0: the name has no ownership yet.
    expected_fencing_term: FencingTerm


@dataclass(frozen=True, slots=True)
class Unassign:
    """Propose to end the ownership of a name that nobody should own any more.

    Order: `LeaseTable.reserve` comes before the proposal leaves.
    """

    name: OwnedName
    expected_fencing_term: FencingTerm


@dataclass(frozen=True, slots=True)
class RequestRelease:
    """Propose `successor`, which asks the present holder to stop and report it."""

    name: OwnedName
    successor: HostId
    expected_fencing_term: FencingTerm


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing may be done for `name` before `at`; decide again then or on any news."""

    name: OwnedName
    at: int


Decision: TypeAlias = Assign | Unassign | RequestRelease | WaitUntil


# ---- hosts ----------------------------------------------------------------------


class Verdict(Enum):
    """What the leader concludes about a host."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class HostStanding:
    """The running account of one host's heartbeats.

    Invariant: `streak` counts beats in a row without a gap that would have
    made the host suspect.
    """

    host: HostId
    verdict: Verdict
    #: When the verdict was reached.
    since: int
    #: Newest beat; before the first one, when the account was opened.
    last_beat: int
    streak: int = 0
    #: Newest crash proof of this host's sidecar that no later beat has overtaken.
    crashed_at: int | None = None


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A rare transition, to be proposed to the replicated state."""

    host: HostId
    before: Verdict
    after: Verdict
    #: One clause with the facts it rests on.
    because: str
