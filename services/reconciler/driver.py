"""The reconciler's loop: look at the database and at the mesh, decide, act, write down how it stands.

Nothing is kept from round to round that is not read again; an owner that dies in the middle
of a round is followed by one that sees the same and goes on.

Order: a round that ends early is followed by one that begins after the deployment where it ended, so that
each has its turn.

Fails: `StaleTerm` ends it: another owner acts. Everything else is tried again.
"""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import structlog

from mesh.client.database import Database
from mesh.errors import (
    NotLeader,
    OutcomeUnknown,
    QueueFull,
    Refused,
    StaleTerm,
    TrellisError,
    Unavailable,
    VersionConflict,
)
from services.lcm.model import Change, Now, Operation
from services.lcm.revisions import CHANNEL
from services.reconciler import decide
from services.reconciler.ledger import Ledger, Row
from services.reconciler.model import Action, Declared, Stop

LOG = structlog.get_logger(__name__)

#: Between looks while nothing is notified; shorter while something is under way.
LOOK_S: Final = 1.0
BUSY_LOOK_S: Final = 0.2
TIDY_ROUNDS: Final = 60
#: At once; what is left then is for after the next round.
TIDY_BATCHES: Final = 10
#: Refusals that say nothing of what was asked for: it is asked again.
PASSING: Final = (QueueFull, NotLeader)


class Services(Protocol):
    """The mesh's services."""

    async def services(self) -> dict[str, Declared]: ...
    async def perform(self, action: Action) -> None: ...


class Reconciler:
    """Drives every deployment, one after the other, round after round."""

    def __init__(self, database: Database, ledger: Ledger, services: Services) -> None:
        self._database = database
        self._ledger = ledger
        self._services = services
        self._wake = asyncio.Event()
        self._installation = ""
        #: The deployment where the last round ended early.
        self._ended_at = ""

    async def run(self) -> None:
        """Until cancelled. Fails: `StaleTerm`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="listen")
            rounds, is_tidy = 0, True
            while True:
                busy = await self._attempt()
                rounds += 1
                if rounds % TIDY_ROUNDS == 0 or not is_tidy:
                    is_tidy = await self._tidy()
                try:
                    async with asyncio.timeout(BUSY_LOOK_S if busy else LOOK_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def round(self) -> bool:
        """One look at everything; True while anything is under way."""
        self._wake.clear()
        if not self._installation:
            self._installation = await self._ledger.take_over()
        rows = await self._ledger.rows()
        services = await self._services.services()
        busy = False
        for name in decide.orphans(services, self._installation, rows):
            busy = await self._stop_orphan(name, services[name]) or busy
        for name in decide.in_turn(rows, self._ended_at):
            self._ended_at = name
            busy = await self._reconcile(rows[name], services) or busy
        self._ended_at = ""
        return busy

    # ---- parts of a round ---------------------------------------------------------------

    async def _reconcile(self, row: Row, services: dict[str, Declared]) -> bool:
        deployment, operation = row.deployment, row.operation
        planned = decide.plan(deployment, operation, services, self._installation, datetime.now(UTC))
        try:
            if planned.begin and operation is not None:
                await self._ledger.record(row, partial(_begin, row, operation))
                return True
            if planned.resting:
                return False
            refusal = planned.refusal or await self._perform(planned.actions)
            for_good = None if isinstance(refusal, PASSING) else refusal
            judging = partial(decide.judge, deployment, operation, services, self._installation, for_good)
            # without the database: whether there is anything to write
            if judging(_dry(row)) is not None:
                await self._ledger.record(row, judging)
            if refusal is not for_good:
                raise Unavailable(f"{deployment.name} is put off: {refusal}")
        except VersionConflict as conflict:
            LOG.info("changed-meanwhile", deployment=deployment.name, conflict=conflict.message)
            return True
        return operation is not None or bool(planned.actions)

    async def _perform(self, actions: tuple[Action, ...]) -> TrellisError | None:
        """Why the mesh refuses, if it does.

        Fails: `Unavailable` and `OutcomeUnknown`; `VersionConflict` when somebody else changed the service;
        `StaleTerm`.
        """
        if actions:
            await self._ledger.check_owner()
        for action in actions:
            try:
                await self._services.perform(action)
            except (Unavailable, OutcomeUnknown, VersionConflict, StaleTerm):
                raise
            except Refused as refusal:
                LOG.warning("refused", action=type(action).__name__, reason=str(refusal))
                return refusal
            except (
                TrellisError
            ) as error:  # an older leader, a failing disk: nothing that was asked for is wrong
                raise Unavailable(error.message) from error
        return None

    async def _stop_orphan(self, name: str, declared: Declared) -> bool:
        """What is there without a deployment was left by an owner that died, or by a database set back."""
        if not await self._ledger.is_absent(decide.deployment_of_mark(declared.mark)):
            return True
        LOG.info("orphan-stopped", service=name)
        await self._perform((Stop(name, declared.version),))
        return True

    async def _attempt(self) -> bool:
        try:
            return await self.round()
        except StaleTerm:
            raise
        except (Unavailable, OutcomeUnknown, VersionConflict) as error:
            LOG.warning("round-not-finished", reason=error.message)
            return True

    async def _tidy(self) -> bool:
        """False: there is more to forget."""
        try:
            for _ in range(TIDY_BATCHES):
                if not await self._ledger.tidy():
                    return True
        except (Unavailable, OutcomeUnknown) as error:
            LOG.warning("not-tidied", reason=error.message)
        return False

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._database.notices(CHANNEL, every_s=LOOK_S):
                    self._wake.set()
            except Unavailable as error:
                LOG.warning("no-notices", reason=error.message)
                await asyncio.sleep(LOOK_S)


def _begin(row: Row, operation: Operation, now: Now) -> Change:
    return decide.begin(row.deployment, operation, now)


def _dry(row: Row) -> Now:
    return Now(datetime.now(UTC), row.deployment.revision + 1)
