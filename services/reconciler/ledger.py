"""What the reconciler reads and writes of the lifecycle manager's database.

Invariant: every write is guarded by the fencing term, and rests on the very deployment and operation that
it was decided from: where either has changed meanwhile nothing is written, and the next round decides anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, LiteralString

from mesh.client.database import Database
from mesh.errors import VersionConflict
from services.lcm import codec
from services.lcm.model import Change, Deployment, Now, Operation
from services.lcm.revisions import take_now
from services.lcm.store import decoded, lock_deployment, lock_open_operation, write

#: Name of the fence.
OWNER: Final = "reconciler"
CHANGES_KEPT: Final = 10_000
OPERATIONS_KEPT: Final = 100_000
KEYS_KEPT: Final = "1 day"
#: Rows that one transaction forgets: a part of what a statement's time allows, also on a slow disk.
BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Row:
    """A deployment and its operation, if one is open."""

    deployment: Deployment
    operation: Operation | None


class Ledger:
    """The database, for the owner with a fencing term."""

    def __init__(self, database: Database, fencing_term: int) -> None:
        self._database = database
        self._fencing_term = fencing_term
        #: Bodies decoded before, by name and revision: most deployments do not change from round to round.
        self._known: dict[str, Deployment] = {}

    async def take_over(self) -> str:
        """From now on earlier owners are refused. The id of this installation.

        Fails: `StaleTerm`; as `Database.guarded`.
        """
        async with self._database.guarded(OWNER, self._fencing_term) as connection:
            cursor = await connection.execute("SELECT id FROM installation")
            row = await cursor.fetchone()
            assert row is not None, "installation has its one row from the first migration on"
            return str(row["id"])

    async def rows(self) -> dict[str, Row]:
        """Everything, as of one moment, by name."""
        async with self._database.transaction(snapshot=True) as connection:
            cursor = await connection.execute("SELECT name, revision FROM deployments")
            revisions = {row["name"]: row["revision"] for row in await cursor.fetchall()}
            self._known = {
                name: known for name, known in self._known.items() if revisions.get(name) == known.revision
            }
            missing = [name for name in revisions if name not in self._known]
            cursor = await connection.execute(
                "SELECT body::text FROM deployments WHERE name = ANY(%s)", (missing,)
            )
            deployments = [row["body"] for row in await cursor.fetchall()]
            cursor = await connection.execute("SELECT body::text FROM operations WHERE NOT is_done")
            operations = [row["body"] for row in await cursor.fetchall()]
        async for deployment in decoded(deployments, codec.deployment_of):
            self._known[deployment.name] = deployment
        open_ones = {each.deployment: each async for each in decoded(operations, codec.operation_of)}
        return {name: Row(self._known[name], open_ones.get(name)) for name in revisions}

    async def record(self, row: Row, decide: Callable[[Now], Change | None]) -> None:
        """Write what was decided from *row*.

        Fails: `VersionConflict` when *row* is not what is there any more; `StaleTerm`.
        """
        name = row.deployment.name
        async with self._database.guarded(OWNER, self._fencing_term) as connection:
            present = await lock_deployment(connection, name)
            operation = await lock_open_operation(connection, name)
            if present != row.deployment or operation != row.operation:
                raise VersionConflict(f"{name} has changed meanwhile; it is looked at again.", name=name)
            now = await take_now(connection)
            change = decide(now)
            if change is not None:
                await write(connection, change, now.revision)

    async def check_owner(self) -> None:
        """Before something outside the database is changed. Fails: `StaleTerm`."""
        async with self._database.guarded(OWNER, self._fencing_term):
            pass

    async def is_absent(self, name: str) -> bool:
        """No such deployment, as an owner who is not overtaken knows. Fails: `StaleTerm`."""
        async with self._database.guarded(OWNER, self._fencing_term) as connection:
            return await lock_deployment(connection, name) is None

    async def tidy(self) -> bool:
        """Forget some of what was kept for long enough, a transaction for each kind; True: there is more.

        Bound: `BATCH` rows of each kind. Fails: `StaleTerm`.
        """
        async with self._database.guarded(OWNER, self._fencing_term) as connection:
            await connection.execute(_FORGET, (CHANGES_KEPT, CHANGES_KEPT + CHANGES_KEPT // 10))
        is_more = False
        for statement, kept in _TIDY:
            async with self._database.guarded(OWNER, self._fencing_term) as connection:
                cursor = await connection.execute(statement, (*kept, BATCH))
                is_more = is_more or cursor.rowcount >= BATCH
        return is_more


#: Counted, not reckoned: revisions have gaps.
_FORGET: Final = """
UPDATE revisions SET forgotten = kept.revision
FROM (SELECT revision FROM changes ORDER BY revision DESC OFFSET %s LIMIT 1) AS kept
WHERE kept.revision > forgotten AND EXISTS (SELECT FROM changes ORDER BY revision DESC OFFSET %s)
"""
_TIDY: Final[tuple[tuple[LiteralString, tuple[object, ...]], ...]] = (
    (
        "DELETE FROM idempotency_keys WHERE (caller, key) IN (SELECT caller, key FROM idempotency_keys"
        " WHERE created < now() - %s::interval ORDER BY created LIMIT %s)",
        (KEYS_KEPT,),
    ),
    (
        "DELETE FROM changes WHERE revision IN (SELECT revision FROM changes"
        " WHERE revision <= (SELECT forgotten FROM revisions) ORDER BY revision LIMIT %s)",
        (),
    ),
    (
        "DELETE FROM gaps WHERE after IN (SELECT after FROM gaps"
        " WHERE until <= (SELECT forgotten FROM revisions) LIMIT %s)",
        (),
    ),
    (
        "DELETE FROM operations WHERE id IN (SELECT id FROM operations WHERE is_done AND requested <="
        " (SELECT requested FROM operations ORDER BY requested DESC OFFSET %s LIMIT 1)"
        " ORDER BY requested LIMIT %s)",
        (OPERATIONS_KEPT,),
    ),
)
