"""The roles and the database that every cluster has, made once on the primary and replicated."""

from typing import Final, LiteralString

from sidecar.postgres.engine.connection import Session
from sidecar.postgres.engine.layout import Layout

_ROLES_S: Final = 30.0
#: Source: pg_rewind(1), section Notes, for the functions.
_STATEMENTS: Final[tuple[LiteralString, ...]] = (
    "CREATE ROLE trellis_replication LOGIN REPLICATION",
    "CREATE ROLE trellis_rewind LOGIN",
    "CREATE ROLE trellis_app LOGIN",
)
_GRANTS: Final[tuple[LiteralString, ...]] = (
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO trellis_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO trellis_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO trellis_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)"
    " TO trellis_rewind",
    "REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC",
    "GRANT CONNECT ON DATABASE postgres TO trellis_rewind",
)
#: There pg_rewind collects in a table of its own what it is to fetch.
_GRANTS_13: Final[tuple[LiteralString, ...]] = ("GRANT TEMPORARY ON DATABASE postgres TO trellis_rewind",)
_IS_BEFORE_14: Final[LiteralString] = "SELECT current_setting('server_version_num')::int < 140000"


async def make_roles(layout: Layout, port: int, *, deadline_s: float = _ROLES_S) -> None:
    """Make what is missing of them; repeatable. Only on a primary.

    Fails: `DatabaseFailed`, `DiskFull`, `NotInTime`; then repeat it.
    """
    session = await Session.open(layout, port, deadline_s=deadline_s)
    try:
        rows = await session.query("SELECT rolname FROM pg_roles", deadline_s=deadline_s)
        present = {row[0] for row in rows}
        for statement in _STATEMENTS:
            if statement.split()[2] not in present:
                await session.query(statement, deadline_s=deadline_s)
        version = await session.query(_IS_BEFORE_14, deadline_s=deadline_s)
        for grant in (*_GRANTS, *(_GRANTS_13 if version[0][0] else ())):
            await session.query(grant, deadline_s=deadline_s)
        is_there: LiteralString = "SELECT FROM pg_database WHERE datname = 'trellis'"
        if not await session.query("SELECT 1 WHERE EXISTS (" + is_there + ")", deadline_s=deadline_s):
            create: LiteralString = "CREATE DATABASE trellis OWNER trellis_app"
            await session.query(create, deadline_s=deadline_s)
    finally:
        session.drop()


async def set_password(
    layout: Layout, port: int, role: str, password: str, *, deadline_s: float = 5.0
) -> None:
    """Give an application's role its password; the server and its log see the verifier only."""
    session = await Session.open(layout, port, deadline_s=deadline_s)
    try:
        verifier = session.encrypted(password, role)
        # ALTER ROLE takes no values: the server quotes its own names and texts.
        made: LiteralString = "SELECT format('ALTER ROLE %%I PASSWORD %%L', %s::text, %s::text)"
        rows = await session.query(made, (role, verifier), deadline_s=deadline_s)
        await session.query(rows[0][0], deadline_s=deadline_s)
    finally:
        session.drop()
