"""Stories for the checkers of what clients are told."""

from typing import Final

from tests.sim.checkers.acknowledged_writes import AcknowledgedWrites
from tests.sim.checkers.exactly_once import ExactlyOnce
from tests.sim.checkers.linearizable import Linearizable
from tests.sim.checkers.minority import Minority
from tests.sim.checkers.no_stale_read import NoStaleRead
from tests.sim.told import (
    ON_TWO_DISKS,
    TWO,
    Stories,
    asks,
    committed,
    entry,
    founded,
    put,
    stored,
    told,
)  # fmt: skip
from tests.sim.trace import Checker

WRITTEN: Final = [*founded(), committed("a", put(2, 1, b"x")), asks(1, "put", b"x"), told(1, 1, index=2)]

STORIES: dict[type[Checker], Stories] = {
    Minority: Stories(
        kept={
            "committed": [*ON_TWO_DISKS, committed("a", TWO), told(1, 1, index=2)],
            "on two disks, not yet told to be committed": [*ON_TWO_DISKS, told(1, 1, index=2)],
            "a failure may have any index": [*founded(), told(1, index=5, result="unknown")],
        },
        broken={
            "on one disk": [*founded(), stored("a", TWO), told(1, 1, index=2)],
            "nowhere": [*ON_TWO_DISKS, told(1, 1, index=3)],
        },
    ),
    AcknowledgedWrites: Stories(
        kept={
            "seen": [*WRITTEN, asks(2, "get"), told(2, 1, b"x", index=2)],
            "a stale read misses it": [*WRITTEN, asks(2, "get-stale"), told(2, 0, index=1)],
            "a read that began before": [asks(2, "get"), *WRITTEN, told(2, 0, index=1)],
            "a delete beside it": [
                *WRITTEN, asks(3, "delete"), asks(2, "get"), told(2, 0, index=3), told(3, 2, index=3),
            ],
            "a list": [*WRITTEN, asks(2, "list", name=""), told(2, index=2, names=(("d", 1),))],
            "of unknown outcome": [
                asks(1, "put"), told(1, result="unknown"), asks(2, "get"), told(2, index=1),
            ],
        },
        broken={
            "an old index": [*WRITTEN, asks(2, "get"), told(2, 1, b"x", index=1)],
            "an old version": [
                *WRITTEN, asks(3, "put"), told(3, 2, index=3), asks(2, "get"), told(2, 1, index=3),
            ],
            "absent": [*WRITTEN, asks(2, "get"), told(2, 0, index=3)],
            "deleted before it was written": [
                asks(3, "delete"), told(3, 0, index=1, result="refused"), *WRITTEN, asks(2, "get"),
                told(2, 0, index=3),
            ],
            "missing in a list": [*WRITTEN, asks(2, "list", name=""), told(2, index=3)],
        },
    ),
    NoStaleRead: Stories(
        kept={
            "rising": [asks(1, "get"), told(1, 1, index=2), asks(2, "get"), told(2, 2, index=3)],
            "beside each other": [
                asks(1, "get"), asks(2, "get"), told(2, 2, index=3), told(1, 1, index=2),
            ],
            "asked to be stale": [
                asks(1, "get"), told(1, 1, index=2), asks(2, "get-stale"), told(2, index=1),
            ],
        },
        broken={
            "an older index": [
                asks(1, "get"), told(1, 1, index=2), asks(2, "list", name="z"), told(2, index=1),
            ],
            "an older version": [
                asks(1, "get"), told(1, 2, index=2), asks(2, "get"), told(2, 1, index=2),
            ],
            "an older version in a list": [
                asks(1, "get"), told(1, 2, index=2), asks(2, "list", name=""),
                told(2, index=2, names=(("d", 1),)),
            ],
        },
    ),
    ExactlyOnce: Stories(
        kept={
            "once": [*WRITTEN, asks(2, "get"), told(2, 1, b"x", index=2)],
            "repeated in its session": [
                asks(1, "put", b"x"), committed("a", put(2, 1, b"x", session="s", sequence=1)),
                committed("a", put(3, 1, b"x", session="s", sequence=1)), told(1, 1, index=3),
                asks(2, "get"), told(2, 1, b"x", index=3),
            ],
            "an old value at an old index": [
                *WRITTEN, committed("a", put(3, 1, b"y")), asks(2, "get-stale"),
                told(2, 1, b"x", index=2),
            ],
            "told by a witness first": [
                committed("c", entry(2, 1, b"")), committed("a", put(2, 1, b"x")), asks(2, "get"),
                told(2, 1, b"x", index=2),
            ],
            "a list": [*WRITTEN, asks(2, "list", name=""), told(2, index=2, names=(("d", 1),))],
        },
        broken={
            "a version too many": [
                *WRITTEN, committed("a", put(3, 1, b"x", session="s", sequence=1)),
                committed("a", put(4, 1, b"x", session="s", sequence=1)), asks(2, "get"),
                told(2, 3, b"x", index=4),
            ],
            "twice, under two sessions": [
                asks(1, "put", b"x"), committed("a", put(2, 1, b"x", session="s", sequence=1)),
                committed("a", put(3, 1, b"x", session="t", sequence=1)),
            ],
            "acknowledged, and not in the log": [asks(1, "put", b"x"), told(1, 1, index=2)],
            "another value": [*WRITTEN, asks(2, "get"), told(2, 1, b"y", index=2)],
            "a stale read of what never was": [*WRITTEN, asks(2, "get-stale"), told(2, 2, b"x", index=2)],
            "a list of what is not": [
                *WRITTEN, asks(2, "list", name=""), told(2, index=2, names=(("e", 1),)),
            ],
        },
    ),
    Linearizable: Stories(
        kept={
            "in order": [*WRITTEN, asks(2, "get"), told(2, 1, b"x", index=2)],
            "unknown, then seen": [
                asks(1, "put", b"x"), asks(2, "get"), told(2, 1, b"x"), told(1, result="unknown"),
            ],
            "refused": [
                *WRITTEN, asks(2, "cas", b"y", expected=0),
                told(2, 1, result="refused", reason="VERSION_CONFLICT"),
                asks(3, "delete", name="e"), told(3, result="refused", reason="NOT_FOUND"),
                asks(4, "put"), told(4, result="refused", reason="NO_LEADER"),
            ],
            "a list": [*WRITTEN, asks(2, "list", name=""), told(2, names=(("d", 1),))],
        },
        broken={
            "stale": [*WRITTEN, asks(2, "get"), told(2, 0)],
            "refused by what was not there": [
                *WRITTEN, asks(2, "cas", b"y", expected=0),
                told(2, 5, result="refused", reason="VERSION_CONFLICT"),
            ],
            "refused, and seen": [
                *WRITTEN, asks(2, "put", b"y"), told(2, result="refused", reason="NO_LEADER"),
                asks(3, "get"), told(3, 2, b"y"),
            ],
            "a stale list": [*WRITTEN, asks(2, "list", name=""), told(2)],
        },
    ),
}  # fmt: skip
