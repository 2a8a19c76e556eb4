"""The values that go into and come out of placement decisions."""

from dataclasses import dataclass

from mesh.ids import HostId, ServiceName
from mesh.state.model import Slot


@dataclass(frozen=True, slots=True)
class HostRoom:
    """What placement knows of one host."""

    host: HostId
    #: Not lost, and no witness; a suspect host counts as alive.
    alive: bool = True
    #: Gives away what it has.
    draining: bool = False
    #: Below a capacity threshold: keeps what it runs, is given nothing more.
    full: bool = False
    #: Its settings let it carry a database, so that services on it reach the primary.
    has_database: bool = True
    #: What a service needs and it does not have, as a clause; empty: nothing.
    lacking: str = ""

    @property
    def keeps(self) -> bool:
        """May go on running what it runs."""
        return self.alive and not self.draining

    @property
    def accepts(self) -> bool:
        """May be given another instance."""
        return self.keeps and not self.full and not self.lacking


@dataclass(frozen=True, slots=True)
class PlacementDecision:
    """Where the instances of one service belong now.

    Invariant: `slots` is sorted and without duplicates.
    """

    service: ServiceName
    slots: tuple[Slot, ...]
    #: What differs from before and why, one sentence each; empty: nothing.
    reasons: tuple[str, ...] = ()
    #: Why fewer instances can be placed than `instances_min`, as a sentence; empty: all are.
    degraded: str = ""
