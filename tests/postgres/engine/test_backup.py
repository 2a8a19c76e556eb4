"""Backups that are verified, stand by themselves, and are never half there."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import DatabaseFailed, InvalidRequest, NotFound
from mesh.ids import ClusterId
from sidecar.postgres.engine.backup import BackupProgress, Made, back_up
from sidecar.postgres.engine.backup_store import Backup, BackupStore, read_backup
from sidecar.postgres.engine.process import StopMode
from sidecar.postgres.model import Lsn, Timeline
from tests.postgres.engine.conftest import Cluster, Machine, until

pytestmark = pytest.mark.integration


def ignore(_progress: BackupProgress) -> None:
    """Nobody looks."""


def store_of(cluster: Cluster, machine: Machine) -> BackupStore:
    return BackupStore(machine.layout, cluster.folder / "backups", machine.host)


async def make(
    cluster: Cluster,
    machine: Machine,
    source: Machine,
    *,
    keep: int = 0,
    kib_per_s: int = 0,
    on_progress: Callable[[BackupProgress], None] = ignore,
) -> Made:
    config, upstream = machine.postgres.control.config, source.upstream
    return await back_up(
        machine.postgres.backup_tools,
        config,
        upstream,
        store_of(cluster, machine),
        keep=keep,
        kib_per_s=kib_per_s,
        on_progress=on_progress,
    )


async def write(machine: Machine, *numbers: int) -> None:
    async with await machine.client() as client:
        await client.execute("CREATE TABLE IF NOT EXISTS t (n int)")
        for number in numbers:
            await client.execute("INSERT INTO t VALUES (%s)", (number,))


async def rows_of_backup(machine: Machine, backup: Path) -> list[int]:
    """What a server shows that is started on nothing but the backup; the machine's own is stopped."""
    postgres = machine.postgres
    await postgres.postmaster.stop(StopMode.FAST, deadline_s=30.0)
    await asyncio.to_thread(os.rename, machine.layout.data, machine.layout.root / "away")
    machine.layout.make_empty(machine.layout.data)
    # A standby's copy says so, and is to be one; by itself it is nobody's.
    await asyncio.to_thread(
        os.system, f"cp -a {backup}/data/. {machine.layout.data}/ && chmod 700 {machine.layout.data}"
    )
    (machine.layout.data / "standby.signal").unlink(missing_ok=True)
    assert await machine.start(as_standby=False) == "primary"
    await postgres.control.open()
    async with await machine.client() as client:
        rows = await (await client.execute("SELECT n FROM t ORDER BY n")).fetchall()
    return [int(str(row[0])) for row in rows]


async def test_a_backup_of_a_standby_starts_by_itself_and_has_what_was_committed(cluster: Cluster) -> None:
    """Goal: one folder is enough. Method: back a streaming standby up through its own certificate, start
    a third host's server on the copy, and compare what is described with what is there.
    """
    first, second = await cluster.up(2)
    await write(first, 1, 2, 3)
    seen: list[BackupProgress] = []

    made = await make(cluster, second, second, on_progress=seen.append)

    third = cluster.machines[2]
    await third.make()
    assert await rows_of_backup(third, made.path) == [1, 2, 3]
    described = read_backup(cluster.folder / "backups")
    assert described == (made.path, made.backup)
    view = await first.postgres.control.look()
    assert made.backup.system_identifier == view.system_identifier
    assert (made.backup.timeline, made.backup.host) == (1, second.host)
    assert 0 < made.backup.start < made.backup.end <= view.flushed
    assert any(each.total_bytes and each.done_bytes == each.total_bytes for each in seen)


async def test_a_backup_that_is_broken_off_leaves_nothing_and_disturbs_nobody(cluster: Cluster) -> None:
    """Goal: no half backup, and the clone of another goes on. Method: cancel a slow backup while a
    program of the other leaf runs; nothing bears a name, no slot and no walsender is left.
    """
    (first,) = await cluster.up(1)
    begun = asyncio.Event()

    def on_progress(progress: BackupProgress) -> None:
        if progress.done_bytes:
            begun.set()

    task = asyncio.create_task(make(cluster, first, first, kib_per_s=256, on_progress=on_progress))
    async with asyncio.timeout(20):
        await begun.wait()
    beside = asyncio.create_task(first.postgres.tools.run("pg_waldump", "--version", deadline_s=10.0))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert "pg_waldump" in await beside
    assert list((cluster.folder / "backups").iterdir()) == []
    assert not first.postgres.backup_tools._leaf.populated()

    async def none_left() -> bool:
        return await first.postgres.control.receivers() == ()

    await until(none_left, "no walsender serves the backup any more")


async def test_older_backups_go_only_after_a_new_one_was_verified(cluster: Cluster) -> None:
    """Goal: a failing backup costs none of those there are, and another cluster's are not touched.
    Method: with two older ones and one of another cluster, let one backup fail, then make one.
    """
    (first,) = await cluster.up(1)
    store, mine = store_of(cluster, first), first.postgres.control.config.cluster_id
    for name, of in (
        ("20200101T000000Z", mine),
        ("20200102T000000Z", mine),
        ("20200103T000000Z", ClusterId("another")),
    ):
        await asyncio.to_thread(store.prepare, name)
        described = Backup(name, of, first.host, "1", Timeline(1), Lsn(1), Lsn(2), "15.1", "", "", 0)
        store.finish(described)
    (store.folder / f".20200104T000000Z.{first.host}.new").mkdir()

    nobody = replace(first, port=first.port + 1)
    with pytest.raises(DatabaseFailed):
        await make(cluster, first, nobody, keep=1)
    assert [each.name for each in store.list_all()] == [
        "20200101T000000Z", "20200102T000000Z", "20200103T000000Z",
    ]  # fmt: skip

    made = await make(cluster, first, first, keep=2)

    assert made.deleted == ("20200101T000000Z",)
    assert [p.name for p in sorted(store.folder.iterdir())] == [
        "20200102T000000Z", "20200103T000000Z", made.backup.name,
    ]  # fmt: skip


def test_a_folder_that_cannot_hold_backups_is_refused_with_the_reason(cluster: Cluster) -> None:
    """Goal: mistakes are named. Method: a relative path, one in the database's folder, one without parent."""
    machine = cluster.machines[0]
    for folder, words in (
        (Path("backups"), "not an absolute path"),
        (machine.layout.data / "x", "lies in the database's own folder"),
        (cluster.folder / "none" / "x", "is not a folder on this host"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            BackupStore(machine.layout, folder, machine.host).prepare("20200101T000000Z")
        assert words in refused.value.problems[0].problem
    with pytest.raises(NotFound):
        read_backup(cluster.folder)
