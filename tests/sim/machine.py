"""A simulated machine: clock, disk, what acts for the outside, and the kernel.

It outlives the sidecars that run on it, and answers for a process which is gone.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mesh.ids import FencingTerm, HostId, MemberId, OwnedName
from mesh.state.commands import Batch
from tests.sim.clock import Clock
from tests.sim.disk import Disk, DiskFaults
from tests.sim.hands import KERNEL_NS, SimRoutes
from tests.sim.loop import Handle, Scheduler
from tests.sim.trace import Acted, Stopped

if TYPE_CHECKING:
    from tests.sim.host import Life
    from tests.sim.postgres.server import Server
    from tests.sim.world import World


class Machine:
    """One host's hardware and kernel."""

    def __init__(self, name: HostId, world: "World", clock: Clock) -> None:
        self.name = name
        self.world = world
        self.clock = clock
        self.scheduler: Scheduler = world.scheduler
        self.disk_faults = DiskFaults()
        #: The identity on its disk, and what is stored under it; None: not of the cluster.
        self.disk: Disk | None = None
        #: Where the others are, until the state says so.
        self.seeds: Mapping[MemberId, str] = {}
        self.founding: Batch | None = None
        self.life: Life | None = None
        self.lives = 0
        #: The kernel runs: it refuses connections to a port that nobody has open.
        self.is_up = True
        self.is_frozen = False
        #: When the fence has taken away what the last process held that was killed.
        self.clears_at = 0
        #: What its kernel takes at most to answer for an address.
        self.kernel_ns = KERNEL_NS
        #: It votes and holds no state.
        self.is_witness = False
        #: It runs the released version of the contracts.
        self.is_previous = False
        #: Its memory is bad: so often a bit flips in a piece of a snapshot that it sends.
        self.garbles = 0.0
        #: Its PostgreSQL; None: there is no database in this world.
        self.postgres: Server | None = None
        #: Where its Envoy leads, also when its sidecar is gone.
        self.routes: SimRoutes | None = None
        self.acting: dict[OwnedName, FencingTerm] = {}
        self._frozen: list[tuple[OwnedName, FencingTerm]] = []
        self._thaw: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    @property
    def member(self) -> MemberId | None:
        return None if self.disk is None else self.disk.member

    # ---- what acts --------------------------------------------------------------------

    def begin(self, name: OwnedName, fencing_term: FencingTerm) -> None:
        """*name* acts here from now on."""
        before = self.acting.get(name)
        if before == fencing_term:
            return
        if before is not None:
            self.end(name, "sidecar")
        self.acting[name] = fencing_term
        member = self.member or MemberId("")
        self.world.emit(Acted(self.world.now, self.name, member, name, fencing_term))

    def end(self, name: OwnedName, by: str) -> None:
        """It does no longer."""
        self._frozen = [each for each in self._frozen if each[0] != name]
        fencing_term = self.acting.pop(name, None)
        if fencing_term is not None:
            member = self.member or MemberId("")
            self.world.emit(Stopped(self.world.now, self.name, member, name, fencing_term, by))

    def end_all(self, by: str) -> None:
        """Nothing of this machine acts any more."""
        self._frozen = []
        for name in list(self.acting):
            self.end(name, by)

    def end_postgres(self, by: str) -> None:
        """The fence has killed the server that was registered with it."""
        if self.postgres is not None:
            self.postgres.end(by)

    # ---- freezing ---------------------------------------------------------------------

    def at(self, when: int, act: Callable[..., None], *given: object) -> Handle:
        """Do it at a true time, or when the machine thaws."""
        return self.scheduler.at(when, self._run, act, given)

    def _run(self, act: Callable[..., None], given: tuple[object, ...]) -> None:
        if self.is_frozen:
            self._thaw.append((act, given))
        else:
            act(*given)

    def freeze(self) -> None:
        """The whole machine stands still: nothing on it acts, its address answers nobody."""
        self.is_frozen = True
        acting = list(self.acting.items())
        self.end_all("frozen")
        self._frozen = acting
        if self.life is not None:
            self.life.loop.pause()

    def thaw(self) -> None:
        """It goes on: the fence process and the kernel look at their clocks first."""
        self.is_frozen = False
        due, self._thaw = self._thaw, []
        for act, given in due:
            act(*given)
        frozen, self._frozen = self._frozen, []
        fence = self.life.fence if self.life is not None else None
        if fence is not None and fence.is_late():
            fence.clear()
        elif fence is not None:
            for name, fencing_term in frozen:
                self.begin(name, fencing_term)
        if self.postgres is not None:
            self.postgres.thaw()
        if self.life is not None:
            self.life.loop.resume()
