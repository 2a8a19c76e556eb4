"""What the lifecycle manager keeps in the database. The only place with its SQL.

Order: within a transaction the key is claimed, then a deployment and its open operation
are locked, then the revision is taken; nothing else is locked after that. So no two
transactions wait for each other, and changes become visible in the order of their revisions.

Fails: every method as `Database.transaction`, and with what the decision raises.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from psycopg.types.json import Jsonb

from mesh.client.database import Connection, Database
from mesh.client.idempotency import Request, claim, settle
from mesh.client.migrations import read_migrations
from mesh.errors import NotFound
from services.lcm import codec
from services.lcm.model import Change, Deployment, Now, Operation
from services.lcm.revisions import check_kept, newest, take_now
from services.lcm.tokens import read_name_token, read_revision_token, write_token

MIGRATIONS: Final = read_migrations(Path(__file__).parent / "migrations")
#: Bodies decoded before others have a turn: some 10 ms.
DECODED_AT_ONCE: Final = 50
#: Changes read at once by a watch.
CHANGES_BATCH: Final = 256

T = TypeVar("T")
Decision = Callable[[Deployment | None, Operation | None, Now], Change]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was, or had been, answered with."""

    deployment: Deployment | None
    operation: Operation


@dataclass(frozen=True, slots=True)
class Seen:
    """One change, as a watch sees it."""

    revision: int
    deployment: Deployment
    deleted: bool


