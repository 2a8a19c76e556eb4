"""How long a cluster was without a leader, and without an owner of what is exclusive: measured, not judged.

A leader counts while its lease runs, which is while a majority stands behind it. An owner counts from `Acted`
to `Stopped`. A gap is *calm* when, each time it was looked at, a majority of the voters ran undisturbed and
reached each other: what it lasted is then the failover itself, and not the fault that went on meanwhile.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from mesh.ids import HostId, MemberId, OwnedName, Term, host_of
from mesh.raft.model import Role
from tests.sim.clock import MS
from tests.sim.trace import (
    Acted,
    Crash,
    End,
    Event,
    Facts,
    LeaseExtended,
    MembershipCommitted,
    Pause,
    Resume,
    RoleChanged,
    Stopped,
)

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

LOOK_NS: Final = 50 * MS
#: A link whose messages take longer is disturbed.
DELAY_NS_MAX: Final = 10 * MS


@dataclass(frozen=True, slots=True)
class Gap:
    """Nobody led, or nobody acted for `name`, in true time."""

    #: Empty: there was no leader.
    name: str
    from_ns: int
    to_ns: int
    is_calm: bool

    @property
    def ms(self) -> float:
        return (self.to_ns - self.from_ns) / 1e6


@dataclass(slots=True)
class _Open:
    since: int
    is_calm: bool = True


@dataclass(slots=True)
class Leading:
    """Who leads, and until when it may."""

    leads: bool = False
    is_paused: bool = False
    until: int = 0
    #: Names this host acts for.
    acts: set[OwnedName] = field(default_factory=set)


class Outages:
    """A checker that finds nothing. Order: `watch` before the run."""

    name: ClassVar[str] = "outages"
    wants: ClassVar[tuple[type[Event], ...]] = (
        RoleChanged,
        LeaseExtended,
        MembershipCommitted,
        Crash,
        End,
        Pause,
        Resume,
        Acted,
        Stopped,
    )

    def __init__(self, facts: Facts) -> None:
        self.gaps: list[Gap] = []
        self._terms: set[Term] = set()
        self._hosts = {host: Leading() for host in facts.hosts}
        self._voters: tuple[MemberId, ...] = facts.founders
        self._acting: dict[OwnedName, int] = {}
        #: What nobody does at present, by name ("": leads).
        self._open: dict[str, _Open] = {}
        self._covered_until: int | None = None

    @property
    def elections(self) -> int:
        """Terms that had a leader."""
        return len(self._terms)

    def seen(self, event: Event) -> None:
        """Keep account."""
        at = event.at_ns
        if type(event) is Acted:
            self._acts(event, at)
        elif type(event) is Stopped:
            self._stops(event, at)
        elif type(event) is MembershipCommitted:
            self._voters = event.membership.voters
        else:
            self._notice(at)
            self._lead(event, self._hosts[event.host])
            self._cover(at)

    def finished(self, at_ns: int) -> None:
        """Nothing is judged here."""

    # ---- owners -----------------------------------------------------------------------

    def _acts(self, event: Acted, at: int) -> None:
        name = event.name
        self._acting[name] = self._acting.get(name, 0) + 1
        self._close(name, at)

    def _stops(self, event: Stopped, at: int) -> None:
        name = event.name
        self._acting[name] = self._acting.get(name, 1) - 1
        if not self._acting[name]:
            self._open[name] = _Open(at)

    def _close(self, name: str, at: int) -> None:
        gap = self._open.pop(name, None)
        if gap is not None:
            self.gaps.append(Gap(name, gap.since, at, gap.is_calm))

    # ---- leaders ----------------------------------------------------------------------

    def _lead(self, event: Event, host: Leading) -> None:
        if type(event) is RoleChanged:
            host.leads = event.role is Role.LEADER
            if host.leads:
                self._terms.add(event.term)
        elif type(event) is LeaseExtended:
            host.until = event.at_ns + event.left_ns
        elif type(event) is Pause:
            host.is_paused = True
        elif type(event) is Resume:
            host.is_paused = False
        else:
            host.leads, host.is_paused, host.until = False, False, 0

    def _notice(self, at: int) -> None:
        """A lease may have run out since."""
        until = self._covered_until
        if until is not None and until < at and "" not in self._open:
            self._open[""] = _Open(until)

    def _cover(self, at: int) -> None:
        until = max(
            (each.until for each in self._hosts.values() if each.leads and not each.is_paused), default=0
        )
        if until > at:
            self._covered_until = until
            self._close("", at)
        elif self._covered_until is not None and "" not in self._open:
            self._covered_until = at
            self._open[""] = _Open(at)

    # ---- whether it could have been better --------------------------------------------

    def watch(self, world: "World") -> None:
        """Look from now on whether a majority is well."""
        world.scheduler.at(world.now + LOOK_NS, self._look, world)

    def _look(self, world: "World") -> None:
        self._notice(world.now)
        doubtful = self._open and [gap for gap in self._open.values() if gap.is_calm]
        if doubtful and not self._is_majority_well(world):
            for gap in doubtful:
                gap.is_calm = False
        if not world.is_over:
            world.scheduler.at(world.now + LOOK_NS, self._look, world)

    def _is_majority_well(self, world: "World") -> bool:
        well = [
            host
            for voter in self._voters
            if _is_well(world.machines[host := host_of(voter)]) and world.machines[host].member == voter
        ]
        most = len(self._voters) // 2 + 1
        return any(1 + sum(_reach(world, a, b) for b in well if b != a) >= most for a in well)


def _is_well(machine: "Machine") -> bool:
    life, disk = machine.life, machine.disk_faults
    return (
        life is not None
        and not life.loop.is_paused
        and not life.is_ending
        and not (machine.is_frozen or disk.is_full or disk.fail or disk.stall)
    )


def _reach(world: "World", one: HostId, other: HostId) -> bool:
    there, back = world.network.links[one, other], world.network.links[other, one]
    return (
        there.is_plain and back.is_plain and there.delay_ns <= DELAY_NS_MAX and back.delay_ns <= DELAY_NS_MAX
    )
