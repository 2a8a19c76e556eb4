"""How many ticks of Raft time have passed, also after a pause of the whole process.

A member that was stopped for seconds finds seconds of time and an inbox full of
messages when it goes on. Time first would make a follower stand for election
against a leader whose heartbeats it has only not read yet, so it counts one tick
and reads on. A leader counts all of it: its lease and its quorum may be gone,
and it must not act on them.
"""

from typing import Final

#: More ticks than this at once are a pause, not a late timer.
CATCH_UP_TICKS_MAX: Final = 3


def ticks_due(elapsed_ns: int, tick_ns: int, *, is_leader: bool, leader_max: int) -> tuple[int, bool]:
    """Ticks to count for *elapsed_ns*, and whether there was a pause.

    Bound: *leader_max* for a leader; after that many without an answer it has stepped down.
    """
    passed = elapsed_ns // tick_ns
    if passed <= CATCH_UP_TICKS_MAX:
        return passed, False
    return (min(passed, leader_max) if is_leader else 1), True
