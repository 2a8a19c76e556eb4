"""The failpoints of the production code, as a simulated world strikes at them: one handler for all its hosts.

What a place does is decided for the host whose code comes by. *Crash*: its process dies at this very
instruction, and nothing behind it is ever done. *Error*: the place raises what it can really raise. *Stall*:
where it awaits, the rest of its process goes on; where it does not, the whole process stands still.

Invariant: the handler is installed only while its world runs and something is armed, so that otherwise a
place costs what it does in production.
Absent here: when something is armed, and where (strikes.py, directed.py).
"""

import asyncio
from asyncio.events import _get_running_loop
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Final

from mesh import failpoints
from mesh.adapters.armed import error_at
from mesh.failpoints import FAILPOINTS, Handler, Raises
from mesh.failpoints.arming import Action, Arming
from mesh.ids import HostId
from tests.sim.loop import Killed, SimLoop
from tests.sim.trace import Pause, Resume

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.host import Life
    from tests.sim.world import World

#: Places in code that the simulator does not run, by how their names begin, and what it has instead.
ABSENT: Final[Mapping[str, str]] = {
    "log.": "SQLite and the data directory: a simulated disk keeps whole transactions (disk.py)",
    "transport.": "Raft's streams over gRPC: the network carries single messages (transport.py)",
    "link.": "the queues and streams of each peer: the network carries single messages (transport.py)",
    "leader-client.": "calls of the leader over gRPC: simulated connections (calls.py)",
    "server.": "the servers of these calls: `LeaderServer` does what they do (calls.py)",
    "fence.": "the client of the fence process: a simulated fence (fence.py)",
    "supervisor.": "processes, cgroups and their records: simulated instances (hands.py)",
    "xds.": "Envoy and its streams: a simulated Envoy takes views (hands.py)",
    "init.": "`trellis init`: founders are given their first disks (world.py)",
    "identity.": "keys and certificates on disk: hosts are what they say (operations.py)",
    "join.": "`trellis join`: a joining host is given its name and its peers (operations.py)",
    "admission.": "the server of joins: operators propose the member (operations.py)",
    "founding.": "the first log of a founding host: its disk has it (world.py)",
    "token.": "the server of tokens: nobody needs one to join (operations.py)",
    "documents.": "the server of documents: clients ask the replica (clients.py)",
    "services.": "the server of declarations: operators ask the replica (operations.py)",
    "database.": "PostgreSQL and its driver: only worlds of the profile database carry one (postgres/)",
    "sidecar.": "the process around the parts: a life connects them (host.py)",
}

#: Places that simulated hosts come by.
REACHABLE: Final = tuple(name for name in FAILPOINTS if not name.startswith(tuple(ABSENT)))

#: What can happen, and where.
Pair = tuple[str, Action]
PAIRS: Final[tuple[Pair, ...]] = tuple(
    (name, action)
    for name in REACHABLE
    for action in Action
    if action is not Action.ERROR or FAILPOINTS[name].raises is not Raises.NOTHING
)
#: Reached only until a cluster is founded.
FIRST: Final = "leading.founding."


@dataclass(slots=True, eq=False)
class Trap:
    """One place armed on some machines, whichever life of theirs comes by."""

    arming: Arming
    hosts: Collection[HostId]
    faults: "Faults"
    hits: int = 0


