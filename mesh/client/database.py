"""The cluster's database for a service: connections, transactions, and what is certain about them.

`DATABASE_URL` leads to a listener of the service's own host, behind which the
primary changes. What a service may conclude is this, and nothing else:

* `Unavailable`: nothing happened. The connection was not had, or was lost before COMMIT was sent.
* no exception: committed, with as many standbys as the database demands.
* `OutcomeUnknown`: COMMIT was sent and its answer is missing or worthless. Do the same again under the
  same idempotency key (mesh.client.idempotency), which finds out and acts at most once.

Invariant: only connecting is retried. A transaction that has begun is never
begun anew here: its body may have looked at what it read.

Invariant: a wait for standbys that somebody cancelled is not an
acknowledgement. PostgreSQL calls it a success, with a WARNING (the commit is on
one host only and may be lost with it); any WARNING that comes with a COMMIT counts
as such, since its text is in the server's language. Nor is a COMMIT ever cancelled
from here, for that would be such a cancelled wait: it is left, and the connection cut.
So that warnings are heard and COMMIT waits, each connection says so itself: the database,
the role and the URL may say otherwise.

Bound: every wait for the server. One that stands still, with its connections open, answers no
question of the kernel's either way: what is not answered in time is cut.

Source: PostgreSQL, src/backend/replication/syncrep.c, SyncRepWaitForLSN.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import psycopg
import psycopg_pool
import tenacity
from psycopg.rows import DictRow, dict_row

from mesh.client import fences
from mesh.errors import Conflict, OutcomeUnknown, Unavailable

Connection = psycopg.AsyncConnection[DictRow]

#: Attempts to connect are this far apart at most; the primary moves in less than a second.
PAUSE_S_MIN: Final = 0.05
PAUSE_S_MAX: Final = 0.5
#: A COMMIT that takes longer is left: its outcome is unknown.
COMMIT_S_MAX: Final = 10.0
#: The server ends a statement itself; one that is not answered by then is of a server that stands still.
SLACK_S: Final = 1.0
_CONNECT_ARGUMENTS: Final = {
    "connect_timeout": 2,
    # Not to a standby that is about to be promoted, nor to one that was primary: tried again instead.
    "target_session_attrs": "primary",
    # A host that is silent is given up; the server's answers may be as late as its statements are long.
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3000,
}
#: What a lost connection looks like, to whom it matters that nothing was committed.
_LOST: Final = (psycopg.OperationalError, psycopg.InterfaceError)

#: Class of SQLSTATEs by which the server says that it does not understand its own state.
_INTERNAL: Final = "XX"
#: What the server says when it has ended the transaction for sure, also in place of an answer to COMMIT.
_ROLLED_BACK: Final = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.IdleInTransactionSessionTimeout,
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long and how much. All seconds."""

    connections: int = 8
    #: Until a connection to the primary is had, all attempts together.
    connect_s: float = 10.0
    commit_s: float = COMMIT_S_MAX
    statement_s: float = 5.0
    #: Of silence within a transaction: a process that is frozen in one holds its rows no longer.
    idle_s: float = 2.0


class _Patient(psycopg.AsyncConnection[Any]):
    """Connects again and again, soon, for a bounded time; waits for answers for a bounded time.

    The pool's own retries begin a second apart: longer than a failover of the database takes.
    """

    #: Longest wait for an answer; None: somebody else sees to it.
    answer_s: float | None = None

    @classmethod
    async def connect(cls, conninfo: str = "", **arguments: Any) -> Self:
        answer_s = float(arguments.pop("answer_s"))
        async for attempt in connecting(float(arguments.pop("connect_s"))):
            with attempt:
                connection = await super().connect(conninfo, **{**arguments, **_CONNECT_ARGUMENTS})
                connection.answer_s = answer_s
                return connection
        raise AssertionError("tenacity ends by returning or by raising")

    async def wait(self, *given: Any, **named: Any) -> Any:
        """As psycopg's, through which everything goes that is asked of the server.

        Cancellation: psycopg asks the server to cancel, and waits for that; within the same bound.
        """
        if self.answer_s is None:
            return await super().wait(*given, **named)
        cut = asyncio.get_running_loop().call_later(self.answer_s, _cut, self)
        try:
            return await super().wait(*given, **named)
        finally:
            cut.cancel()


