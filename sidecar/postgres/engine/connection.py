"""A session as superuser through the unix socket, in which no wait is without a deadline.

psycopg, when interrupted, asks the server to cancel and waits for up to 5 s for that: here
an interrupted session is dropped at once, because a server that hangs will not answer either.
Commits of these sessions wait for the local disk only: what the manager writes (roles, barriers)
must not hang for a standby.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

from mesh.errors import DatabaseFailed, DiskFull, NotInTime, TrellisError
from sidecar.postgres.engine import full_disk
from sidecar.postgres.engine.config import ADMIN_ROLE
from sidecar.postgres.engine.layout import Layout

_Value = TypeVar("_Value")
_DISK_FULL = "53100"
#: What is declared for clients must not rule the manager: each of its waits has its own deadline.
_OPTIONS = (
    "-c synchronous_commit=local -c statement_timeout=0 -c lock_timeout=0"
    " -c default_transaction_read_only=off"
)
#: Versions before this do not know `transaction_timeout`, and would refuse it among the options.
_TRANSACTION_TIMEOUT = 170_000


class _Droppable(psycopg.AsyncConnection[TupleRow]):
    """Ends at once when a wait is cancelled."""

    async def wait(self, gen: PQGen[_Value], interval: float = 0.1, timeout: float | None = None) -> _Value:
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


class Session:
    """One connection; used by one task at a time."""

    def __init__(self, connection: _Droppable, layout: Layout) -> None:
        self._connection = connection
        self._layout = layout

    @classmethod
    async def open(
        cls, layout: Layout, port: int, *, deadline_s: float, database: str = "postgres"
    ) -> "Session":
        """Fails: `DatabaseFailed`, `NotInTime` (a frozen postmaster accepts and never answers)."""
        try:
            async with asyncio.timeout(deadline_s):
                connection = await _Droppable.connect(
                    host=str(layout.socket_folder),
                    port=port,
                    user=ADMIN_ROLE,
                    dbname=database,
                    application_name="trellis",
                    options=_OPTIONS,
                    sslmode="disable",
                    autocommit=True,
                )
                if connection.info.server_version >= _TRANSACTION_TIMEOUT:
                    await connection.execute("SET transaction_timeout = 0")
        except TimeoutError:
            raise NotInTime(f"PostgreSQL let nobody in within {deadline_s:g} s.") from None
        except psycopg.Error as error:
            raise _told(error, layout) from error
        return cls(connection, layout)

    @property
    def is_closed(self) -> bool:
        return self._connection.closed

    async def query(
        self, text: LiteralString, values: Sequence[object] = (), *, deadline_s: float
    ) -> list[tuple[Any, ...]]:
        """All rows. Fails: `NotInTime`, after which the session is closed; `DiskFull`; `DatabaseFailed`."""
        try:
            async with asyncio.timeout(deadline_s):
                cursor = await self._connection.execute(text, values or None)
                return await cursor.fetchall() if cursor.description is not None else []
        except TimeoutError:
            self.drop()
            words = " ".join(text.split())[:60]
            raise NotInTime(f"PostgreSQL did not answer within {deadline_s:g} s ({words}).") from None
        except psycopg.Error as error:
            raise _told(error, self._layout) from error

    def drop(self) -> None:
        """End it without a word to the server."""
        self._connection.pgconn.finish()

    def encrypted(self, password: str, role: str) -> str:
        """The SCRAM verifier, so that the password itself reaches no log."""
        made = self._connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        return made.decode()


def _told(error: psycopg.Error, layout: Layout) -> TrellisError:
    """psycopg's error as one of ours."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    if error.sqlstate == _DISK_FULL or full_disk.is_said(str(error)):
        return full_disk.full(layout.data)
    failed: DatabaseFailed | DiskFull = DatabaseFailed(
        f"PostgreSQL says: {words[0]}", sqlstate=error.sqlstate or "", said=str(error)[:2_000]
    )
    return failed
