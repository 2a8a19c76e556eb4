"""The words of the database: positions in its WAL, who holds what, what a host is to do.

Pure values only. `Lsn` counts bytes of WAL; it orders positions of one timeline,
and `history` says when positions of two timelines may be compared at all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NewType

from mesh.ids import FencingTerm, HostId
from mesh.state.database_model import SyncSet as SyncSet

#: Byte position in the WAL; 0 means none.
Lsn = NewType("Lsn", int)
#: Number of a WAL history; each promotion begins one. From 1; 0 means unknown.
Timeline = NewType("Timeline", int)

NO_LSN: Final = Lsn(0)
NO_TIMELINE: Final = Timeline(0)
NO_TERM: Final = FencingTerm(0)
_LSN: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> Lsn:
    """The position that PostgreSQL writes as 'X/Y'.

    Fails: `ValueError` for any other text.
    """
    found = _LSN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no WAL position; one looks like 0/3000148")
    return Lsn(int(found[1], 16) << 32 | int(found[2], 16))


def format_lsn(lsn: Lsn) -> str:
    """The position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


# ---- histories ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A timeline that was left for the next one at `end`."""

    timeline: Timeline
    end: Lsn


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """Where a timeline came from: what its .history file says.

    Invariant: `ancestors` are the oldest first, with rising numbers below
    `timeline`; the ends do not fall.
    """

    timeline: Timeline
    ancestors: tuple[Ancestor, ...] = ()