class Failpoints:
    """The handler of one world (mesh.failpoints.Handler). A context: the world runs."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._armed: dict[str, list[Trap]] = {}
        self._is_running = False
        self._is_installed = False
        self._before: Handler | None = None
        #: What never goes on, so that nothing of a dead process is collected while the world runs.
        self._left: list[asyncio.Future[None]] = []
        #: How often each was struck.
        self.struck: Counter[Pair] = Counter()
        #: What `fresh` gives; None: all, in a drawn order.
        self.wanted: list[Pair] | None = None

    # ---- being asked ------------------------------------------------------------------

    def __enter__(self) -> None:
        self._is_running = True
        self._settle()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_running = False
        self._settle()

    def _settle(self) -> None:
        """Be installed exactly while that is of use."""
        is_wanted = self._is_running and bool(self._armed)
        if is_wanted and not self._is_installed:
            self._before = failpoints.install(self)
        elif self._is_installed and not is_wanted:
            failpoints.install(self._before)
            self._before = None
        self._is_installed = is_wanted

    def clear(self) -> None:
        """The world is over."""
        self._armed.clear()
        self._left.clear()
        self._settle()

    # ---- arming -----------------------------------------------------------------------

    def arm(self, arming: Arming, hosts: Collection[HostId], faults: "Faults") -> Trap:
        """Have it happen on these machines, until `disarm`."""
        trap = Trap(arming, hosts, faults)
        self._armed.setdefault(arming.name, []).append(trap)
        self._settle()
        return trap

    def fresh(self, chance: Random) -> list[Pair]:
        """What has not been given yet: one, and at first all that a cluster comes by only once."""
        if self.wanted is None:
            self.wanted = list(PAIRS)
            chance.shuffle(self.wanted)
        given = [each for each in self.wanted if each[0].startswith(FIRST)] or self.wanted[:1]
        self.wanted = [each for each in self.wanted if each not in given]
        return given

    def disarm(self, trap: Trap) -> None:
        """It happens no longer; done already is success."""
        traps = self._armed.get(trap.arming.name, [])
        if trap in traps:
            traps.remove(trap)
            if not traps:
                del self._armed[trap.arming.name]
            self._settle()

    def armed(self) -> list[Arming]:
        """Everything that is."""
        return [trap.arming for traps in self._armed.values() for trap in traps]

    def by_name(self) -> dict[str, int]:
        """How often each place was struck."""
        names: Counter[str] = Counter()
        for (name, _), times in sorted(self.struck.items(), key=str):
            names[name] += times
        return dict(names)

    # ---- places -----------------------------------------------------------------------

    def hit(self, name: str) -> None:
        """See Handler. Fails: `Killed`, and as the catalogue says."""
        if name not in self._armed:
            return
        life, trap = self._due(name)
        if life is None or trap is None:
            return
        arming = self._strike(life, trap)
        if arming.action is Action.STALL:
            self._block(life, trap)
        elif arming.action is Action.ERROR:
            raise error_at(name)
        else:
            self._kill(life, trap)
            raise Killed

    async def passing(self, name: str) -> None:
        """See Handler. Fails: as the catalogue says."""
        if name not in self._armed:
            return
        life, trap = self._due(name)
        if life is None or trap is None:
            return
        arming = self._strike(life, trap)
        if arming.action is Action.ERROR:
            raise error_at(name)
        over: asyncio.Future[None] = life.loop.create_future()
        if arming.action is Action.STALL:
            trap.faults.after(arming.stall_ms * 1_000_000, lambda: self._go_on(life, over))
        else:
            self._kill(life, trap)
            self._left.append(over)
        await over

    def _due(self, name: str) -> "tuple[Life | None, Trap | None]":
        """Who comes by, and what happens to it there."""
        loop = _get_running_loop()
        life = loop.life if isinstance(loop, SimLoop) else None
        if life is None or life.machine.life is not life:
            return None, None
        for trap in self._armed[name]:
            if life.host in trap.hosts and life.host not in trap.faults.spared:
                trap.hits += 1
                if trap.arming.is_due(trap.hits):
                    return life, trap
        return None, None

    # ---- what happens -----------------------------------------------------------------

    def _strike(self, life: "Life", trap: Trap) -> Arming:
        arming = trap.arming
        self.struck[arming.name, arming.action] += 1
        trap.faults.told(life.host, f"failpoint-{arming.action.value}", arming.name)
        if not arming.is_due(trap.hits + 1):
            self.disarm(trap)
        return arming

    def _kill(self, life: "Life", trap: Trap) -> None:
        world, machine, faults = self._world, life.machine, trap.faults
        world.kill(machine, "failpoint")
        faults.after(faults.seconds(0.02, 6), lambda: world.start(machine))

    def _block(self, life: "Life", trap: Trap) -> None:
        """The process stands still in the midst of a handle. Fails: `Killed`."""
        world = self._world
        world.emit(Pause(world.now, life.host, life.member))
        if life.loop.block(trap.arming.stall_ms * 1_000_000):
            world.emit(Resume(world.now, life.host, life.member))
            return
        if life.machine.life is life:  # the run ends while the process is stopped by something else, too
            self._kill(life, trap)
        raise Killed

    def _go_on(self, life: "Life", over: "asyncio.Future[None]") -> None:
        life.loop.call_true(self._world.now, _done, over)


def _done(over: "asyncio.Future[None]") -> None:
    if not over.done():
        over.set_result(None)
