"""Idempotency keys: a request that is repeated counts once, and is answered as the first time.

The key is claimed in the transaction that does the work, and the answer is
stored with it. A repeat that comes while the first is under way waits for it.

Invariant: a repeat that finds an answer writes, too. Its COMMIT then waits for
the standbys, and with it for everything that came before: an answer whose first
COMMIT was never acknowledged is acknowledged now, or not told.

Order: claim before anything is locked that another request may lock.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb

from mesh.client.database import Connection
from mesh.errors import Conflict, Problem

KEY_CHARS_MAX: Final = 128
#: The table, in the words of a migration; `services/lcm/migrations` has it.
TABLE: Final = """
CREATE TABLE idempotency_keys (
    caller text NOT NULL,
    key text NOT NULL,
    request bytea NOT NULL,
    answer jsonb,
    repeats bigint NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, by whom, under which key. *content* and *method* tell requests apart."""

    caller: str
    key: str
    method: str
    content: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.method.encode() + b"\0" + self.content).digest()


def content_of(value: Mapping[str, Any]) -> bytes:
    """The same bytes for the same value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def problems_of_key(key: str) -> list[Problem]:
    """What is wrong with a key."""
    if key and len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable():
        return []
    what = "is empty: it lets a repeat count once" if not key else "is too long or not printable ASCII"
    problem = f"{what}; 1 to {KEY_CHARS_MAX} characters"
    return [Problem("idempotency_key", problem, "7f9c1b1e-3f43-4a52-9c1f-5a1f6c0f9c3e")]


async def claim(connection: Connection, request: Request) -> Any | None:
    """Begin a request: None when it is new, else the answer it was given.

    Fails: `Conflict` when the key was used for another request.
    """
    cursor = await connection.execute(
        "INSERT INTO idempotency_keys (caller, key, request) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (request.caller, request.key, request.digest),
    )
    if cursor.rowcount:
        return None
    cursor = await connection.execute(
        "UPDATE idempotency_keys SET repeats = repeats + 1 WHERE caller = %s AND key = %s"
        " RETURNING request, answer",
        (request.caller, request.key),
    )
    row = await cursor.fetchone()
    if row is None or bytes(row["request"]) != request.digest:
        raise Conflict(
            f"The idempotency key {request.key!r} was used for another request."
            " Nothing was changed; use a new key for a new request.",
            key=request.key,
        )
    return row["answer"]


async def settle(connection: Connection, request: Request, answer: Any) -> None:
    """Keep the answer, in the transaction that did the work."""
    await connection.execute(
        "UPDATE idempotency_keys SET answer = %s WHERE caller = %s AND key = %s",
        (Jsonb(answer), request.caller, request.key),
    )
