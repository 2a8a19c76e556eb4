"""What decides about an exclusive name beside the hosts' leases, as the leader's loop takes it in."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from mesh.ids import FencingTerm, HostId, OwnedName
from mesh.lease.model import HostStanding, Target
from mesh.state import ClusterState
from mesh.state.commands import SingleCommand


@dataclass(frozen=True, slots=True)
class NamePlan:
    """Who is to own a name, and what that was decided from: its assignment is refused when that changed."""

    name: OwnedName
    target: Target
    expected_sync_version: int | None = None
    expected_primary_term: FencingTerm | None = None
    #: To be proposed besides.
    commands: tuple[SingleCommand, ...] = ()
    #: When to plan again if nothing happens until then, CLOCK_BOOTTIME ns; None: on news only.
    look_at: int | None = None


class Planner(Protocol):
    """Plans one name for one leadership."""

    def plan(
        self,
        state: ClusterState,
        standings: Mapping[HostId, HostStanding],
        leaving: Collection[HostId],
        now: int,
    ) -> NamePlan | None:
        """What should be now; None: nobody is to own it."""

    async def run(self) -> None:
        """What goes on beside planning, until cancelled or done."""


class Unplanned:
    """Plans nothing."""

    def plan(
        self,
        state: ClusterState,
        standings: Mapping[HostId, HostStanding],
        leaving: Collection[HostId],
        now: int,
    ) -> NamePlan | None:
        """See Planner."""
        del state, standings, leaving, now
        return None

    async def run(self) -> None:
        """See Planner. Nothing goes on, so it ends at once."""


UNPLANNED: Final[Planner] = Unplanned()
