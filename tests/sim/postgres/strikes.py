"""What happens to the database alone: faults, and what operators ask."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mesh.failpoints import FAILPOINTS
from mesh.failpoints.arming import Action, Arming
from mesh.ids import PRIMARY
from mesh.state.commands import RequestRelease
from tests.sim.clock import NS
from tests.sim.strikes import arm, cut

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.host import Life
    from tests.sim.operations import Operations
    from tests.sim.postgres.server import Server

PLACES: Final = tuple(sorted(name for name in FAILPOINTS if name.startswith("database.")))


def _server(faults: "Faults") -> "Server | None":
    """One that may be touched; the primary's more often than others."""
    databases = faults.world.databases
    if databases is None:
        return None
    found, servers = databases.primary(), list(databases.servers.values())
    if found is None or faults.chance.random() < 0.5:
        found = servers[int(faults.chance.random() * len(servers))]
    return None if found.host in faults.spared else found


def _kill(faults: "Faults") -> None:
    """Its main process is killed, and all others with it."""
    server = _server(faults)
    if server is not None:
        faults.told(server.host, "postgres-kill")
        server.kill("kill")


def _errors(faults: "Faults") -> None:
    """What a sidecar asks of it fails now and then."""
    server = _server(faults)
    if server is None:
        return
    server.fails = faults.chance.choice((0.05, 0.2, 0.6))
    faults.told(server.host, "postgres-errors", str(server.fails))

    def recover() -> None:
        server.fails = 0.0

    faults.after(faults.seconds(0.3, 8), recover)


def _apart(faults: "Faults") -> None:
    """The primary does not reach one standby, or one of both directions is cut; sidecars meet elsewhere."""
    databases = faults.world.databases
    primary = databases.primary() if databases is not None else None
    if databases is None or primary is None:
        return
    others = [host for host in databases.servers if host != primary.host]
    other = faults.chance.choice(others)
    pairs = faults.chance.choice(
        ({(primary.host, other), (other, primary.host)}, {(primary.host, other)}, {(other, primary.host)})
    )
    faults.told(primary.host, "postgres-apart", other)
    cut(faults, faults.links(lambda a, b: (a, b) in pairs), faults.seconds(0.2, 12))


def _place(faults: "Faults") -> None:
    """A sidecar dies at one of the places of the database's code, as soon as it comes by."""
    chance = faults.chance
    name, skip = chance.choice(PLACES), chance.choice((0, 0, 1, 3))
    arm(faults, Arming(name, Action.CRASH, 0, 1, skip), set(faults.world.machines), 30 * NS)


def _switchover(operations: "Operations") -> None:
    """An operator moves the database, as `DatabaseServicer.Switchover` does."""
    leader = operations.world.leader()
    if leader is None:
        return
    planner, state = leader.core.leading.database, leader.replica.state
    owner = state.owners.get(PRIMARY)
    if planner is None or owner is None or leader.core.node.duty is None:
        return
    successor, why = planner.successor(state, None, leader.clock.boottime_ns())
    if successor is None or why:
        operations.world.count("op-switchover-refused")
        return
    operations.told(leader.host, "op-switchover", successor)
    command = RequestRelease(PRIMARY, successor, owner.fencing_term)

    async def ask(life: "Life") -> None:
        await life.replica.propose(command, timeout_s=2.0, at_ns=life.clock.wall_ns())

    operations.ask(leader, ask, "switchover")


POSTGRES: Final[dict[str, Callable[["Faults"], None]]] = {
    "postgres-kill": _kill,
    "postgres-errors": _errors,
    "postgres-apart": _apart,
    "postgres-place": _place,
}
OPERATIONS: Final[dict[str, Callable[["Operations"], None]]] = {"switchover": _switchover}
