"""What a host does with its database: a row with a sentence for every state and goal.

`decide` tells in which of these states a host is and what exactly is asked;
here is only what follows. The table is total, and a test reads every row.

Invariant: PROMOTE only where nothing is received any more; OPEN only where all
that it waits for has come; no row lets two servers use one data directory, and none
deletes data (CLONE and INITDB work beside it and swap when the new copy runs).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from sidecar.postgres.model import Do


class Local(Enum):
    """In which state a host is, as far as it decides what to do."""

    EMPTY = "empty"
    PARTIAL = "partial"
    STRANGE = "strange"
    STRANGE_RUNNING = "strange-running"
    DAMAGED = "damaged"
    DAMAGED_STANDBY = "damaged-standby"
    #: A server runs although the data are not whole.
    MISPLACED = "misplaced"
    STOPPED = "stopped"
    STOPPED_PRIMARY = "stopped-primary"
    STARTING = "starting"
    #: A standby that starts, and was told to receive from another host than asked: until it is
    #: consistent it hears nothing, and without that WAL it may never be.
    ASTRAY = "astray"
    STARTING_PRIMARY = "starting-primary"
    #: A standby that receives nothing, or from another host than asked.
    IDLE = "idle"
    RECEIVING = "receiving"
    CLOSED = "closed"
    OPEN = "open"
    #: Open, and it acknowledges by other names than it was told.
    OVERRIDDEN = "overridden"
    #: A primary by nobody's doing that is known here: its fence and its account are of somebody who died.
    STRAY = "stray"


class Asked(Enum):
    """What is asked of it, with what its data mean for that."""

    NOTHING = "nothing"
    BOOTSTRAP = "bootstrap"
    PRIMARY = "primary"
    #: Primary, and everything that clients wait for has come.
    PRIMARY_OPEN = "primary-open"
    HAND_OVER = "hand-over"
    #: The checkpoint is done: stopping will be short.
    HAND_OVER_NOW = "hand-over-now"
    #: Follow a primaryship that this host has promised to receive nothing from.
    BARRED = "barred"
    #: Follow, but the primary's history is not known yet.
    UNKNOWN = "unknown"
    FOLLOW = "follow"
    REWIND = "rewind"
    CLONE = "clone"
    #: Seal, and the promise is not made yet.
    SEAL = "seal"
    SEALED = "sealed"
    HOLD = "hold"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Row:
    """What to do and the sentence that explains it; `tends`: slots are looked after instead of waiting."""

    do: Do
    sentence: str
    tends: bool = False


L, A = Local, Asked
_DOWN: Final = (L.EMPTY, L.PARTIAL, L.STRANGE, L.DAMAGED, L.STOPPED, L.STOPPED_PRIMARY)
_WHOLE: Final = (L.STOPPED, L.STOPPED_PRIMARY)
_STANDBYS: Final = (L.DAMAGED_STANDBY, L.IDLE, L.RECEIVING)
_MOVABLE: Final = (L.STARTING, L.ASTRAY, L.IDLE, L.RECEIVING)
_PRIMARIES: Final = (L.CLOSED, L.OPEN, L.OVERRIDDEN)
_STARTS: Final = (L.STARTING, L.ASTRAY, L.STARTING_PRIMARY)
_Rows: TypeAlias = tuple[tuple[tuple[Local, ...], Row], ...]


def _wait(sentence: str) -> Row:
    return Row(Do.WAIT, sentence)


_STRANGE: Final = _wait("data of another database lie here: not touched; move them away")
_NO_DATA: Final = _wait("no whole data here: it cannot be primary, and says so")
_NO_MORE: Final = Row(Do.KILL_ALL, "another host is primary: nothing of this may go on")
_SET_RIGHT: Final = Row(Do.SET_RIGHT, "somebody has changed whom it waits for: set it right, or end it")
#: Rows that hold whatever is asked, where a goal has none of its own.
_ALWAYS: Final[_Rows] = (
    ((L.MISPLACED,), Row(Do.KILL_ALL, "a server runs on data that are not whole: end it")),
    ((L.STRANGE_RUNNING,), Row(Do.STOP_FAST, "a server runs on another database: end it, keep its data")),
    ((L.STRANGE,), _STRANGE),
    ((L.STRAY,), Row(Do.KILL_ALL, "a promotion outlived whoever began it: end it, and begin anew")),
)
_CLONE: Final[_Rows] = (
    ((L.EMPTY,), Row(Do.CLONE, "no data: copy them from the primary")),
    ((L.PARTIAL,), Row(Do.CLONE, "a copy or rewind was interrupted: copy anew")),
    ((L.DAMAGED,), Row(Do.CLONE, "damaged: copy anew, keep the old data until the copy runs")),
    ((L.DAMAGED_STANDBY,), Row(Do.STOP_FAST, "damaged: stop, to be copied anew")),
)
_LEAD: Final[_Rows] = (
    ((L.EMPTY, L.PARTIAL), _NO_DATA),
    ((L.DAMAGED, L.DAMAGED_STANDBY), _wait("damaged: it does not lead, and says so")),
    ((L.STOPPED,), Row(Do.START_STANDBY, "start as a standby that receives nothing, to be promoted")),
    ((L.STOPPED_PRIMARY,), Row(Do.START_CLOSED_PRIMARY, "it was primary: start without clients")),
    (_STARTS, _wait("it reads its WAL: progress is shown")),
    ((L.RECEIVING,), Row(Do.SEAL, "end the receiver before it is promoted")),
    ((L.IDLE,), Row(Do.PROMOTE, "it is chosen and receives nothing: promote it")),
    ((L.OPEN,), Row(Do.WAIT, "it is primary and open", tends=True)),
    ((L.OVERRIDDEN,), _SET_RIGHT),
)
_NOT_PRIMARY: Final[_Rows] = (((L.STARTING_PRIMARY, *_PRIMARIES), _NO_MORE),)

_BY_GOAL: Final[Mapping[Asked, _Rows]] = {
    A.NOTHING: (
        (_DOWN, _wait("no database is wanted here; data are kept")),
        ((*_STARTS, *_STANDBYS, *_PRIMARIES), Row(Do.STOP_FAST, "no database is wanted here: stop it")),
    ),
    A.BOOTSTRAP: (
        ((L.EMPTY,), Row(Do.INITDB, "this host makes the database")),
        ((L.PARTIAL,), Row(Do.INITDB, "making it was interrupted: begin anew")),
        ((L.STOPPED_PRIMARY,), Row(Do.START_CLOSED_PRIMARY, "it was made here: start it to record it")),
        ((L.STOPPED,), _wait("data of a standby of an unknown database lie here: move them away")),
        ((L.DAMAGED,), _wait("damaged data lie here: not touched; move them away")),
        (_STARTS, _wait("it starts")),
        (_STANDBYS, Row(Do.STOP_FAST, "a standby of an unknown database runs here: stop it")),
        (_PRIMARIES, _wait("it runs: wait until it is recorded")),
    ),
    A.PRIMARY: (*_LEAD, ((L.CLOSED,), _wait("not open yet"))),
    A.PRIMARY_OPEN: (*_LEAD, ((L.CLOSED,), Row(Do.OPEN, "its standbys have everything: let clients in"))),
    A.HAND_OVER: (
        (_DOWN, Row(Do.SEAL, "it has stopped: promise not to act under this number again")),
        ((*_STARTS, *_STANDBYS), Row(Do.STOP_FAST, "it is to hand over and serves nobody: stop")),
        ((L.OPEN,), Row(Do.CHECKPOINT, "write a checkpoint first, so that stopping is short")),
        ((L.CLOSED, L.OVERRIDDEN), Row(Do.STOP_FAST, "stop, so that the successor gets the rest")),
    ),
    A.HAND_OVER_NOW: (
        (_DOWN, Row(Do.SEAL, "it has stopped: promise not to act under this number again")),
        ((*_STARTS, *_STANDBYS), Row(Do.STOP_FAST, "it is to hand over and serves nobody: stop")),
        (_PRIMARIES, Row(Do.STOP_FAST, "stop, so that the successor gets the rest")),
    ),
    A.BARRED: (
        (_DOWN, _wait("it has promised to receive nothing from this primaryship: wait for the next")),
        (
            (L.STARTING, L.ASTRAY, L.IDLE, L.DAMAGED_STANDBY),
            _wait("promised to receive nothing: wait for the next"),
        ),
        ((L.RECEIVING,), Row(Do.SEAL, "it has promised to receive nothing from this primaryship")),
        *_NOT_PRIMARY,
    ),
    A.UNKNOWN: (
        *_CLONE,
        (_WHOLE, _wait("the history of the primary is not known yet")),
        ((L.STARTING, L.ASTRAY), _wait("it starts")),
        ((L.IDLE,), _wait("the history of the primary is not known yet")),
        ((L.RECEIVING,), Row(Do.WAIT, "it follows", tends=True)),
        *_NOT_PRIMARY,
    ),
    A.FOLLOW: (
        *_CLONE,
        (_WHOLE, Row(Do.START_STANDBY, "its WAL is on the line of the primary: start as its standby")),
        ((L.STARTING,), _wait("it starts")),
        ((L.ASTRAY,), Row(Do.STOP_FAST, "it starts to receive from another host: start it anew")),
        ((L.IDLE,), Row(Do.FOLLOW, "receive from the primary")),
        ((L.RECEIVING,), Row(Do.WAIT, "it follows", tends=True)),
        *_NOT_PRIMARY,
    ),
    A.REWIND: (
        *_CLONE,
        (_WHOLE, Row(Do.REWIND, "it may have WAL that the primary does not: rewind it")),
        (_MOVABLE, Row(Do.STOP_FAST, "it left the primary's line: stop to rewind")),
        *_NOT_PRIMARY,
    ),
    A.CLONE: (
        *_CLONE,
        (_WHOLE, Row(Do.CLONE, "it left the primary's line and cannot be rewound: copy anew")),
        (_MOVABLE, Row(Do.STOP_FAST, "it left the primary's line: stop to copy")),
        *_NOT_PRIMARY,
    ),
    A.SEAL: (
        (_DOWN, Row(Do.SEAL, "promise to receive nothing, before it is started")),
        ((L.STARTING, L.ASTRAY, *_STANDBYS), Row(Do.SEAL, "receive nothing more from this primaryship")),
        ((L.STARTING_PRIMARY,), Row(Do.KILL_ALL, "its primaryship ends: end it, verified")),
        (_PRIMARIES, Row(Do.STOP_FAST, "its primaryship ends: stop cleanly if it can be done in time")),
    ),
    A.SEALED: (
        ((L.EMPTY, L.PARTIAL, L.DAMAGED), _wait("sealed: it reports that it has no whole data")),
        ((L.STOPPED,), Row(Do.START_STANDBY, "sealed: start it to see how far it is")),
        ((L.STOPPED_PRIMARY,), _wait("sealed: it reports how it ended")),
        ((L.STARTING, L.ASTRAY), _wait("sealed: it reads the WAL it has")),
        ((L.IDLE, L.DAMAGED_STANDBY), _wait("sealed: it reports how far it is")),
        ((L.RECEIVING,), Row(Do.SEAL, "it is sealed and still receives: end that")),
        ((L.STARTING_PRIMARY,), Row(Do.KILL_ALL, "its primaryship has ended: end it, verified")),
        (_PRIMARIES, Row(Do.KILL_ALL, "its primaryship has ended: end it, verified")),
    ),
    A.HOLD: (
        (_DOWN, _wait("no lease: nothing is begun")),
        ((L.STARTING, L.ASTRAY, *_STANDBYS), _wait("no lease: a standby goes on as it is")),
        ((L.STARTING_PRIMARY, *_PRIMARIES), Row(Do.KILL_ALL, "no lease: a primary ends at once, verified")),
    ),
    A.FENCED: (
        (_DOWN, _wait("fenced: nothing runs")),
        (_STANDBYS, _wait("fenced: a standby acknowledges nothing by itself")),
        ((*_STARTS, *_PRIMARIES), Row(Do.KILL_ALL, "fenced: end it at once, verified")),
    ),
}


def _filled() -> Mapping[tuple[Local, Asked], Row]:
    table: dict[tuple[Local, Asked], Row] = {}
    for asked, rows in _BY_GOAL.items():
        # A goal's own rows come first.
        for states, row in (*rows, *_ALWAYS):
            for state in states:
                table.setdefault((state, asked), row)
    return MappingProxyType(table)


TABLE: Final = _filled()
