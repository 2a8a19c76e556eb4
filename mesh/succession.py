"""What a follower does when its leader is proven dead: stand soon, in rank order, and keep trying.

The vote costs milliseconds, the election timeout seconds; between the two lie the
attempts here. They stop as soon as anybody leads.
"""

import asyncio
from collections.abc import Callable

from mesh.ids import MemberId
from mesh.pacing import DriverSettings
from mesh.ports import Chance
from mesh.raft import RawNode


class Succession:
    """The attempts of one member to follow a dead leader.

    Bound: `recampaigns_max` attempts after the first.
    """

    def __init__(
        self, node: RawNode, settings: DriverSettings, chance: Chance, stood: Callable[[], None]
    ) -> None:
        self._node = node
        self._settings = settings
        self._chance = chance
        self._stood = stood
        self._timer: asyncio.TimerHandle | None = None

    def leader_died(self, dead: MemberId) -> None:
        """Stand after rank × stagger, if this member may lead."""
        rank = self._node.stagger(dead)
        if rank is not None:
            self._arm(rank * self._settings.stagger_s, self._settings.recampaigns_max)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, delay_s: float, attempts_left: int) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._stand, attempts_left)

    def _stand(self, attempts_left: int) -> None:
        if self._node.leader is not None:
            return
        self._node.campaign(after_crash=True)
        if attempts_left:
            self._arm(self._chance.uniform(*self._settings.recampaign_s), attempts_left - 1)
        self._stood()
