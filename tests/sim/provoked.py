"""Faults that strike at the moments that matter: an election is won, a vote leaves, a membership is joint.

Chance alone comes by these moments rarely. Whoever provokes hears of them as checkers do, and strikes a few
milliseconds later: the network parts around the host that they are about, or a process is killed there. One
parting is in force at a time, and the next one takes its place at once, so that hosts which have gone
different ways meet before anybody has put them right.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, ClassVar, Final

from mesh.ids import HostId
from mesh.raft.model import EntryKind, Membership, Role, Standing
from mesh.state.commands import ApplyService
from tests.sim.clock import MS
from tests.sim.directed import bounce
from tests.sim.directed_operations import SECOND
from tests.sim.trace import Event, Facts, Granted, Released, RoleChanged, Stored, Voted

if TYPE_CHECKING:
    from tests.sim.network import Link
    from tests.sim.phases import Run

#: A strike comes so soon after its moment; for a new leader, within two election timeouts.
SOON_NS: Final = 4 * MS
#: So often a new leader is cut off before it has sent anything.
AT_ONCE: Final = 0.3

Strike = Callable[["Provoked", HostId], None]


class Provoked:
    """An observer that breaks things. Order: `watch` before the run."""

    name: ClassVar[str] = "provoked"
    wants: ClassVar[tuple[type[Event], ...]] = (RoleChanged, Voted, Stored, Granted, Released)

    def __init__(self, facts: Facts) -> None:
        self._election_ns = facts.election_ns[0]
        self._moments: Mapping[str, float] = {}
        self._join: Callable[[], None] = lambda: None

    def watch(self, run: "Run", moments: Mapping[str, float], chance: Random) -> None:
        """*moments*: how likely each is struck at, by its name in `STRIKES`."""
        self.world, self.faults, self.chance = run.world, run.faults, chance
        self.operations = run.operations
        self._moments = moments

    def seen(self, event: Event) -> None:
        """Strike, if this is such a moment and chance wants it."""
        moment = _moment_of(event)
        if moment and self.faults.is_on and self.chance.random() < self._moments.get(moment, 0.0):
            strike = STRIKES[moment]
            if moment == "led" and self.chance.random() < AT_ONCE:
                self._strike(moment, strike, event.host)
                return
            within = 2 * self._election_ns if moment == "led" else SOON_NS
            delay = int(self.chance.random() ** 3 * within)
            self.world.scheduler.at(self.world.now + delay, self._strike, moment, strike, event.host)

    def finished(self, at_ns: int) -> None:
        """Nothing is judged here."""

    def _strike(self, moment: str, strike: Strike, host: HostId) -> None:
        if self.faults.is_on:
            self.faults.told(host, f"provoked-{moment}")
            strike(self, host)

    # ---- what is done ------------------------------------------------------------------

    def part(self, is_cut: Callable[[HostId, HostId], bool]) -> None:
        """Cut the links for which *is_cut* holds, in place of those that were cut before, for a while."""
        self._join()
        cut = [link for link in self.faults.links(is_cut) if not link.is_cut]
        for link in cut:
            _set(link, is_cut=True)

        def join() -> None:
            while cut:
                _set(cut.pop(), is_cut=False)

        self._join = join
        lasts = self._election_ns * (0.2 + 2.3 * self.chance.random() ** 2)
        self.faults.after(int(lasts), join)

    def others(self, host: HostId) -> list[HostId]:
        """All but one, in a drawn order."""
        names = [each for each in self.world.machines if each != host]
        self.chance.shuffle(names)
        return names


def _set(link: "Link", *, is_cut: bool) -> None:
    link.is_cut = is_cut
    link.settle()


def _moment_of(event: Event) -> str:
    """The name of what is going on; empty: nothing of interest."""
    kind = type(event)
    if kind is Voted:
        return "voted"
    if kind is Granted:
        return "granted"
    if kind is Released:
        return "released"
    if type(event) is RoleChanged:
        if event.role is Role.LEADER:
            return "led"
        is_asked = event.role is Role.CANDIDATE and event.stood_for is Standing.TRANSFER
        return "asked" if is_asked else ""
    if type(event) is Stored and any(map(_is_joint, event.entries)):
        return "joint"
    return ""


def _is_joint(entry: object) -> bool:
    return entry.kind is EntryKind.MEMBERSHIP and Membership.decode(entry.data).is_joint  # type: ignore[attr-defined]


# ---- strikes ----------------------------------------------------------------------------


def _alone(provoked: Provoked, host: HostId) -> None:
    """The host, with few others or none, is cut off from the rest; or one direction of that only."""
    others = provoked.others(host)
    chance = provoked.chance
    group = {host, *others[: int(chance.random() ** 2 * (len(others) // 2 + 1))]}
    kind = chance.random()
    if kind < 0.7:
        provoked.part(lambda a, b: (a in group) != (b in group))
    elif kind < 0.85:
        provoked.part(lambda a, b: a in group and b not in group)
    else:
        provoked.part(lambda a, b: a not in group and b in group)


def _dies(provoked: Provoked, host: HostId) -> None:
    bounce(provoked.faults, host)


def _torn(provoked: Provoked, host: HostId) -> None:
    """Two groups drawn at random; sometimes the leader dies, too."""
    names = [host, *provoked.others(host)]
    group = {name for name in names if provoked.chance.random() < 0.5}
    provoked.part(lambda a, b: (a in group) != (b in group))
    leader = provoked.world.leader()
    if leader is not None and provoked.chance.random() < 0.4:
        bounce(provoked.faults, leader.host)


def _deposed(provoked: Provoked, host: HostId) -> None:
    """The leader that hands over to *host* does not hear what comes of it."""
    world = provoked.world
    leader = next((each.host for each in world.lives() if each.member in world.leaders), None)
    if leader is not None and leader != host:
        provoked.part(lambda a, b: (a == leader) != (b == leader))


def _regretted(provoked: Provoked, host: HostId) -> None:
    """What was just given up, since nobody wanted it any more, is wanted again."""
    provoked.operations.propose(ApplyService(SECOND), "apply")


#: By moment: what strikes at the host that it is about.
STRIKES: Final[Mapping[str, Strike]] = {
    "led": _alone,
    "voted": _dies,
    "joint": _torn,
    "asked": _deposed,
    "granted": _dies,
    "released": _regretted,
}
