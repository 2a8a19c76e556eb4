"""What the reconciler reads and writes of the lifecycle manager's database.

Invariant: every write is guarded by the fencing term, and rests on the very deployment and operation that
it was decided from: where either has changed meanwhile nothing is written, and the next round decides anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mesh.client.database import Connection, Database
from mesh.errors import VersionConflict
from services.lcm import codec
from services.lcm.model import Change, Deployment, Now, Operation
from services.lcm.store import lock_deployment, lock_open_operation, take_now, write

#: Name of the fence.
OWNER: Final = "reconciler"
CHANGES_KEPT: Final = 10_000
OPERATIONS_KEPT: Final = 100_000
KEYS_KEPT: Final = "1 day"


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
            cursor = await connection.execute("SELECT name, revision FROM deployments ORDER BY name")
            revisions = {row["name"]: row["revision"] for row in await cursor.fetchall()}
            await self._learn(connection, revisions)
            cursor = await connection.execute("SELECT body FROM operations WHERE NOT is_done")
            operations = [codec.operation_of(row["body"]) for row in await cursor.fetchall()]
        by_deployment = {operation.deployment: operation for operation in operations}
        return {name: Row(self._known[name], by_deployment.get(name)) for name in revisions}

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

    async def tidy(self) -> None:
        """Forget what is kept for long enough. Fails: `StaleTerm`."""
        async with self._database.guarded(OWNER, self._fencing_term) as connection:
            await connection.execute(
                "DELETE FROM idempotency_keys WHERE created < now() - %s::interval", (KEYS_KEPT,)
            )
            cursor = await connection.execute(
                "UPDATE revisions SET forgotten = newest - %s WHERE newest - %s > forgotten"
                " RETURNING newest, forgotten",
                (CHANGES_KEPT, CHANGES_KEPT + CHANGES_KEPT // 10),
            )
            row = await cursor.fetchone()
            if row is None:
                return
            await connection.execute("DELETE FROM changes WHERE revision <= %s", (row["forgotten"],))
            await connection.execute(
                "DELETE FROM operations WHERE is_done AND requested < %s", (row["newest"] - OPERATIONS_KEPT,)
            )

    async def _learn(self, connection: Connection, revisions: dict[str, int]) -> None:
        self._known = {
            name: known for name, known in self._known.items() if revisions.get(name) == known.revision
        }
        missing = [name for name in revisions if name not in self._known]
        if missing:
            cursor = await connection.execute("SELECT body FROM deployments WHERE name = ANY(%s)", (missing,))
            for row in await cursor.fetchall():
                deployment = codec.deployment_of(row["body"])
                self._known[deployment.name] = deployment