class Store:
    """Deployments and operations in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- changing ---------------------------------------------------------------------

    async def create(
        self, request: Request, name: str, decide: Callable[[Deployment | None, int, Now], Change]
    ) -> Answer:
        """Carry out a request for a new deployment once.

        Of two creations at once the later one waits for the revision, and then sees the earlier one's.
        """
        async with self._database.transaction() as connection:
            answered = await claim(connection, request)
            if answered is not None:
                return _answer_of(answered)
            now = await take_now(connection)
            change = decide(await _deployment(connection, name), await _count(connection), now)
            return await _settled(connection, request, change, now)

    async def change(self, request: Request, name: str, decide: Decision) -> Answer:
        """Carry out a request about the deployment *name* once."""
        async with self._database.transaction() as connection:
            answered = await claim(connection, request)
            if answered is not None:
                return _answer_of(answered)
            present = await lock_deployment(connection, name)
            operation = await lock_open_operation(connection, name)
            now = await take_now(connection)
            return await _settled(connection, request, decide(present, operation, now), now)

    async def change_of(
        self,
        request: Request,
        operation_id: str,
        decide: Decision,
    ) -> Answer:
        """Carry out a request about an operation once."""
        async with self._database.transaction() as connection:
            answered = await claim(connection, request)
            if answered is not None:
                return _answer_of(answered)
            found = await _operation(connection, operation_id)
            present = await lock_deployment(connection, found.deployment) if found else None
            # only now is it certain that nobody changes it
            operation = await _operation(connection, operation_id)
            now = await take_now(connection)
            return await _settled(connection, request, decide(present, operation, now), now)

    # ---- reading ----------------------------------------------------------------------

    async def deployment(self, name: str) -> Deployment:
        """Fails: `NotFound`."""
        async with self._database.transaction(snapshot=True) as connection:
            found = await _deployment(connection, name)
        if found is None:
            raise NotFound(f"There is no deployment {name}.", name=name)
        return found

    async def deployments(
        self, size: int, token: str, labels: Mapping[str, str]
    ) -> tuple[list[Deployment], str, int]:
        """A page by name, the token of the next, and the revision before the first page."""
        async with self._database.transaction(snapshot=True) as connection:
            revision, after = await newest(connection), ""
            if token:
                revision, after = read_name_token(token, labels)
            cursor = await connection.execute(
                "SELECT name, body FROM deployments WHERE name > %s AND labels @> %s ORDER BY name LIMIT %s",
                (after, Jsonb(dict(labels)), size + 1),
            )
            rows = await cursor.fetchall()
        following = write_token(revision, rows[size - 1]["name"], labels) if len(rows) > size else ""
        return [codec.deployment_of(row["body"]) for row in rows[:size]], following, revision

    async def present(self, name: str) -> tuple[AsyncIterator[Deployment], int]:
        """All deployments, or the one named, decoded as they are asked for, and the revision of that
        moment."""
        async with self._database.transaction(snapshot=True) as connection:
            revision = await newest(connection)
            cursor = await connection.execute(
                "SELECT body::text FROM deployments WHERE %s IN ('', name) ORDER BY name", (name,)
            )
            bodies = [row["body"] for row in await cursor.fetchall()]
        return decoded(bodies, codec.deployment_of), revision

    async def changes(self, after: int, name: str) -> tuple[list[Seen], int]:
        """Changes after a revision, oldest first, and the revision up to which they are all there are.

        Fails: `OutOfRange` when they are kept no longer, or the revision is not one of this database
        (it was set back).
        """
        async with self._database.transaction(snapshot=True) as connection:
            reached = await check_kept(connection, after)
            cursor = await connection.execute(
                "SELECT revision, deleted, body FROM changes WHERE revision > %s AND %s IN ('', deployment)"
                " ORDER BY revision LIMIT %s",
                (after, name, CHANGES_BATCH),
            )
            found = [
                Seen(each["revision"], codec.deployment_of(each["body"]), each["deleted"])
                for each in await cursor.fetchall()
            ]
        return found, found[-1].revision if len(found) == CHANGES_BATCH else reached

    async def operation(self, operation_id: str) -> Operation:
        """Fails: `NotFound`."""
        async with self._database.transaction(snapshot=True) as connection:
            found = await _operation(connection, operation_id)
        if found is None:
            raise NotFound(f"There is no operation {operation_id}.", id=operation_id)
        return found

    async def operations_of(self, ids: Sequence[str]) -> dict[str, Operation]:
        """Those of them that there are, by the ids as given."""
        known = {given: found for given in ids if (found := _uuid_of(given))}
        async with self._database.transaction(snapshot=True) as connection:
            cursor = await connection.execute(
                "SELECT id, body FROM operations WHERE id = ANY(%s)", (list(known.values()),)
            )
            bodies = {row["id"]: row["body"] for row in await cursor.fetchall()}
        return {given: codec.operation_of(bodies[each]) for given, each in known.items() if each in bodies}

    async def operations(self, deployment: str, size: int, token: str) -> tuple[list[Operation], str]:
        """A page, newest first, and the token of the next."""
        before = read_revision_token(token, {"": deployment}) if token else (1 << 63) - 1
        async with self._database.transaction(snapshot=True) as connection:
            cursor = await connection.execute(
                "SELECT requested, body FROM operations WHERE %s IN ('', deployment) AND requested < %s"
                " ORDER BY requested DESC LIMIT %s",
                (deployment, before, size + 1),
            )
            rows = await cursor.fetchall()
        following = write_token(0, rows[size - 1]["requested"], {"": deployment}) if len(rows) > size else ""
        return [codec.operation_of(row["body"]) for row in rows[:size]], following

    async def read(self, ask: Callable[[Connection], Awaitable[Any]]) -> Any:
        """Anything else, in one transaction."""
        async with self._database.transaction(snapshot=True) as connection:
            return await ask(connection)


async def decoded(bodies: Sequence[str], decode: Callable[[dict[str, Any]], T]) -> AsyncIterator[T]:
    """Thousands of bodies; others have their turns meanwhile. Order: after the transaction that read them."""
    for number, body in enumerate(bodies, 1):
        yield decode(json.loads(body))
        if number % DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)


# ---- within a transaction -----------------------------------------------------------------


async def lock_deployment(connection: Connection, name: str) -> Deployment | None:
    cursor = await connection.execute("SELECT body FROM deployments WHERE name = %s FOR UPDATE", (name,))
    row = await cursor.fetchone()
    return codec.deployment_of(row["body"]) if row else None


async def _deployment(connection: Connection, name: str) -> Deployment | None:
    cursor = await connection.execute("SELECT body FROM deployments WHERE name = %s", (name,))
    row = await cursor.fetchone()
    return codec.deployment_of(row["body"]) if row else None


async def lock_open_operation(connection: Connection, name: str) -> Operation | None:
    cursor = await connection.execute(
        "SELECT body FROM operations WHERE deployment = %s AND NOT is_done FOR UPDATE", (name,)
    )
    row = await cursor.fetchone()
    return codec.operation_of(row["body"]) if row else None


async def write(connection: Connection, change: Change, revision: int) -> None:
    """Everything of a change that is of this revision; the rest is as it was read, locked.

    Statement by statement, and not in a pipeline: to the server a client that is frozen within one is active,
    and none of its timeouts would end the transaction, which everybody else waits for.
    """
    # those that end first: a deployment has one open operation
    for operation in sorted(change.operations, key=lambda each: not each.state.is_done):
        if operation.revision == revision:
            await _write_operation(connection, operation)
    if change.deployment is not None and change.deployment.revision == revision:
        await _write_deployment(connection, change.deployment)
        await _note(connection, change.deployment, deleted=False)
    elif change.deployment is None and change.last is not None:
        await connection.execute("DELETE FROM deployments WHERE name = %s", (change.last.name,))
        await _note(connection, change.last, deleted=True)


async def _settled(connection: Connection, request: Request, change: Change, now: Now) -> Answer:
    answer = Answer(change.deployment or change.last, change.operations[0])
    await write(connection, change, now.revision)
    await settle(connection, request, _answer_json(answer))
    return answer


async def _write_deployment(connection: Connection, deployment: Deployment) -> None:
    body = Jsonb(codec.deployment_json(deployment))
    await connection.execute(
        "INSERT INTO deployments (name, version, state, labels, revision, body)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET version = excluded.version,"
        " state = excluded.state, labels = excluded.labels, revision = excluded.revision,"
        " body = excluded.body",
        (
            deployment.name,
            deployment.version,
            deployment.state.value,
            Jsonb(dict(deployment.spec.labels)),
            deployment.revision,
            body,
        ),
    )


async def _note(connection: Connection, deployment: Deployment, *, deleted: bool) -> None:
    await connection.execute(
        "INSERT INTO changes (revision, deployment, deleted, body) VALUES (%s, %s, %s, %s)",
        (deployment.revision, deployment.name, deleted, Jsonb(codec.deployment_json(deployment))),
    )


async def _write_operation(connection: Connection, operation: Operation) -> None:
    await connection.execute(
        "INSERT INTO operations (id, deployment, is_done, requested, revision, body)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET is_done = excluded.is_done,"
        " revision = excluded.revision, body = excluded.body",
        (
            operation.id,
            operation.deployment,
            operation.state.is_done,
            operation.revision,
            operation.revision,
            Jsonb(codec.operation_json(operation)),
        ),
    )


async def _operation(connection: Connection, operation_id: str) -> Operation | None:
    known = _uuid_of(operation_id)
    cursor = await connection.execute("SELECT body FROM operations WHERE id = %s", (known,))
    row = await cursor.fetchone()
    return codec.operation_of(row["body"]) if row else None


def _uuid_of(operation_id: str) -> uuid.UUID | None:
    """None: no operation has such an id."""
    try:
        return uuid.UUID(operation_id)
    except ValueError:
        return None


async def _count(connection: Connection) -> int:
    cursor = await connection.execute("SELECT count(*) AS count FROM deployments")
    row = await cursor.fetchone()
    return int(row["count"]) if row else 0


# ---- answers --------------------------------------------------------------------------------


def _answer_json(answer: Answer) -> dict[str, Any]:
    deployment = codec.deployment_json(answer.deployment) if answer.deployment else None
    return {"deployment": deployment, "operation": codec.operation_json(answer.operation)}


def _answer_of(body: Mapping[str, Any]) -> Answer:
    deployment = codec.deployment_of(body["deployment"]) if body["deployment"] else None
    return Answer(deployment, codec.operation_of(body["operation"]))