# ---- the synchronous set --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SyncNames:
    """What `synchronous_standby_names` says: `ANY needed (standbys)`.

    Invariant: `standbys` are sorted and not empty when `needed` is not 0; an
    empty text would let PostgreSQL acknowledge without anybody.
    """

    needed: int
    standbys: tuple[HostId, ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """What the primary acts by.

    `is_certain`: every process of it, each walsender too, has loaded `names`,
    and no file says otherwise. False after a change that was interrupted: some
    of them may still act by an earlier one.

    Order: `barrier` is the primary's flushed position, read after `names` was
    certain; None: not read since.
    """

    primary: HostId
    names: SyncNames
    is_certain: bool = True
    barrier: Lsn | None = None


# ---- one host -------------------------------------------------------------------


class DataKind(Enum):
    """What is in the data directory."""

    NONE = "none"
    #: A clone or rewind was begun and not finished; its marker file is there.
    PARTIAL = "partial"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class LocalData:
    """The data directory as found on disk (control file and marker files)."""

    kind: DataKind = DataKind.NONE
    system_identifier: str = ""
    history: TimelineHistory | None = None
    #: It has acted as primary since it last followed one; `primary_term` is the number then.
    was_primary: bool = False
    primary_term: FencingTerm = NO_TERM
    #: The control file says "shut down" or "shut down in recovery".
    is_clean: bool = False
    #: End of its WAL where that is known: the shutdown checkpoint, or what the standby has flushed.
    end: Lsn = NO_LSN
    #: Why it must not be used; empty: nothing wrong is known.
    damaged: str = ""
    #: Why a rewind cannot be done, or how it failed; empty: it can be tried.
    rewind_refused: str = ""
    #: It was there before this host joined the cluster.
    is_leftover: bool = False
    #: What a standby needs at least of some parameters, or it does not replay: its primary's, by name.
    least: tuple[tuple[str, int], ...] = ()


class ProcessKind(Enum):
    """What the PostgreSQL server on this host is doing."""

    DOWN = "down"
    STARTING = "starting"
    #: Reading its own WAL after a crash, before it is a standby or a primary.
    RECOVERING = "recovering"
    STANDBY = "standby"
    PRIMARY = "primary"


@dataclass(frozen=True, slots=True)
class LocalProcess:
    """The server as observed. DOWN means: its whole process tree is verified gone."""

    kind: ProcessKind = ProcessKind.DOWN
    #: STARTING, RECOVERING: it was started with standby.signal, so it becomes no primary by itself.
    as_standby: bool = False
    #: STARTING, RECOVERING: the host that it was told to receive from, and its address; None: nobody.
    told: tuple[HostId, str] | None = None
    #: STANDBY: whose WAL it receives, and from where; None: no receiver runs.
    receives_from: HostId | None = None
    flushed: Lsn = NO_LSN
    #: PRIMARY: clients are let in.
    is_open: bool = False
    #: PRIMARY: a checkpoint was finished since it was asked to hand over, so that stopping is short.
    is_checkpointed: bool = False
    #: PRIMARY: it acknowledges by other names than it was told.
    has_other_names: bool = False
    #: PRIMARY: this sidecar has made it none: a promotion went on after whoever began it had died.
    is_stray: bool = False
    #: RECOVERING: what people are shown.
    progress: str = ""


@dataclass(frozen=True, slots=True)
class LocalState:
    """All that `decide` looks at on this host."""

    data: LocalData = field(default_factory=LocalData)
    process: LocalProcess = field(default_factory=LocalProcess)
    #: Durable promise: no WAL is received from a primaryship of this number or a lower one.
    sealed_under: FencingTerm = NO_TERM
    #: Hosts for which this server has a physical slot.
    slots: tuple[HostId, ...] = ()


class GoalKind(Enum):
    """What the replicated state and the lease ask of this host."""

    #: No database is declared, or this host holds no data.
    NOTHING = "nothing"
    #: This host is chosen to make the database.
    BOOTSTRAP = "bootstrap"
    PRIMARY = "primary"
    #: Primary, asked to hand over: end cleanly, so that the successor has everything.
    HAND_OVER = "hand-over"
    FOLLOW = "follow"
    #: Receive nothing from the primaryship `fencing_term` and report how far it is.
    SEALED = "sealed"
    #: No lease, not primary: keep what is, go on receiving.
    HOLD = "hold"
    #: It was primary and may not act: every process gone, verified.
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Goal:
    """What this host is to bring about; fields that a kind does not need stay empty."""

    kind: GoalKind
    #: PRIMARY, HAND_OVER, FOLLOW, SEALED: number of the primaryship that is meant.
    fencing_term: FencingTerm = NO_TERM
    #: Of the cluster's database; empty until it is bootstrapped.
    system_identifier: str = ""
    #: FOLLOW: whose WAL to receive, and from which address.
    primary: HostId | None = None
    address: str = ""
    #: FOLLOW: history of the primary's timeline; None: not known yet.
    primary_history: TimelineHistory | None = None
    #: PRIMARY: why clients may not be let in yet; empty: they may (`sync_set.why_closed`).
    closed_because: str = "whether its standbys have everything is not known yet"
    #: PRIMARY, BOOTSTRAP: what must be in the configuration before it may acknowledge anything
    #: (`sync_set.first_names`); None: not known, and nothing is begun.
    names: SyncNames | None = None
    #: PRIMARY: a promotion must begin a timeline of a higher number, whatever history files this host has
    #: (`history.timeline_above`): a number that is taken twice cannot be told apart.
    timeline_above: Timeline = NO_TIMELINE
    #: PRIMARY, FOLLOW: the other data hosts, each with a slot on every host beforehand; empty: leave
    #: slots as they are.
    peers: tuple[HostId, ...] = ()


class Do(Enum):
    """What the driver is to do; one at a time."""

    INITDB = "initdb"
    START_STANDBY = "start-standby"
    START_CLOSED_PRIMARY = "start-closed-primary"
    PROMOTE = "promote"
    CHECKPOINT = "checkpoint"
    OPEN = "open"
    FOLLOW = "follow"
    #: Make the promise durable and end the receiver; also where nothing runs.
    SEAL = "seal"
    STOP_FAST = "stop-fast"
    KILL_ALL = "kill-all"
    CLONE = "clone"
    REWIND = "rewind"
    CREATE_SLOTS = "create-slots"
    DROP_SLOTS = "drop-slots"
    CONFIGURE_SYNC = "configure-sync"
    #: Put its own names in force again, or end it.
    SET_RIGHT = "set-right"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do and the sentence that explains it."""

    do: Do
    reason: str
    #: CREATE_SLOTS and DROP_SLOTS.
    hosts: tuple[HostId, ...] = ()
    #: INITDB, PROMOTE and START_CLOSED_PRIMARY: in the configuration before that. CONFIGURE_SYNC.
    names: SyncNames | None = None
    #: PROMOTE: the new timeline gets a higher number than this.
    timeline_above: Timeline = NO_TIMELINE
    #: SEAL: nothing is received from a primaryship of this number or a lower one.
    fencing_term: FencingTerm = NO_TERM


# ---- failover -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SealReport:
    """What a host says after it has stopped receiving.

    Order: the promise is durable and the receiver gone before `flushed` is read.
    """

    host: HostId
    #: The primaryship from which, and from all before, it receives nothing any more.
    fencing_term: FencingTerm
    system_identifier: str
    history: TimelineHistory
    flushed: Lsn
    #: Why it cannot lead; empty: nothing wrong is known.
    damaged: str = ""
    #: It still reads WAL it has, or has not reached a consistent state: `flushed` is not final.
    catching_up: bool = False
    #: Number under which this data was primary; 0: it has followed one since, or never was.
    primary_term: FencingTerm = NO_TERM
    #: A former primary that was shut down cleanly: `flushed` is the end of its shutdown checkpoint.
    #: Of one that was not, `flushed` says nothing.
    ended_cleanly: bool = False


FlushedBy = Mapping[HostId, Lsn]
