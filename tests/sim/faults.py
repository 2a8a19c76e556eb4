"""What is broken in a run, and when: each seed draws which kinds of faults exist, and how strong.

A kind is a recurring event: after a drawn time it strikes somewhere, and heals after another. Most seeds
have a few kinds only, since a cluster in which everything is broken at once shows little.

Assumptions that the design documents, and that are therefore kept: clocks run within the declared error;
what was synced stays; at most one disk is damaged until its host is back as another incarnation.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from mesh.ids import HostId
from tests.sim.clock import NS
from tests.sim.directed import DIRECTED
from tests.sim.strikes import KINDS
from tests.sim.trace import Fault

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.network import Link
    from tests.sim.world import World

#: How much calmer than a storm a seed is: life has long stretches in which nothing breaks.
CALM = (1, 2, 6)
#: Kinds that are drawn by themselves: seeds without them are what they were before there were these.
LATE = ("failpoint",)


class Faults:
    """The faults of one run. `stop` ends them; `heal` puts everything right."""

    def __init__(self, world: "World", chance: Random) -> None:
        self.world = world
        self.chance = chance
        self.is_on = False
        #: Machines that no fault touches any more.
        self.spared: set[HostId] = set()
        #: What every duration is multiplied by.
        self.haste = 1.0
        #: What would undo the faults that are in force.
        self._undo: list[Callable[[], None]] = []
        self.kinds = self._draw()

    def _draw(self) -> dict[str, float]:
        """Which kinds, each with its mean pause in seconds."""
        chance = self.chance
        if chance.random() < 0.04:
            return {}
        share = chance.choice((0.15, 0.3, 0.5))
        drawn, calm = {}, chance.choice(CALM)
        for name in KINDS:
            own = self.world.chance(f"faults/{name}") if name in LATE else chance
            if own.random() < share:
                drawn[name] = own.choice((6.0, 15.0, 40.0)) * calm
        return drawn

    def start(self) -> None:
        """Begin to break things."""
        self.is_on = True
        for name in self.kinds:
            self._later(name)

    def _later(self, name: str) -> None:
        pause = self.chance.expovariate(1 / self.kinds[name])
        self.world.scheduler.at(self.world.now + int(pause * NS) + 1, self._strike, name)

    def _strike(self, name: str) -> None:
        if self.is_on:
            (KINDS.get(name) or DIRECTED[name])(self)
            self._later(name)

    # ---- what strikes use -------------------------------------------------------------

    def seconds(self, low: float, high: float) -> int:
        """Between *low* and *high*, shorter ones more often; ns."""
        return int((low + (high - low) * self.chance.random() ** 2) * self.haste * NS)

    def after(self, delay_ns: int, act: Callable[[], None]) -> None:
        """Undo something later, or earlier when all is healed."""

        def once() -> None:
            if act in self._undo:
                self._undo.remove(act)
                act()

        self._undo.append(act)
        self.world.scheduler.at(self.world.now + delay_ns, once)

    def told(self, host: str, kind: str, detail: str = "") -> None:
        """Write it down and count it."""
        self.world.count(kind)
        self.world.emit(Fault(self.world.now, HostId(host), kind, detail))

    def machine(self) -> "Machine | None":
        """One that may be touched."""
        able = [each for each in self.world.machines.values() if each.name not in self.spared]
        return able[int(self.chance.random() * len(able))] if able else None

    def running(self) -> "Machine | None":
        """One with a sidecar that runs; the leader's more often than others."""
        world = self.world
        leader = world.leader()
        able = [
            each
            for each in world.machines.values()
            if each.life is not None and not each.life.loop.is_paused and each.name not in self.spared
        ]
        if leader is not None and leader.machine in able and self.chance.random() < 0.4:
            return leader.machine
        return able[int(self.chance.random() * len(able))] if able else None

    def links(self, between: Callable[[HostId, HostId], bool]) -> list["Link"]:
        """The directions for which *between* holds, and that may be touched."""
        return [
            link
            for (source, to), link in self.world.network.links.items()
            if between(source, to) and not (source in self.spared and to in self.spared)
        ]

    # ---- the end ----------------------------------------------------------------------

    def stop(self) -> None:
        """Break nothing new."""
        self.is_on = False

    def heal(self) -> None:
        """Undo everything that is in force."""
        undo, self._undo = self._undo, []
        for act in undo:
            act()
