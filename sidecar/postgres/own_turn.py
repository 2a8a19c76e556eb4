"""What a host does when its turn has come: it ends its server in order; the table starts or copies it anew.

Whose turn it is, `turns` finds in the replicated state.
"""

from collections.abc import Callable
from typing import Final

import structlog

from mesh.ids import HostId
from mesh.state.database_model import Wants
from sidecar.postgres.acts import Acts
from sidecar.postgres.model import Action, Do, Goal, GoalKind, ProcessKind
from sidecar.postgres.pace import Pace
from sidecar.postgres.port import Engine, Replicated, Sight
from sidecar.postgres.turns import turn_in

LOG = structlog.get_logger(__name__)

#: A stop that takes longer is a kill; others wait for it.
STOP_S: Final = 8.0


class OwnTurn:
    """The turns of one host. Used by its driver's loop alone."""

    def __init__(
        self,
        host: HostId,
        engine: Engine,
        replicated: Replicated,
        acts: Acts,
        pace: Pace,
        wake: Callable[[], None],
    ) -> None:
        self._host = host
        self._engine = engine
        self._replicated = replicated
        self._acts = acts
        self._pace = pace
        self._wake = wake
        #: The checkpoint that is under way, if one is, is for this.
        self.has_begun = False

    def waits(self, sight: Sight) -> str:
        """What it wants to go down for and what that waits for; empty: nothing."""
        if sight.wants is Wants.NOTHING:
            return ""
        reason = turn_in(self._replicated.state).reason
        return f"{sight.problem}; {reason}" if reason else sight.problem

    async def take(self, goal: Goal, sight: Sight) -> bool:
        """Go down, if it is this host's turn; True when it did. Fails: `TrellisError`."""
        process = sight.local.process
        has_turn = goal.kind in (GoalKind.PRIMARY, GoalKind.FOLLOW) and sight.wants is not Wants.NOTHING
        has_turn = has_turn and (process.is_open or process.receives_from == goal.primary is not None)
        if not has_turn or turn_in(self._replicated.state).host != self._host:
            self.has_begun = False
            return False
        if self._pace.is_busy:
            return False
        is_primary = process.kind is ProcessKind.PRIMARY
        if sight.wants is Wants.COPY:
            if not is_primary:  # that is asked to hand over first
                self._engine.distrust()
            return not is_primary
        if is_primary and not process.is_checkpointed:
            work = self._acts.long_work(Action(Do.CHECKPOINT, "so that its stop is short"), goal)
            if work is not None:
                self.has_begun = True
                self._pace.begin(Do.CHECKPOINT, work, self._wake)
            return False
        LOG.info("database-restart", why=sight.problem)
        self.has_begun = False
        await self._acts.stop(STOP_S)
        return True
