"""A disk without room: what is said, and that it goes on when there is room again."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mesh.errors import DiskFull
from mesh.ids import MemberId
from sidecar.postgres.engine.initdb import make_database
from tests.identity.cast import CLUSTER, authority
from tests.postgres.engine.conftest import installation, make_machine

pytestmark = pytest.mark.integration
PARAMETERS = (("shared_buffers", "16MB"), ("min_wal_size", "32MB"), ("max_wal_size", "1GB"))


@pytest.fixture
def small(folder: Path) -> Iterator[Path]:
    """A disk of 120 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a tmpfs of its own needs root")
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m,mode=755", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_is_told_as_such_and_passes(small: Path, user: str) -> None:
    """Goal: a typed error with the place, and no damage.

    Method: fill pg_wal's disk, start, make room, start.
    """
    machine = make_machine(
        small, installation(user, "found"), user, authority(CLUSTER), 1, (MemberId("host1.1"),)
    )
    machine.postgres.control.config = replace(machine.postgres.control.config, parameters=PARAMETERS)
    postmaster = machine.postgres.postmaster
    try:
        await machine.make()
        await machine.postgres.control.open()
        client = await machine.client()
        await client.execute("CREATE TABLE t (n int, filler text)")
        fill(small, leave=20 << 20)
        with pytest.raises(psycopg.Error):  # the server ends: it cannot write its WAL
            await write_without_end(client)
        if await postmaster.wait_end(5.0):
            assert isinstance(postmaster.explain_end(), DiskFull)
        await postmaster.kill_tree(5.0)
        fill(small, leave=0)
        with pytest.raises(DiskFull, match=r"disk of .* is full"):
            await machine.start(as_standby=False)
        await postmaster.kill_tree(5.0)
        (small / "filler").unlink()
        assert await machine.start(as_standby=False) == "primary"
    finally:
        await machine.end()


async def write_without_end(client: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    while True:
        await client.execute("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n")
        await client.execute("TRUNCATE t")


async def test_a_database_is_not_made_on_a_full_disk(small: Path, user: str) -> None:
    """Goal: nothing half made. Method: initdb with 20 MiB free."""
    machine = make_machine(
        small, installation(user, "found"), user, authority(CLUSTER), 1, (MemberId("host1.1"),)
    )
    fill(small, leave=20 << 20)
    with pytest.raises(DiskFull):
        await make_database(machine.postgres.tools)
    assert not machine.layout.data.exists()
    assert not machine.layout.fresh.exists()


def fill(disk: Path, *, leave: int) -> None:
    """Leave so many bytes free."""
    with open(disk / "filler", "ab") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        if free > leave:
            os.posix_fallocate(file.fileno(), file.tell(), free - leave)