def connecting(within_s: float) -> tenacity.AsyncRetrying:
    """Attempts at something that has no effect until it succeeds."""
    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_delay(within_s),
        wait=tenacity.wait_random_exponential(multiplier=PAUSE_S_MIN, max=PAUSE_S_MAX),
        retry=tenacity.retry_if_exception_type((*_LOST, OSError)),
        reraise=True,
    )


class Database:
    """The database at a URL; an asynchronous context. One per process."""

    def __init__(self, url: str, bounds: Bounds | None = None, *, name: str = "", cluster: str = "") -> None:
        """*cluster*: whose fencing terms `guarded` is given (TRELLIS_CLUSTER)."""
        self._url = url
        self._cluster = cluster
        self._bounds = bounds or Bounds()
        self._name = name
        self._pool: psycopg_pool.AsyncConnectionPool[Any] = psycopg_pool.AsyncConnectionPool(
            url,
            connection_class=_Patient,
            kwargs={
                "autocommit": True,  # `transaction` sends BEGIN and COMMIT itself: it must see their answers
                "row_factory": dict_row,
                "application_name": name,
                "connect_s": self._bounds.connect_s,
                "answer_s": self._answer_s,
                "prepare_threshold": None,  # a statement prepared on the old primary is unknown to the new
            },
            configure=self._configure,
            min_size=1,
            max_size=self._bounds.connections,
            timeout=self._bounds.connect_s,
            reconnect_timeout=self._bounds.connect_s,
            open=False,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open(wait=False)  # a service may start before its database
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    @property
    def _answer_s(self) -> float:
        return self._bounds.statement_s + SLACK_S

    async def _configure(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(_ACKNOWLEDGEMENTS)
        for name, seconds in (
            ("statement_timeout", self._bounds.statement_s),
            ("idle_in_transaction_session_timeout", self._bounds.idle_s),
        ):
            milliseconds = str(int(seconds * 1000))
            await connection.execute("SELECT set_config(%s, %s, false)", (name, milliseconds))

    @contextlib.asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """One transaction, committed at the end of the body, rolled back when it raises.

        *snapshot*: read only, and all statements see one moment.

        Fails: `Unavailable`: nothing happened. `OutcomeUnknown`: see above; never of a
        *snapshot*. What the body raises, after a rollback; an error of SQL is a bug.

        Cancellation: before COMMIT nothing happened, later it is unknown what did.
        """
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY" if snapshot else "BEGIN"
        connection = await self._begun(begin)
        try:
            try:
                yield connection
            except psycopg.errors.ReadOnlySqlTransaction as error:  # this was the primary, and is no longer
                await connection.close()
                raise Unavailable(f"The database cannot be written now: {error}") from error
            except (
                *_LOST,
                *_ROLLED_BACK,
            ) as error:  # may be done again
                raise Unavailable(f"The database ended it before anything was changed: {error}") from error
            try:
                await self._commit(connection)
            except OutcomeUnknown as error:
                if snapshot:  # nothing was to be changed
                    raise Unavailable(f"The read was not finished: {error.message}") from error
                raise
        finally:
            await self._give_back(connection)

    async def allow(self, connection: Connection, statement_s: float) -> None:
        """Longer statements, until the end of the transaction."""
        await connection.execute(
            "SELECT set_config('statement_timeout', %s, true)", (str(int(statement_s * 1000)),)
        )
        _patient(connection).answer_s = statement_s + SLACK_S

    @contextlib.asynccontextmanager
    async def guarded(self, name: str, fencing_term: int) -> AsyncIterator[Connection]:
        """A transaction of an owner: refused when a later owner has been here.

        See mesh.client.fences. Fails: `StaleTerm`; else as `transaction`.
        """
        async with self.transaction() as connection:
            await fences.pass_fence(connection, name, fencing_term, self._cluster)
            yield connection

    async def notices(self, channel: str, every_s: float) -> AsyncIterator[None]:
        """Comes each time that something may have been notified on *channel*, without end.

        It comes at first, after each loss of the connection, and *every_s* at the
        latest: whoever looks for news each time misses none.

        Fails: `Unavailable` when no connection is had within the bounds.
        """
        while True:
            with contextlib.suppress(*_LOST):
                async with await self._listening(channel) as connection:
                    yield
                    while not connection.closed:
                        # several notices in one packet are one reason to look
                        async for _ in connection.notifies(timeout=every_s, stop_after=1):
                            pass
                        yield

    # ---- parts of a transaction -------------------------------------------------------

    async def _listening(self, channel: str) -> psycopg.AsyncConnection[Any]:
        try:
            connection = await _Patient.connect(
                self._url,
                autocommit=True,
                application_name=f"{self._name}-notices",
                connect_s=self._bounds.connect_s,
                answer_s=self._answer_s,
            )
            await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        except psycopg.Error as error:
            raise Unavailable(f"The database does not answer: {error}") from error
        connection.answer_s = None  # silence is nothing unusual here
        return connection

    async def _begun(self, begin: str) -> Connection:
        """A connection in a transaction. One that was lost while it was idle is found out here."""
        try:
            async for attempt in connecting(self._bounds.connect_s):
                with attempt:
                    connection: Connection = await self._pool.getconn()
                    try:
                        await connection.execute(begin.encode())
                    except BaseException:
                        await self._give_back(connection)
                        raise
                    return connection
        except (*_LOST, OSError) as error:
            raise Unavailable(f"The database does not answer: {error}") from error
        raise AssertionError("tenacity ends by returning or by raising")

    async def _commit(self, connection: Connection) -> None:
        warnings: list[str] = []
        listen = _collector(warnings)
        connection.add_notice_handler(listen)
        _patient(connection).answer_s = None
        commit = asyncio.ensure_future(connection.execute("COMMIT"))
        try:
            await asyncio.wait({commit}, timeout=self._bounds.commit_s)
        finally:
            if not commit.done():
                _cut(connection)
                await _ended(commit)
            connection.remove_notice_handler(listen)
        _judge(commit, warnings)

    async def _give_back(self, connection: Connection) -> None:
        """To the pool, which rolls back what is open and replaces what is broken."""
        if connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            await connection.close()
        _patient(connection).answer_s = self._answer_s
        await self._pool.putconn(connection)


def _patient(connection: Connection) -> _Patient:
    assert isinstance(connection, _Patient), "the pool makes no others"
    return connection


async def _ended(commit: "asyncio.Future[Any]") -> None:
    """Wait for the end of what was cut, which comes at once; whoever insists is let go after it."""
    insisted: asyncio.CancelledError | None = None
    while not commit.done():
        try:
            await asyncio.wait({commit})
        except asyncio.CancelledError as again:
            insisted = again
    commit.exception()  # whoever was cancelled does not ask for it
    if insisted is not None:
        raise insisted


def _judge(commit: "asyncio.Future[Any]", warnings: list[str]) -> None:
    error = commit.exception()
    if isinstance(error, _ROLLED_BACK):
        raise Unavailable(f"The database rolled it back: {error}") from error
    if _is_refusal(error):
        raise Conflict(f"The database refused the transaction: {error}") from error
    if error is not None:
        raise OutcomeUnknown(
            f"The connection to the database was lost during COMMIT ({error}). Repeat under the same key."
        ) from error
    if warnings:
        raise OutcomeUnknown(f"Committed on one host only, as far as is known: {'; '.join(warnings)}")
    if commit.result().statusmessage != "COMMIT":
        raise Conflict("The transaction had failed before, and nothing was changed.")


def _is_refusal(error: BaseException | None) -> bool:
    """The server has ended the transaction, and knows what it says."""
    if not isinstance(error, psycopg.Error) or error.sqlstate is None or isinstance(error, _LOST):
        return False
    return not error.sqlstate.startswith(_INTERNAL)


#: That warnings come, and that COMMIT waits for standbys; one that waits for even more is left so.
_ACKNOWLEDGEMENTS: Final = """
SELECT set_config('client_min_messages', 'warning', false), set_config('synchronous_commit', CASE
    WHEN current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)
"""


def _collector(warnings: list[str]) -> Callable[[psycopg.errors.Diagnostic], None]:
    def listen(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(f"{notice.sqlstate} {notice.message_primary}")

    return listen


def _cut(connection: Connection) -> None:
    """End the connection under the task that waits on it, without asking the server to cancel."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as found:
        found.shutdown(socket.SHUT_RDWR)
