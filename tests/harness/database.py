"""Fixtures of tests that need PostgreSQL, and waiting within a loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from tests.harness.postgres import Postgres, why_not
from tests.harness.waiting import POLL_S, NotInTimeError

Seen = TypeVar("Seen")


@pytest.fixture(scope="session")
def session_postgres() -> Iterator[Postgres]:
    """One server for all tests; each uses a database of its own."""
    if reason := why_not():
        pytest.skip(reason)
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres(session_postgres: Postgres) -> Iterator[Postgres]:
    """The server; what a test demanded of it is taken back."""
    yield session_postgres
    session_postgres.demand_standbys("")


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Of an empty database."""
    return postgres.new_database()


async def wait_until(look: Callable[[], Seen], within_s: float = 10.0) -> Seen:
    """As `wait_for`, leaving the loop to others meanwhile."""
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise NotInTimeError(f"not within {within_s:g} s (seen last: {seen!r})")
        await asyncio.sleep(POLL_S)
    return seen


async def wait_until_async(look: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    """As `wait_until`, for what has to be awaited."""
    deadline = time.monotonic() + within_s
    while not await look():
        if time.monotonic() > deadline:
            raise NotInTimeError(f"not within {within_s:g} s")
        await asyncio.sleep(POLL_S)
