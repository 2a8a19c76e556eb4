"""Faults of the database alone."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.sim.faults import Faults


def _kill(faults: "Faults") -> None:
    """Its main process is killed, and all others with it; more often the primary's."""
    databases = faults.world.databases
    if databases is None:
        return
    primary = databases.primary()
    servers = list(databases.servers.values())
    if primary is None or faults.chance.random() < 0.5:
        primary = servers[int(faults.chance.random() * len(servers))]
    if primary.host not in faults.spared:
        faults.told(primary.host, "postgres-kill")
        primary.kill("kill")


POSTGRES: Final[dict[str, Callable[["Faults"], None]]] = {"postgres-kill": _kill}
