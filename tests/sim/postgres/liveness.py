"""A healed database gets on: somebody is primary and acknowledges, and everybody else streams from it."""

from typing import Final

from mesh.ids import PRIMARY
from sidecar.postgres.model import ProcessKind
from tests.sim.clock import NS
from tests.sim.postgres.clients import Writers
from tests.sim.trace import Violation
from tests.sim.world import World

#: A holder that lives and does not serve is given up after doubling times; copies take seconds.
WITHIN_S: Final = 90
LOOK_NS: Final = NS // 4


class DatabaseLiveness:
    """The end of a run with a database. Fails: `Violation`, of liveness."""

    def __init__(self, world: World, writers: Writers) -> None:
        self._world, self._writers = world, writers

    def run(self) -> None:
        """Look until all is well or the time is over."""
        world, databases = self._world, self._writers.databases
        end = world.now + WITHIN_S * NS
        before = databases.acknowledgements
        problem = "not looked at"
        while problem and world.now < end:
            world.run_until(world.now + LOOK_NS)
            problem = self._problem(before)
        self._writers.is_on = False
        if problem:
            text = f"{WITHIN_S} s after healing: {problem} ({self._views()})"
            raise Violation("database-liveness", text, is_liveness=True)

    def _problem(self, before: int) -> str:
        databases = self._writers.databases
        primary = databases.primary()
        if primary is None:
            return "nobody is primary and open"
        if databases.acknowledgements <= before + 3:
            return f"{primary.host} acknowledges nothing"
        for server in databases.servers.values():
            if server is primary:
                continue
            if server.kind is not ProcessKind.STANDBY or server.receiving.sending is None:
                return f"{server.host} does not stream"
        others = tuple(sorted(set(databases.servers) - {primary.host}))
        if databases.published.voters != others:
            return f"{databases.published} is published"
        return ""

    def _views(self) -> str:
        leader = self._world.leader()
        state = leader.replica.state if leader is not None else None
        owner = state.owners.get(PRIMARY) if state is not None else None
        planner = leader.core.leading.database if leader is not None else None
        views = [f"owner {owner}", f"problem {planner.problem if planner is not None else ''}"]
        for host, server in self._writers.databases.servers.items():
            life = server.machine.life
            doing = (
                life.database.driver.doing if life is not None and life.database is not None else "no sidecar"
            )
            views.append(f"{host} {server.kind.value}{' open' if server.is_open else ''}: {doing}")
        return "; ".join(views)
