"""What the driver of a database does: one action of the table, or one thing a primary needs beside it.

Order, for whoever becomes primary: the fence has its process, then it is noted
durably under which number it acts, then it acts; its promotion is recorded
before anybody follows it, and clients come last.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog

from mesh import failpoints
from mesh.errors import Fenced, InvariantBroken, TrellisError
from mesh.ids import FencingTerm, HostId
from mesh.limits import TIMELINES_MAX
from mesh.state.commands import Applied, RecordEvents, SingleCommand
from mesh.state.database_checks import data_hosts
from mesh.state.database_commands import PublishSyncSet, RecordBootstrap, RecordPromotion
from mesh.state.database_model import DatabaseRecord
from sidecar.postgres.beside import Beside
from sidecar.postgres.history import timeline_above
from sidecar.postgres.milestones import Milestones
from sidecar.postgres.model import (
    NO_TERM,
    Action,
    Do,
    Goal,
    GoalKind,
    LocalData,
    ProcessKind,
    SyncNames,
    TimelineHistory,
)
from sidecar.postgres.port import Engine, Fence, Replicated, Sight, Source
from sidecar.postgres.primaryship import Primaryship
from sidecar.postgres.sync_set import Nothing, Publish, ReadBarrier, SetSyncNames, WaitFlushed, first_names

LOG = structlog.get_logger(__name__)

#: As the fence knows the server.
HELD_AS: Final = "postgres"
#: A stop that takes longer is a kill: the successor waits for it.
_HAND_OVER_S, _SEAL_S, _STOP_S = 8.0, 3.0, 30.0
#: A promotion is short; one that has not opened by then waits for others.
_CLOSED_S: Final = 1.0
#: After what a copy has replaced could not be deleted.
_DROP_AGAIN_S: Final = 60.0
#: After it has opened, what need not be changed at once is left as it is for so long.
_CALM_S: Final = 0.3


class Acts:
    """One host's hands on its database. Used by the driver's loop alone."""

    def __init__(
        self,
        host: HostId,
        engine: Engine,
        replicated: Replicated,
        fence: Fence,
        is_live: Callable[[], bool],
    ) -> None:
        self._host = host
        self._engine = engine
        self._replicated = replicated
        self._fence = fence
        self._is_live = is_live
        #: What was promised last by this object.
        self.sealed_under = NO_TERM
        #: The server is primary or may become it: the fence has its process.
        self.is_held = False
        self.ship: Primaryship | None = None
        #: The last look at the sync set found something to do.
        self.is_changing = False
        self._checkpointed = NO_TERM
        self._calm_until = 0.0
        self._is_former_dropped = False
        self._milestones = Milestones(host)
        #: Of the driver's loop to check, and to end.
        self.beside = Beside()

    # ---- looking --------------------------------------------------------------------

    def seen(self, sight: Sight) -> Sight:
        """Take in a look, and add what only this object knows."""
        process = sight.local.process
        if process.kind is ProcessKind.DOWN:
            self.ship = None
            self._checkpointed = NO_TERM
        elif self.ship is not None:
            self.ship.seen(sight)
            if process.has_other_names and self.ship.in_force.is_certain:
                self.ship.setting(self.ship.in_force.names)  # somebody overrides them: they are set anew
        process = replace(
            process,
            is_checkpointed=self.ship is not None and self._checkpointed == self.ship.fencing_term,
            is_stray=self.ship is None and process.kind is ProcessKind.PRIMARY,
        )
        return replace(sight, local=replace(sight.local, process=process))

    def complete(self, goal: Goal, record: DatabaseRecord, sight: Sight) -> Goal:
        """The goal of a primary with what it knows of its standbys."""
        ship, term = self.ship, goal.fencing_term
        names = self._first_names()
        above = timeline_above(term, record.timeline_base)
        if ship is None:
            return replace(goal, names=names, timeline_above=above, closed_because="it is not primary yet")
        closed = ship.why_closed(record, sight) if ship.fencing_term == term else "its number is another"
        return replace(goal, names=names, timeline_above=above, closed_because=closed)

    # ---- one action -----------------------------------------------------------------

    def long_work(self, action: Action, goal: Goal) -> Coroutine[Any, Any, None] | None:
        """What this action is when it takes long and goes on beside the loop; None: `do` it."""
        match action.do:
            case Do.INITDB:
                return self._engine.make()
            case Do.CLONE:
                self._is_former_dropped = False
                return self._engine.copy(_source(goal))
            case Do.REWIND:
                return self._engine.rewind(_source(goal), goal.system_identifier)
            case Do.CHECKPOINT:
                return self._checkpoint(goal.fencing_term)
            case _:
                return None

    async def _checkpoint(self, term: FencingTerm) -> None:
        await self._engine.checkpoint()
        self._checkpointed = term

    async def do(self, action: Action, goal: Goal, sight: Sight) -> None:
        """Carry out one action. Fails: `TrellisError`; it is decided anew then."""
        if self.is_held and sight.local.process.kind is ProcessKind.DOWN:
            await self._let_go()
        failpoints.hit("database.before-action")
        match action.do:
            case Do.START_STANDBY:
                source = _source(goal) if goal.kind is GoalKind.FOLLOW else None
                self._engine.start(names=None, source=source)
            case Do.START_CLOSED_PRIMARY:
                await self._start_primary(action, goal, sight.local.data)
            case Do.PROMOTE:
                await self._promote(action, goal)
            case Do.OPEN:
                await self._open(goal)
            case Do.FOLLOW:
                await self._engine.follow(_source(goal))
            case Do.SEAL:
                await self._seal(action.fencing_term)
            case Do.STOP_FAST:
                limits = {GoalKind.SEALED: _SEAL_S, GoalKind.HAND_OVER: _HAND_OVER_S}
                await self.stop(limits.get(goal.kind, _STOP_S))
                if goal.kind is GoalKind.HAND_OVER:  # everybody waits for this: without another look
                    await self._seal(goal.fencing_term)
            case Do.KILL_ALL:
                await self.kill()
            case Do.SET_RIGHT:
                await self._set_right()
            case Do.CREATE_SLOTS | Do.DROP_SLOTS:
                await self._engine.set_slots(goal.peers)
            case _:
                raise InvariantBroken(f"nothing does {action.do.value}")
        failpoints.hit("database.action-done")

    async def _seal(self, term: FencingTerm) -> None:
        await self._engine.seal(term, self._first_names())
        self.sealed_under = term
        failpoints.hit("database.sealed")

    def _first_names(self) -> SyncNames | None:
        """By which it would acknowledge if it were promoted now; None: not known."""
        state = self._replicated.state
        record = state.database
        if record is None:
            return None
        return first_names(record.published, self._host, record.spec.standbys_needed, data_hosts(state))

    async def _start_primary(self, action: Action, goal: Goal, data: LocalData) -> None:
        names, term = _names(action), goal.fencing_term
        self._engine.note_acting(term)
        self._check_live()
        self._milestones.reached("begun")
        ship = Primaryship(self._host, term, names, begun_at=None, is_new=data.primary_term < term)
        self.is_held = True
        self._engine.start(names=names, source=None)
        self.ship = ship
        await self._hold()

    async def _promote(self, action: Action, goal: Goal) -> None:
        names, term = _names(action), goal.fencing_term
        self._milestones.reached("begun")
        self._check_live()
        self.is_held = True
        await self._hold()
        self._engine.note_acting(term)
        failpoints.hit("database.before-promote")
        self._check_live()
        # Known before it is promoted: a promotion whose end was not seen may be one.
        ship = self.ship = Primaryship(self._host, term, names, begun_at=None, is_new=True)
        ship.begun_at = await self._engine.promote(names, action.timeline_above)
        failpoints.hit("database.promoted")
        self._milestones.reached("promoted")

    async def _open(self, goal: Goal) -> None:
        self._check_live()
        await self._engine.open()
        self._milestones.reached("opened")
        self._calm_until = asyncio.get_running_loop().time() + _CALM_S
        # The control file learns of a promotion by a checkpoint, and who rewinds believes that.
        self.beside.begin("checkpoint", self._engine.checkpoint)
        told = self._milestones.opened(goal.fencing_term)
        if told is not None:
            self.beside.begin("journal", partial(self._replicated.propose, RecordEvents((told,))))

    async def _set_right(self) -> None:
        """It waits for the right standbys again, or ends: nothing more is acknowledged by other names.

        In order, so that standbys get what was; it begins anew closed, until they have it.
        """
        ship = self.ship
        if ship is None:
            raise InvariantBroken("a primary without a primaryship")
        ship.setting(ship.in_force.names)
        try:
            ship.set(await self._engine.set_sync(ship.in_force.names))
        except TrellisError:
            await self.stop(_SEAL_S)
            raise

    async def _hold(self) -> None:
        process = self._engine.process
        if process is None:
            raise Fenced("the server has ended before the fence knew it")
        try:
            await self._fence.register_tree(HELD_AS, process.pid, process.start_ticks, process.cgroup or None)
        except TrellisError:
            await self.kill()
            raise

    async def _let_go(self) -> None:
        await self._fence.unregister(HELD_AS)
        self.is_held = False

    def _check_live(self) -> None:
        if not self._is_live():
            raise Fenced(f"{self._host} has no lease")

    async def stop(self, deadline_s: float) -> None:
        """End the server cleanly; killed after the deadline. Nothing of it is left then."""
        await self._engine.stop(deadline_s)
        await self._ended()

    async def kill(self) -> None:
        """End the server at once. Nothing of it is left then. Fails: `NotInTime`: something is."""
        await self._engine.kill_all()
        await self._ended()

    async def _ended(self) -> None:
        self.ship = None
        if self.is_held:
            await self._let_go()

    # ---- beside the table -----------------------------------------------------------

    async def tend(self, goal: Goal, sight: Sight) -> bool:
        """One thing that is due beside the table; True when another look is due at once."""
        process, state = sight.local.process, self._replicated.state
        if process.kind is ProcessKind.DOWN and self.is_held:
            await self._let_go()
            return True
        is_following = process.kind is ProcessKind.STANDBY and process.receives_from is not None
        if (is_following or process.is_open) and not self._is_former_dropped:
            self._is_former_dropped = True  # these data were seen to serve
            self.beside.begin("drop-former", self._drop_former)
        if is_following:
            return False
        record, ship = state.database, self.ship
        if process.kind is not ProcessKind.PRIMARY or record is None or ship is None or not self._is_live():
            return False
        if goal.kind is GoalKind.BOOTSTRAP:
            await self._bootstrapped(goal, sight)
            return True
        if goal.kind is not GoalKind.PRIMARY:
            return False
        if ship.fencing_term != goal.fencing_term:
            self._engine.note_acting(goal.fencing_term)
            ship.renewed(goal.fencing_term)
        if (record.primary, record.primary_term) != (self._host, ship.fencing_term):
            await self._record_promotion(goal.fencing_term, sight)
            return True
        if missing := set(goal.peers) - set(sight.local.slots):
            LOG.info("database-slots", hosts=sorted(missing))
            await self._engine.set_slots(goal.peers)
        if not process.is_open:
            self._help_the_others_back()
        if process.is_open and asyncio.get_running_loop().time() < self._calm_until:
            return False  # its clients come back just now, and every reload is felt
        if not process.is_open and ship.waits_for_wal_only(record):
            return False  # the rest comes once clients are in
        return await self._next_step(ship, record, (*goal.peers, self._host), sight)

    async def _drop_former(self) -> None:
        try:
            await self._engine.drop_former()
        except TrellisError as error:
            LOG.warning("database-former-stays", error=str(error))
            await asyncio.sleep(_DROP_AGAIN_S)
            self._is_former_dropped = False

    def _help_the_others_back(self) -> None:
        """Closed for long: those it waits for may have to be rewound, and believe its control file."""
        since_s = self._milestones.since_s("promoted")
        if since_s is None or since_s < _CLOSED_S or self._milestones.since_s("checkpoint") is not None:
            return
        self._milestones.reached("checkpoint")
        self.beside.begin("checkpoint", self._engine.checkpoint)

    async def _bootstrapped(self, goal: Goal, sight: Sight) -> None:
        state, data = self._replicated.state, sight.local.data
        if not self._replicated.password(state):
            await self._replicated.make_password()
        await self._engine.make_roles(self._replicated.password(self._replicated.state))
        timeline = data.history.timeline if data.history is not None else 1
        switches = _switches(data.history)
        failpoints.hit("database.before-bootstrap-recorded")
        await self._propose(
            RecordBootstrap(self._host, data.system_identifier, timeline, goal.fencing_term, switches)
        )

    async def _record_promotion(self, term: FencingTerm, sight: Sight) -> None:
        history = sight.local.data.history
        if history is None:
            raise Fenced("the history of its timeline cannot be read")
        switches = _switches(history)
        failpoints.hit("database.before-recorded")
        await self._propose(RecordPromotion(self._host, history.timeline, term, switches))
        failpoints.hit("database.recorded")
        self._milestones.reached("recorded")

    async def _next_step(
        self, ship: Primaryship, record: DatabaseRecord, hosts: Iterable[HostId], sight: Sight
    ) -> bool:
        step = ship.next_step(record, hosts, sight)
        self.is_changing = not isinstance(step, Nothing)
        match step:
            case SetSyncNames():
                LOG.info(
                    "database-sync-names", needed=step.names.needed, of=step.names.standbys, why=step.reason
                )
                ship.setting(step.names)
                failpoints.hit("database.before-sync-names")
                ship.set(await self._engine.set_sync(step.names))
                failpoints.hit("database.sync-names-set")
            case ReadBarrier():
                ship.read_barrier(sight)
            case Publish():
                ship.publishing()
                failpoints.hit("database.before-publish")
                await self._propose(
                    PublishSyncSet(
                        self._host, step.voters, step.quorum, step.expected_version, ship.fencing_term
                    )
                )
                failpoints.hit("database.published")
                ship.published()
            case WaitFlushed() | Nothing():
                return False
        return True

    async def _propose(self, command: SingleCommand) -> Applied:
        applied = await self._replicated.propose(command)
        await self._replicated.wait_applied(applied.index)
        return applied


def _source(goal: Goal) -> Source:
    if goal.primary is None:
        raise InvariantBroken("there is no primary to receive from")
    return Source(goal.primary, goal.address)


def _names(action: Action) -> SyncNames:
    if action.names is None:
        raise InvariantBroken(f"{action.do.value} without names")
    return action.names


def _switches(history: TimelineHistory | None) -> tuple[tuple[int, int], ...]:
    """Where each timeline was left, as it is recorded."""
    ancestors = history.ancestors if history is not None else ()
    return tuple((int(each.timeline), int(each.end)) for each in ancestors[-TIMELINES_MAX:])
