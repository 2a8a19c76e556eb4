"""This host's database: looks, decides by the table, does one thing, and looks again.

One loop. Whatever changes (the state, the lease, a seal, an end of the server)
wakes it. Decisions are `goal_of` and `decide`; how things are done is the
engine's; what only a primary does beside the table is `Acts`.

Invariant: the server is a primary, or on the way to be one, only while the
fence has its process; `give_way` returns when nothing of it is left.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import replace

import structlog

from mesh import failpoints
from mesh.errors import Fenced, InvariantBroken, NotInTime, StaleTerm, TrellisError
from mesh.ids import PRIMARY, FencingTerm, HostId
from mesh.state import ClusterState
from mesh.state.database_checks import data_hosts
from mesh.state.database_model import DatabaseRecord, DatabaseStatus
from sidecar.postgres.acts import Acts
from sidecar.postgres.decide import decide
from sidecar.postgres.goal import HostStanding, goal_of
from sidecar.postgres.model import (
    NO_TERM,
    Action,
    DataKind,
    Do,
    Goal,
    GoalKind,
    Lsn,
    ProcessKind,
    SealReport,
)
from sidecar.postgres.own_turn import OwnTurn
from sidecar.postgres.pace import Pace
from sidecar.postgres.port import NO_SIGHT, Engine, Fence, Replicated, ServerSettings, Sight
from sidecar.postgres.telling import is_final, report_of, status_of, told_term

LOG = structlog.get_logger(__name__)

#: A seal is answered with what is known by then; whoever asked may ask again.
SEAL_ANSWER_S = 1.5
#: In which a primary that serves hears by the state why it is asked to seal.
HEARD_S = 0.5
TIDY_S = 5.0
#: After it did not work.
TIDY_AGAIN_S = 0.5
STOP_S = 30.0
GIVE_WAY_AGAIN_S = 0.1
#: In which nothing is begun while a copy or a stop is under way; what overrides that.
_URGENT = frozenset({Do.KILL_ALL, Do.SEAL})
#: What a primary does beside these: a slot that cannot be made or dropped must hold up nothing else.
_TENDED = frozenset({Do.WAIT, Do.OPEN, Do.CREATE_SLOTS, Do.DROP_SLOTS})


class DatabaseDriver:
    """One host's database, for the life of its sidecar. `run` until cancelled; `wake` after any change."""

    def __init__(
        self,
        *,
        host: HostId,
        address: Callable[[int], str],
        port: int | None,
        engine: Engine,
        replicated: Replicated,
        fence: Fence,
        is_live: Callable[[], bool],
        released: Callable[[], Collection[FencingTerm]],
        on_change: Callable[[], None],
    ) -> None:
        """*address* of the server for other hosts, by port; *port*: None means the declared one."""
        self._host = host
        self._address = address
        self._port = port
        self._engine = engine
        self._replicated = replicated
        self._is_live = is_live
        self._released = released
        self._on_change = on_change
        self._acts = Acts(host, engine, replicated, fence, is_live)
        self._wake = asyncio.Event()
        self._turned = asyncio.Event()
        self._lock = asyncio.Lock()
        self._pace = Pace()
        self._own_turn = OwnTurn(host, engine, replicated, self._acts, self._pace, self.wake)
        self._sight = NO_SIGHT
        self._goal = Goal(GoalKind.NOTHING)
        self._action = self._done = Action(Do.WAIT, "it begins")
        self._status: DatabaseStatus | None = None
        self._seal_wanted = NO_TERM
        self._seal_due = 0.0
        self._tidy_at = 0.0
        self._is_stopping = False

    # ---- what others tell and ask ---------------------------------------------------

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()

    @property
    def status(self) -> DatabaseStatus | None:
        """What this host reports; None before its first look."""
        return self._status

    @property
    def sight(self) -> Sight:
        """The last look."""
        return self._sight

    @property
    def doing(self) -> str:
        """What it does or waits for, as a sentence."""
        return self._pace.trouble or self._action.reason

    @property
    def sync_names(self) -> tuple[tuple[HostId, ...], int]:
        """As primary: the standbys in force, and how many of them are needed."""
        ship = self._acts.ship
        return ((), 0) if ship is None else (ship.in_force.names.standbys, ship.in_force.names.needed)

    def has_given_up(self, fencing_term: FencingTerm) -> bool:
        """Nothing of it acts, and under this number nothing will again."""
        local = self._sight.local
        return (
            local.sealed_under >= fencing_term
            and local.process.kind is ProcessKind.DOWN
            and not self._acts.is_held
        )

    async def seal(self, fencing_term: FencingTerm) -> SealReport:
        """Receive nothing from this primaryship any more, and say what this host has.

        The answer may not be final (`catching_up`): ask again. Fails: `StaleTerm` when a later
        primaryship is known here; `NotInTime` when the promise could not be made yet.
        """
        latest = self._replicated.state.fencing_term(PRIMARY)
        if latest > fencing_term:
            raise StaleTerm(
                f"primaryship {fencing_term} is over: {latest} is the latest", fencing_term=latest
            )
        if fencing_term > self._seal_wanted:
            self._seal_wanted, self._seal_due = fencing_term, asyncio.get_running_loop().time() + HEARD_S
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEAL_ANSWER_S):
                while not self._is_sealed(fencing_term) or not is_final(report_of(self._host, self._sight)):
                    await self._turned.wait()
        if not self._is_sealed(fencing_term):
            raise NotInTime(f"{self._host} is not sealed at {fencing_term} yet: {self.doing}")
        return report_of(self._host, self._sight)

    def _is_sealed(self, fencing_term: FencingTerm) -> bool:
        local = self._sight.local
        is_receiving = local.process.receives_from is not None
        is_primary = local.process.kind is ProcessKind.PRIMARY
        return local.sealed_under >= fencing_term and not is_receiving and not is_primary

    async def checkpoint(self, fencing_term: FencingTerm) -> Lsn:
        """Write a checkpoint, as the primary of this number; the end of its WAL after it.

        Fails: `Fenced` when this host is not that.
        """
        ship = self._acts.ship
        if ship is None or ship.fencing_term != fencing_term or not self._sight.local.process.is_open:
            raise Fenced(f"{self._host} is not primary under {fencing_term}")
        await self._engine.checkpoint()
        return self._sight.local.process.flushed

    async def give_way(self) -> None:
        """End whatever acts as primary or is about to; returns when nothing of it is left."""
        if not self._acts.is_held:
            return
        self._engine.kill_now()
        failpoints.hit("database.killed")
        async with self._lock:
            while self._acts.is_held:
                self._engine.kill_now()
                try:
                    await self._acts.kill()
                except TrellisError as error:  # a disk hangs; the fence tries too, and nobody acts meanwhile
                    LOG.error("database-not-gone", error=str(error))
                    await asyncio.sleep(GIVE_WAY_AGAIN_S)

    async def stop(self) -> None:
        """The sidecar ends: stop the server in order, whatever it is."""
        self._is_stopping = True
        await self._pace.end()
        async with self._lock:
            await self._acts.stop(STOP_S)

    # ---- the loop -------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the database as it should be."""
        async with self._lock:
            await self._engine.recover()
        try:
            while True:
                self._wake.clear()
                async with self._lock:
                    pause_s = await self._turn()
                turned, self._turned = self._turned, asyncio.Event()
                turned.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
        finally:
            await self._pace.end()
            await self._acts.beside.end()

    async def _turn(self) -> float:
        """One look, one thing done; how long to wait for news after it."""
        self._pace.check()
        self._acts.beside.check()
        if self._is_stopping:
            return self._pace.pause_s(is_settled=True)
        state = self._replicated.state
        identifier = state.database.system_identifier if state.database is not None else ""
        try:
            await self._look(identifier)
            await self._configure(state)
        except TrellisError as error:
            self._pace.failed(Do.WAIT, error)
            self._tell()
            return self._pace.pause_s(is_settled=False)
        self._goal = self._complete(self._asked(state), state)
        action = decide(self._sight.local, self._goal)
        if action != self._action and not self._pace.is_busy:
            LOG.info("database", does=action.do.value, reason=action.reason, goal=self._goal.kind.value)
        self._action = action
        if (
            self._pace.does is Do.CHECKPOINT
            and action.do is not Do.CHECKPOINT
            and not self._own_turn.has_begun
        ):
            await self._pace.end()  # it was for a hand-over that is off
        is_done = await self._try(action)
        is_more = await self._tend() if action.do in _TENDED else False
        self._tell()
        if is_done or is_more:
            return 0.0
        return self._pace.pause_s(is_settled=self._is_settled())

    async def _look(self, identifier: str) -> None:
        if self._pace.is_copying:  # no program may look into what another one writes
            local = self._sight.local
            data = replace(local.data, kind=DataKind.PARTIAL)
            sealed_under = max(local.sealed_under, self._acts.sealed_under)  # it promises meanwhile
            self._sight = replace(self._sight, local=replace(local, data=data, sealed_under=sealed_under))
            return
        self._sight = self._acts.seen(await self._engine.look(identifier))
        self._pace.worked(Do.WAIT)

    async def _configure(self, state: ClusterState) -> None:
        record = state.database
        if record is None or self._pace.is_busy:
            return
        hosts = data_hosts(state)
        members = tuple(row.member for row in map(state.member_of, hosts) if row is not None)
        port = self._port or record.spec.port
        parameters = record.spec.parameters if self._may_load(state, record) else None
        await self._engine.configure(ServerSettings(port, members, parameters))

    def _may_load(self, state: ClusterState, record: DatabaseRecord) -> bool:
        """Parameters are tried on a standby first; what one refuses, the primary never sees."""
        if self._sight.local.process.kind is not ProcessKind.PRIMARY:
            return True
        others = [row.status for row in state.database_members.values() if row.host != self._host]
        standbys = [status for status in others if status.is_streaming]
        if any(status.parameters_refused == record.version for status in standbys):
            return False
        return not standbys or any(status.parameters_version == record.version for status in standbys)

    def _asked(self, state: ClusterState) -> Goal:
        local, record = self._sight.local, state.database
        hosts = data_hosts(state)
        standing = HostStanding(
            host=self._host,
            holds_data=self._host in hosts,
            lease_live=self._is_live(),
            released=self._released(),
            sealed_under=local.sealed_under,
        )
        addresses = {row.host: row.status.address for row in state.database_members.values()}
        peers = tuple(host for host in hosts if host != self._host)
        goal = goal_of(record, state.owners.get(PRIMARY), standing, addresses, peers)
        wanted = self._seal_wanted
        if wanted <= local.sealed_under or (goal.kind is GoalKind.HAND_OVER and goal.fencing_term == wanted):
            return goal  # one that hands over stops in its own order, and promises the same then
        is_serving = goal.kind is GoalKind.PRIMARY and goal.fencing_term == wanted and local.process.is_open
        if is_serving and asyncio.get_running_loop().time() < self._seal_due:
            return goal  # it may be to hand over, which the state has not told it yet
        return Goal(GoalKind.SEALED, wanted, goal.system_identifier)

    def _complete(self, goal: Goal, state: ClusterState) -> Goal:
        """What only a primary knows of itself."""
        if state.database is None or goal.kind not in (GoalKind.PRIMARY, GoalKind.BOOTSTRAP):
            return goal
        return self._acts.complete(goal, state.database, self._sight)

    # ---- doing ----------------------------------------------------------------------

    async def _try(self, action: Action) -> bool:
        """Do it unless it has to wait; True when something was done, so that a look shows more."""
        self._pace.wants(action.do)
        if action.do is Do.WAIT:
            self._done = action
            return False
        if self._pace.is_busy and not await self._has_room_for(action.do):
            return False
        if self._pace.must_wait(action.do):
            return False
        try:
            work = self._acts.long_work(action, self._goal)
            if work is not None:
                self._pace.begin(action.do, work, self.wake)
                return False
            await self._acts.do(action, self._goal, self._sight)
        except InvariantBroken:
            raise
        except TrellisError as error:
            self._pace.failed(action.do, error)
            return False
        # What was done just so before shows later, if at all: looked for, and not done as fast as it can be.
        is_news, self._done = action != self._done, action
        self._pace.worked(action.do, is_news=is_news)
        return is_news

    async def _has_room_for(self, do: Do) -> bool:
        """Whether it can be done now: beside a copy, or instead of what is under way, which is broken off."""
        if do is Do.SEAL and self._pace.is_copying:
            return True
        if do in _URGENT:
            await self._pace.end()
        return do in _URGENT

    async def _tend(self) -> bool:
        """What goes on beside the table; True when there may be more at once."""
        loop = asyncio.get_running_loop()
        try:
            if loop.time() >= self._tidy_at and not self._pace.is_busy:
                self._tidy_at = loop.time() + TIDY_AGAIN_S
                await self._engine.tidy()
                self._tidy_at = loop.time() + TIDY_S
            is_more = await self._acts.tend(self._goal, self._sight) or await self._own_turn.take(
                self._goal, self._sight
            )
        except InvariantBroken:
            raise
        except TrellisError as error:
            self._pace.failed(Do.CONFIGURE_SYNC, error)
            return False
        self._pace.worked(Do.CONFIGURE_SYNC, is_news=is_more)
        return is_more

    def _is_settled(self) -> bool:
        """Nothing is under way that only looking would notice."""
        process = self._sight.local.process
        match self._goal.kind:
            case GoalKind.PRIMARY:
                return process.is_open and not self._acts.is_changing
            case GoalKind.FOLLOW:
                return process.receives_from == self._goal.primary
            case GoalKind.NOTHING | GoalKind.HOLD | GoalKind.FENCED:
                return True
            case GoalKind.SEALED:
                return is_final(report_of(self._host, self._sight))
            case _:
                return False

    def _tell(self) -> None:
        """Say what there is, when it is news."""
        record = self._replicated.state.database
        port = self._port or (record.spec.port if record is not None else 0)
        status = status_of(
            self._sight,
            is_preparing=self._pace.is_copying,
            fencing_term=told_term(self._goal, self._sight.local),
            address=self._address(port) if port else "",
            health=self._pace.trouble or self._own_turn.waits(self._sight),
            before=self._status,
        )
        if record is not None:
            given, sight = record.spec.parameters, self._sight
            status = replace(
                status,
                parameters_version=record.version if sight.loaded == given else 0,
                parameters_refused=record.version if sight.refused == given else 0,
            )
        if status != self._status:
            self._status = status
            self._on_change()
