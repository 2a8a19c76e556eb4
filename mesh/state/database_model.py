"""The rows about the database: what is declared of it, what its hosts are, what may be lost.

One PostgreSQL cluster ("the database") per Trellis cluster. Who may be primary
is an ownership like any other (`mesh.ids.PRIMARY`); its fencing term numbers
the primaryships. Positions in the WAL change with every write and are not here.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from mesh.ids import FencingTerm, HostId, Index
from mesh.limits import LAG_BEHIND_BYTES_MAX, LAG_CLOSE_BYTES_MAX
from mesh.state.model import NOWHERE

#: Key of the only row about the database as a whole.
MAIN: Final = "main"
#: Where PostgreSQL listens unless declared otherwise.
PORT_DEFAULT: Final = 5432
#: No primaryship.
NEVER_PRIMARY: Final = FencingTerm(0)


@dataclass(frozen=True, slots=True)
class DatabaseSpec:
    """The database as declared.

    Invariant: `parameters` and `data_hosts` are sorted and without duplicates.
    """

    #: Where PostgreSQL listens on every host whose settings name no other port.
    port: int = PORT_DEFAULT
    #: PostgreSQL parameters, name and value as they stand in postgresql.conf.
    parameters: tuple[tuple[str, str], ...] = ()
    #: How many standbys must have flushed a commit before it is acknowledged; 0: none, and
    #: then no failover is without a loss that somebody accepts.
    standbys_needed: int = 1
    #: Hosts that hold data; empty: all but witnesses.
    data_hosts: tuple[HostId, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncSet:
    """Whom a promotion without the present primary asks, and how many must answer.

    Invariant: any `quorum` of `voters` hold between them every commit that the
    primary has acknowledged. Empty: only the primary itself is known to.
    `voters` is sorted and without duplicates, and 1 <= `quorum` <= |`voters`|,
    or both are empty. Versions rise by one.
    """

    version: int = 0
    voters: tuple[HostId, ...] = ()
    quorum: int = 0


@dataclass(frozen=True, slots=True)
class AcceptedLoss:
    """Somebody's word that the primaryship of this number may be succeeded with less than everything."""

    fencing_term: FencingTerm
    by: str
    why: str
    #: Wall clock, nanoseconds; for people only.
    at_ns: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseRecord:
    """What is decided about the database.

    Invariant: `system_identifier` is set once and never changes; `timeline`,
    `primary_term` and `published_term` never fall.
    """

    spec: DatabaseSpec
    #: Of the declaration; rises by one with each change.
    version: int
    #: PostgreSQL's own, decimal; empty until bootstrapped.
    system_identifier: str = ""
    #: The timeline that is written now: the newest that was recorded.
    timeline: int = 0
    #: Timelines that led to it with the LSN where each was left, oldest first.
    history: tuple[tuple[int, int], ...] = ()
    #: Host that made the database; None until bootstrapped.
    bootstrap_host: HostId | None = None
    published: SyncSet = SyncSet()
    #: Primaryship that `published` was published in. Until it is the present one, the set
    #: speaks of what an earlier primary acknowledged.
    published_term: FencingTerm = NEVER_PRIMARY
    #: Host that was last recorded to be primary, and the number of that primaryship.
    primary: HostId | None = None
    primary_term: FencingTerm = NEVER_PRIMARY
    accepted_loss: AcceptedLoss | None = None
    #: What is added to a fencing term for the number of its timeline; above 0 where the data had a past.
    timeline_base: int = 0

    @property
    def is_bootstrapped(self) -> bool:
        return bool(self.system_identifier)

    def accepts_loss(self, fencing_term: FencingTerm) -> bool:
        """Somebody accepted that the primaryship of this number is succeeded with less than everything."""
        return self.accepted_loss is not None and self.accepted_loss.fencing_term == fencing_term


class DatabaseRole(Enum):
    """What the database of one host is, as its host sees it."""

    #: No data directory.
    NONE = "none"
    #: The data directory is being made: bootstrap, clone or rewind.
    PREPARING = "preparing"
    #: Data, and no process.
    STOPPED = "stopped"
    #: Started, and not yet consistent.
    RECOVERING = "recovering"
    STANDBY = "standby"
    PRIMARY = "primary"


class Lag(Enum):
    """How far a standby is behind what it knows of the primary, in classes that change rarely."""

    UNKNOWN = "unknown"
    #: At most `limits.LAG_CLOSE_BYTES_MAX`: fit to succeed in a switchover.
    CLOSE = "close"
    #: At most `limits.LAG_BEHIND_BYTES_MAX`.
    BEHIND = "behind"
    FAR = "far"


class Wants(Enum):
    """What a host's database waits for its turn to do: hosts take turns (`sidecar.postgres.turns`)."""

    NOTHING = "nothing"
    #: To start anew: what is declared comes into force by that.
    RESTART = "restart"
    #: As a standby, once its primary has: it must not have less than that.
    RESTART_LATER = "restart-later"
    #: Pages of its data are damaged: to be copied anew, as primary to hand over before that.
    COPY = "copy"


_BOUNDS: Final = ((Lag.CLOSE, LAG_CLOSE_BYTES_MAX), (Lag.BEHIND, LAG_BEHIND_BYTES_MAX))


def lag_class(lag_bytes: int, before: Lag = Lag.UNKNOWN) -> Lag:
    """The class of a lag; one that was told before is kept until it is missed by half.

    A lag that moves around a bound would else be news to the whole cluster each time.
    """
    for lag, most in _BOUNDS:
        if lag_bytes <= (most * 3 // 2 if before is lag else most):
            return lag
    return Lag.FAR


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What a host reports of its database: what people and unhurried decisions want to know.

    Invariant: `is_streaming` only as STANDBY, `is_open` only as PRIMARY.
    """

    role: DatabaseRole
    #: What is not well and what to do, as a sentence; empty when all is.
    health: str = ""
    #: Decimal; empty without data.
    system_identifier: str = ""
    #: 0 without data.
    timeline: int = 0
    #: Receives from a primary now.
    is_streaming: bool = False
    #: Takes clients' writes.
    is_open: bool = False
    lag: Lag = Lag.UNKNOWN
    #: Where the other hosts reach it: "10.0.0.1:5432".
    address: str = ""
    #: Of PostgreSQL: "15.18".
    version: str = ""
    #: Primaryship that it runs in as primary, follows or is sealed at; 0: none.
    fencing_term: FencingTerm = NEVER_PRIMARY
    #: Version of the declaration whose parameters it has loaded, and of the one that it refused; 0: none.
    parameters_version: int = 0
    parameters_refused: int = 0
    #: Its data were there before the host joined this cluster: no database begins with them.
    is_leftover: bool = False
    wants: Wants = Wants.NOTHING


@dataclass(frozen=True, slots=True)
class DatabaseMember:
    """One host's database as the cluster knows it."""

    host: HostId
    status: DatabaseStatus
    #: Index of the last change of its role.
    since: Index = NOWHERE
