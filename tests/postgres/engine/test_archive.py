"""WAL that is archived as it is written, and restores to any moment of it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mesh.errors import Conflict, DataDamaged, InvalidRequest
from sidecar.postgres.engine.archive import SLOT, WalArchive, last_number
from sidecar.postgres.engine.backup import BackupProgress, Made, back_up
from sidecar.postgres.engine.backup_store import BackupStore
from sidecar.postgres.engine.process import StopMode
from sidecar.postgres.engine.restore import Until, put_restored_in_place, restore
from sidecar.postgres.model import Lsn, SyncNames
from tests.postgres.engine.conftest import Cluster, Machine, until

pytestmark = pytest.mark.integration


def archive_of(machine: Machine, folder: Path | None) -> WalArchive:
    postgres = machine.postgres
    return WalArchive(
        postgres.archive_tools,
        folder,
        lambda: postgres.control.config,
        lambda: postgres.postmaster.running is not None and postgres.postmaster.status() == "ready",
        look_s=0.5,
    )


@contextlib.asynccontextmanager
async def archiving(*archives: WalArchive) -> AsyncIterator[None]:
    """They run inside it."""
    tasks = [asyncio.create_task(each.run()) for each in archives]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def folder_of(cluster: Cluster) -> Path:
    path = cluster.folder / "wal"
    path.mkdir(exist_ok=True)
    return path


async def back_up_of(cluster: Cluster, machine: Machine) -> Made:
    postgres = machine.postgres
    store = BackupStore(machine.layout, cluster.folder / "backups", machine.host)
    return await back_up(
        postgres.backup_tools, postgres.control.config, machine.upstream, store, on_progress=lambda _: None
    )


async def write(machine: Machine, *numbers: int) -> Lsn:
    """Where the WAL ends after it."""
    async with await machine.client() as client:
        await client.execute("CREATE TABLE IF NOT EXISTS t (n int)")
        for number in numbers:
            await client.execute("INSERT INTO t VALUES (%s)", (number,))
    return (await machine.postgres.control.look()).flushed


async def slot_at(machine: Machine) -> Lsn | None:
    """How far the archive has said to have come; None: nobody receives."""
    slots = {each.name: each for each in await machine.postgres.control.slots()}
    return slots[SLOT].keeps_from if SLOT in slots and slots[SLOT].is_active else None


async def wait_archived(machine: Machine, lsn: Lsn) -> None:
    """The receiver has written up to there."""

    async def is_there() -> bool:
        return any(
            each.name == f"copy for {machine.host}" and each.written >= lsn
            for each in await machine.postgres.control.receivers()
        )

    await until(is_there, f"the archive of {machine.host} has {lsn}", 20.0)


async def restored_rows(cluster: Cluster, made: Made, text: str) -> list[int]:
    """What the third host shows after a restore until *text*; it is empty again afterwards."""
    third = cluster.machines[2]
    postgres = third.postgres
    await restore(
        postgres.backup_tools,
        postgres.files,
        made.path,
        made.backup,
        cluster.folder / "wal",
        Until.parse(text),
        on_progress=lambda _: None,
    )
    put_restored_in_place(third.layout)
    await third.start(as_standby=False)
    await postgres.control.open()
    async with await third.client() as client:
        rows = await (await client.execute("SELECT n FROM t ORDER BY n")).fetchall()
    await postgres.postmaster.stop(StopMode.FAST, deadline_s=30.0)
    third.layout.data.rename(third.layout.root / f"done-{len(list(third.layout.root.iterdir()))}")
    return [int(str(row[0])) for row in rows]


def lsn_text(lsn: Lsn) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


async def test_a_restore_reaches_any_moment_across_a_failover(cluster: Cluster) -> None:
    """Goal: what was committed until a moment is there, and nothing later, also where another host went on
    on another timeline. Method: archive on two hosts, back the standby up, write, promote the
    standby, write; restore to a position, to a moment, and to the end; the new timeline is above all.
    """
    first, second = await cluster.up(2)
    folder = folder_of(cluster)
    archives = archive_of(first, folder), archive_of(second, folder)
    async with archiving(*archives):
        await write(first, 1)
        made = await back_up_of(cluster, second)
        at_two = await write(first, 2)
        moment = datetime.now(UTC)
        await write(first, 3)
        await wait_archived(second, at_two)
        await second.postgres.control.seal()
        await first.postgres.control.set_sync(SyncNames(0, ()))
        at_lost = await write(first, 666)
        await wait_archived(first, at_lost)
        await first.postgres.postmaster.kill_tree(5.0)
        await second.postgres.control.promote(10.0)
        await second.postgres.control.set_sync(SyncNames(0, ()))
        await second.postgres.control.open()
        end = await write(second, 4)
        await wait_archived(second, end)
    assert [each.problem for each in archives if each is archives[1]] == [""]

    assert await restored_rows(cluster, made, lsn_text(at_two)) == [1, 2]
    assert await restored_rows(cluster, made, moment.isoformat()) == [1, 2]
    assert await restored_rows(cluster, made, "") == [1, 2, 3, 4]
    with pytest.raises(Conflict, match="ends before the moment"):
        await restored_rows(cluster, made, (datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert not cluster.machines[2].layout.restored.exists()


async def test_a_restore_that_is_interrupted_anywhere_leaves_nothing_and_can_be_repeated(
    cluster: Cluster,
) -> None:
    """Goal: data are whole or not there. Method: break it off in each of its steps, leave what a crash would
    leave, then restore; with data in place the last step is refused.
    """
    (first,) = await cluster.up(1)
    await write(first, 1)
    made = await back_up_of(cluster, first)
    third = cluster.machines[2]
    seen: list[str] = []

    async def run(stop_at: str) -> None:
        def told(progress: BackupProgress) -> None:
            seen.append(progress.doing)
            if progress.doing.startswith(stop_at):
                task.cancel()

        work = restore(
            third.postgres.backup_tools, third.postgres.files, made.path, made.backup, None, Until(),
            on_progress=told,
        )  # fmt: skip
        task = asyncio.create_task(work)
        await task

    for step in ("copying", "verifying", "replaying", "making it durable"):
        with pytest.raises(asyncio.CancelledError):
            await run(step)
        assert seen[-1].startswith(step)
        assert not third.layout.restored.exists()
        assert not third.layout.data.exists()
    third.layout.make_empty(third.layout.restored)
    (third.layout.restored / "half").write_bytes(b"what a crash leaves")

    await run("never")
    put_restored_in_place(third.layout)
    assert not (third.layout.data / "half").exists()
    assert await third.start(as_standby=False) == "primary"
    third.layout.make_empty(third.layout.restored)
    with pytest.raises(Conflict, match="only where there is none"):
        put_restored_in_place(third.layout)


async def test_a_damaged_backup_is_not_restored(cluster: Cluster) -> None:
    """Goal: rot is found before anything rests on it. Method: flip a byte of a table in the backup."""
    (first,) = await cluster.up(1)
    made = await back_up_of(cluster, first)
    victim = made.path / "data" / "global" / "1262"
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(content)

    with pytest.raises(DataDamaged, match="backup is damaged"):
        await restored_rows(cluster, made, "")
    assert not cluster.machines[2].layout.restored.exists()


async def test_an_archive_that_hangs_or_fails_holds_up_nobody_and_goes_on_without_a_gap(
    cluster: Cluster,
) -> None:
    """Goal: the archive's trouble is told and stays its own. Method: freeze the receiver, then take the
    folder away: commits go on and the problem is named; give it back: it goes on in the same folder.
    """
    (first,) = await cluster.up(1)
    folder = folder_of(cluster)
    archive = archive_of(first, folder)
    async with archiving(archive):
        await wait_archived(first, await write(first, 1))
        for pid in first.postgres.archive_tools._leaf.members():
            os.kill(pid, signal.SIGSTOP)
        await write(first, 2)

        async def is_told() -> str:
            return archive.problem

        assert "hanging disk" in await until(is_told, "the hang is told", 20.0)
        await until(lambda: _not(is_told), "it goes on by itself", 20.0)
        folder.rename(cluster.folder / "away")
        for pid in first.postgres.archive_tools._leaf.members():
            os.kill(pid, signal.SIGKILL)
        assert "not archived" in await until(is_told, "the missing folder is told", 20.0)
        await write(first, 3)
        (cluster.folder / "away").rename(folder)
        await until(lambda: _not(is_told), "it goes on", 30.0)
        await wait_archived(first, await write(first, 4))
    view = await first.postgres.control.look()
    assert last_number(folder / view.system_identifier / first.host) == 1


async def _not(told: Callable[[], Awaitable[str]]) -> bool:
    return not await told()


async def test_wal_that_was_thrown_away_is_a_gap_that_is_told(cluster: Cluster) -> None:
    """Goal: the disk does not fill for an archive, and what it costs is said. Method: no archive runs
    while more is written than a slot may keep; then it begins another folder and says so until a backup.
    """
    (first,) = await cluster.up(1)
    control = first.postgres.control
    small = (("max_slot_wal_keep_size", "16MB"), ("wal_keep_size", "0"))
    await control.reload(replace(control.config, parameters=(*control.config.parameters, *small)))
    folder = folder_of(cluster)
    archive = archive_of(first, folder)
    async with archiving(archive):
        await wait_archived(first, await write(first, 1))
    for number in range(4):
        await write(first, number)
        await control._query("SELECT pg_switch_wal()")
    await control._query("CHECKPOINT")

    async with archiving(archive):

        async def is_told() -> str:
            return archive.problem

        assert "may be missing" in await until(is_told, "the gap is told", 20.0)
        await wait_archived(first, await write(first, 9))
        view = await control.look()
        assert last_number(folder / view.system_identifier / first.host) == 2
        archive.backed_up()
        assert archive.problem == ""


async def test_an_archive_that_is_no_longer_wanted_keeps_no_wal(cluster: Cluster) -> None:
    """Goal: a setting that is taken away does not hold WAL for ever.

    Method: archive, then run without a folder.
    """
    (first,) = await cluster.up(1)
    async with archiving(archive_of(first, folder_of(cluster))):
        await wait_archived(first, await write(first, 1))
    assert SLOT in {each.name for each in await first.postgres.control.slots()}

    async def is_gone() -> bool:
        return SLOT not in {each.name for each in await first.postgres.control.slots()}

    async with archiving(archive_of(first, None)):
        await until(is_gone, "the slot is gone")


def test_moments_that_are_no_moments_are_refused() -> None:
    """Goal: no guess about a time zone. Method: parse texts."""
    for text in ("yesterday", "2026-11-22T07:00:00", "1/2/3"):
        with pytest.raises(InvalidRequest):
            Until.parse(text)
    assert Until.parse("1/A") == Until(lsn=Lsn((1 << 32) + 10))
