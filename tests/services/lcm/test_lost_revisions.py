"""Watches over a loss of the database's newest data, on a real PostgreSQL that is set back and promoted."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from mesh.client.database import Bounds, Database
from mesh.client.idempotency import Request
from mesh.client.migrations import migrate
from mesh.errors import OutOfRange
from mesh.ids import ServiceName
from mesh.state.service import ServiceSpec
from services.lcm import decide
from services.lcm.model import DeploymentSpec
from services.lcm.store import MIGRATIONS, Store
from tests.harness.lcm import new_key
from tests.harness.postgres import Postgres, why_not
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One that no other test uses."""
    if reason := why_not():
        pytest.skip(reason)
    with Postgres() as made:
        yield made


async def create(url: str, *names: str) -> list[int]:
    """Their revisions."""
    async with Database(url, Bounds(connections=1)) as database:
        await migrate(database, MIGRATIONS)
        store, found = Store(database), []
        for name in names:
            spec = DeploymentSpec(name, (ServiceSpec(ServiceName("api"), ("/usr/bin/run",)),))
            answer = await store.create(
                Request("", new_key(), "M", b""),
                name,
                lambda row, count, now, spec=spec: decide.create(row, count, spec, now),  # type: ignore[misc]
            )
            found.append(answer.operation.revision)
        return found


async def seen_after(url: str, revision: int) -> list[str]:
    async with Database(url, Bounds(connections=1)) as database:
        changes, _ = await Store(database).changes(revision, "")
        return [each.deployment.name for each in changes]


def promote(server: Postgres) -> None:
    """End it, and have it go on as a standby that is promoted: on another timeline."""
    server.kill()
    (server.data / "standby.signal").touch()
    server.start()
    server.ask("SELECT pg_promote()")
    wait_for(lambda: server.ask("SELECT pg_is_in_recovery()") == [(False,)], "it is promoted")


def copy(source: object, target: object) -> None:
    subprocess.run(["/bin/cp", "-a", str(source), str(target)], check=True)


async def test_whoever_has_seen_what_was_lost_begins_anew(server: Postgres) -> None:
    """Goal: no change is left out after a restore or an accepted loss, whatever number it has. Method: set
    the data back by two changes, promote, write three; resume from a kept, from both lost, and from new
    revisions."""
    url = server.new_database()
    _, kept = await create(url, "a", "b")
    server.kill()
    copy(server.data, server.directory / "kept")
    server.start()
    lost = await create(url, "c", "d")
    server.kill()
    shutil.rmtree(server.data)
    copy(server.directory / "kept", server.data)
    server.start()
    promote(server)
    for revision in lost:
        with pytest.raises(OutOfRange):
            await seen_after(url, revision)
    new = await create(url, "e", "f", "g")
    assert new[0] > lost[-1]
    assert new == list(range(new[0], new[0] + 3))
    for revision in (*lost, new[0] - 1):
        with pytest.raises(OutOfRange):
            await seen_after(url, revision)
    assert await seen_after(url, kept) == ["e", "f", "g"]
    assert await seen_after(url, new[0]) == ["f", "g"]


async def test_a_promotion_without_loss_costs_a_watch_nothing(server: Postgres) -> None:
    """Goal: a failover is no reason to begin anew. Method: promote twice between changes, and resume from
    each."""
    url = server.new_database()
    first = await create(url, "a", "b")
    promote(server)
    assert await seen_after(url, first[-1]) == []
    second = await create(url, "c")
    promote(server)
    third = await create(url, "d")
    assert await seen_after(url, first[0]) == ["b", "c", "d"]
    assert await seen_after(url, first[1]) == ["c", "d"]
    assert await seen_after(url, second[0]) == ["d"]
    assert await seen_after(url, third[0]) == []
    assert third[0] < 1 << 53  # numbers of JSON
