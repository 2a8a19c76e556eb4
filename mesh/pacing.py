"""The pace of a driver: its settings, and how Raft time follows the clock, also after a pause.

A member that was stopped for seconds finds seconds of time and an inbox full of
messages when it goes on. Time first would make a follower stand for election
against a leader whose heartbeats it has only not read yet, so it counts one tick
and reads on. A leader counts all of it: its lease and its quorum may be gone,
and it must not act on them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mesh import limits
from mesh.raft.model import AppendHeartbeat, Message


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Paces and bounds of one driver."""

    tick_s: float = 0.05
    #: A snapshot is taken after so many entries or bytes.
    snapshot_entries: int = 4_096
    snapshot_bytes: int = 16 * limits.MIB
    #: After a crash proof of the leader: wait per rank, so that followers do not split the vote.
    stagger_s: float = 0.03
    #: Then, until somebody leads: pause between attempts (drawn), and their number.
    recampaign_s: tuple[float, float] = (0.05, 0.15)
    recampaigns_max: int = 8
    #: A member that lost leadership waits so long for its proposals' fate before it calls it unknown.
    lost_grace_s: float = 1.0
    #: How long stopping waits for a write that the disk holds up.
    stop_grace_s: float = 2.0


class LeaderHeard:
    """When a follower last heard its leader, and what it does at each heartbeat.

    What is sent then reaches the leader together with the answer: one wake-up of it instead of two.
    """

    def __init__(self, boottime_ns: Callable[[], int]) -> None:
        #: When the newest message was taken in, CLOCK_BOOTTIME ns; 0: never.
        self.at_ns = 0
        self._now = boottime_ns
        self._followers: list[Callable[[], None]] = []

    def follow(self, heard: Callable[[], None]) -> None:
        """Call back at each append-heartbeat of the leader."""
        self._followers.append(heard)

    def note(self, message: Message) -> None:
        """A message of the present leader was taken in."""
        self.at_ns = self._now()
        if type(message) is AppendHeartbeat:
            for heard in self._followers:
                heard()


def ticks_due(
    elapsed_ns: int, tick_ns: int, *, late_max: int, is_leader: bool, leader_max: int
) -> tuple[int, bool]:
    """Ticks to count for *elapsed_ns*, and whether there was a pause: more than *late_max* of them.

    Bound: *leader_max* for a leader; after that many without an answer it has stepped down.
    """
    passed = elapsed_ns // tick_ns
    if passed <= late_max:
        return passed, False
    return (min(passed, leader_max) if is_leader else 1), True


class Ticker:
    """Calls *tick* with as many ticks as the clock says, a few with one timer.

    The clock is CLOCK_BOOTTIME: a suspended machine's lease runs out too.
    """

    def __init__(
        self,
        tick_s: float,
        *,
        period: int,
        leader_max: int,
        is_leader: Callable[[], bool],
        tick: Callable[[int], None],
        ticked: Callable[[bool], None],
        boottime_ns: Callable[[], int],
    ) -> None:
        """*period*: ticks per timer; *ticked* is told after each, and whether there was a pause."""
        self._tick_ns = int(tick_s * 1e9)
        self._period_s = tick_s * period
        self._late_max = period + 3
        self._leader_max = leader_max + self._late_max
        self._is_leader = is_leader
        self._tick = tick
        self._ticked = ticked
        self._followers: list[Callable[[], None]] = []
        self._now = boottime_ns
        self._counted_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, paced: Callable[[], None]) -> None:
        """Call back after each timer: what is done once per heartbeat shares one wake-up of the process."""
        self._followers.append(paced)

    def start(self) -> None:
        self._counted_ns = self._now()
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._fire)

    def _fire(self) -> None:
        self._arm()
        self.catch_up()
        for paced in self._followers:
            paced()

    def catch_up(self) -> None:
        """Count the time that has passed by now."""
        now_ns = self._now()
        ticks, was_paused = ticks_due(
            now_ns - self._counted_ns,
            self._tick_ns,
            late_max=self._late_max,
            is_leader=self._is_leader(),
            leader_max=self._leader_max,
        )
        self._counted_ns = now_ns if was_paused else self._counted_ns + ticks * self._tick_ns
        self._tick(ticks)
        self._ticked(was_paused)
