"""The database of one life of a sidecar: the real driver on the simulated server, and seals between hosts."""

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from trellis.database.v1 import database_pb2 as pb

from mesh.errors import NotInTime, PeerUnreachable, TrellisError
from mesh.ids import PRIMARY, FencingTerm, HostId, Index, MemberId, host_of
from mesh.state import ClusterState
from mesh.state.commands import Applied, PutSecret, SingleCommand
from mesh.wire.failure import from_failure, to_failure
from sidecar.app.leading import DatabasePlanner
from sidecar.postgres.driver import DatabaseDriver
from sidecar.postgres.leading import DatabaseLeading
from sidecar.postgres.model import SealReport
from sidecar.postgres.peer_server import DatabasePeerServicer
from sidecar.postgres.peers import SEAL_S
from sidecar.postgres.wire import decode_seal_report
from tests.sim.calls import Connection
from tests.sim.postgres.engine import SimPostgres
from tests.sim.postgres.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.host import Life

PASSWORD: Final = "database-password"
PROPOSE_S: Final = 2.0


class HostDatabase:
    """As `sidecar.app.database.HostDatabase`, for a simulated host."""

    def __init__(self, life: "Life", server: Server) -> None:
        self._life = life
        self.server = server
        chance = Random(f"{life.world.seed}/postgres/{life.host}/{life.number}")
        self.driver = DatabaseDriver(
            host=life.host,
            address=lambda port: f"{life.host}:{port}",
            port=None,
            engine=SimPostgres(server, chance, self._ended),
            replicated=_Replicated(life),
            fence=life.fence,
            is_live=lambda: life.core.host.is_live(),
            released=lambda: [term for name, term in life.core.host.releases() if name == PRIMARY],
            on_change=lambda: life.core.database_changed(),
        )
        self._caller: HostId | None = None
        self._servicer = DatabasePeerServicer(
            cluster=life.world.cluster,
            host=life.host,
            driver=self.driver,
            leader=self._leader,
            caller=lambda: self._caller,
        )
        self._connections: dict[MemberId, Connection] = {}
        self._asked: dict[MemberId, list[asyncio.Future[Any]]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    def _ended(self) -> None:
        life = self._life
        life.loop.call_true(life.world.now, self.driver.wake)

    def _leader(self) -> HostId | None:
        leader = self._life.core.node.leader
        return host_of(leader) if leader is not None else None

    # ---- as leader --------------------------------------------------------------------

    def plan(self, wake: "Callable[[], None]") -> DatabasePlanner:
        """The planner of a leadership."""
        return DatabaseLeading(self._life.host, self.seal, wake)

    async def seal(self, host: HostId, term: FencingTerm) -> SealReport:
        """Fails: `TrellisError`."""
        if host == self._life.host:
            return await self.driver.seal(term)
        row = self._life.replica.state.member_of(host)
        if row is None:
            raise PeerUnreachable(f"there is no host {host}")
        answer: asyncio.Future[Any] = self._life.loop.create_future()
        connection = self._connect(row.member)
        self._asked.setdefault(row.member, []).append(answer)
        other = connection.server.database
        assert other is not None
        reply = partial(connection.back.put, partial(_answered, answer))
        connection.out.put(other.serve, (self._life.host, term, reply))
        try:
            async with asyncio.timeout(SEAL_S):
                found: SealReport = await answer
        except TimeoutError:
            raise NotInTime(f"{host} did not answer within {SEAL_S} s") from None
        finally:
            self._asked[row.member].remove(answer)
        return found

    def _connect(self, member: MemberId) -> Connection:
        connection = self._connections.get(member)
        if connection is None or connection.is_broken:
            there = self._life.reach(member)
            if there is None or there.database is None:
                raise PeerUnreachable(f"there is no connection to {member}")
            connection = Connection(self._life, there, partial(self._lost, member))
            self._connections[member] = connection
        return connection

    def _lost(self, member: MemberId) -> None:
        self._connections.pop(member, None)
        for answer in self._asked.get(member, ()):
            if not answer.done():
                answer.set_exception(PeerUnreachable(f"the connection to {member} broke"))

    # ---- asked by the leader ----------------------------------------------------------

    def serve(self, call: "tuple[HostId, FencingTerm, Callable[[Any], None]]") -> None:
        """A request has arrived."""
        task = self._life.loop.create_task(self._serve(*call), name="seal")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, caller: HostId, term: FencingTerm, reply: "Callable[[Any], None]") -> None:
        self._caller = caller  # read before it awaits
        request = pb.SealRequest(cluster_id=self._life.world.cluster, fencing_term=term)
        try:
            answer = await self._servicer.Seal(request, None)
        except TrellisError as error:
            reply(from_failure(to_failure(error), is_certain=True))
        else:
            reply(decode_seal_report(answer.report))


def _answered(answer: "asyncio.Future[Any]", end: Any) -> None:
    if answer.done():
        return
    if isinstance(end, Exception):
        answer.set_exception(end)
    else:
        answer.set_result(end)


class _Replicated:
    """See sidecar.postgres.port.Replicated."""

    def __init__(self, life: "Life") -> None:
        self._life = life

    @property
    def state(self) -> ClusterState:
        return self._life.replica.state

    async def propose(self, command: SingleCommand) -> Applied:
        life = self._life
        return await life.replica.propose(command, timeout_s=PROPOSE_S, at_ns=life.clock.wall_ns())

    async def wait_applied(self, index: Index) -> None:
        await self._life.driver.wait_applied(index, timeout_s=PROPOSE_S)

    def password(self, state: ClusterState) -> str:
        return (state.secrets.get(PASSWORD) or b"").decode()

    async def make_password(self) -> None:
        applied = await self.propose(PutSecret(PASSWORD, b"secret"))
        await self.wait_applied(applied.index)
