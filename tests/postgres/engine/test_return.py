"""A former primary and a broken copy come back: rewind, clone, and what interrupts them."""

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import CannotRewind, Conflict, DatabaseFailed, DataDamaged, NotInTime
from sidecar.postgres.engine.clone import clone
from sidecar.postgres.engine.config import APP_DATABASE
from sidecar.postgres.engine.connection import Session
from sidecar.postgres.engine.control_data import ControlData, read_control_data, read_shutdown_end
from sidecar.postgres.engine.local_data import LEFT_OUT, Standing, read_local_data
from sidecar.postgres.engine.looking import Eyes
from sidecar.postgres.engine.process import StopMode
from sidecar.postgres.engine.rewind import Rewound, rewind
from sidecar.postgres.model import NO_LSN, DataKind, ProcessKind, SyncNames, parse_lsn
from tests.harness.postgres import NAMED
from tests.postgres.engine.conftest import Cluster, Machine, until

pytestmark = pytest.mark.integration


async def write(machine: Machine, number: int) -> None:
    async with await machine.client() as client:
        await client.execute("CREATE TABLE IF NOT EXISTS t (n int)")
        await client.execute("INSERT INTO t VALUES (%s)", (number,))


async def read(machine: Machine) -> list[int]:
    text = "SELECT n FROM t ORDER BY n"
    async with await machine.client() as client:
        return [int(str(row[0])) for row in await (await client.execute(text)).fetchall()]


async def diverge(cluster: Cluster) -> tuple[Machine, Machine, str]:
    """The first has a commit that the second, promoted since, never got. The first is dead."""
    first, second = await cluster.up(2)
    await write(first, 1)
    await second.postgres.control.seal()
    await first.postgres.control.set_sync(SyncNames(0, ()))
    await write(first, 666)
    await first.postgres.postmaster.kill_tree(5.0)
    assert not (await read_local_data(first.layout)).is_clean
    view = await second.postgres.control.promote(10.0)
    await second.postgres.control.open()
    await write(second, 2)
    return first, second, view.system_identifier


async def wind_back(machine: Machine, source: Machine, system_identifier: str) -> Rewound:
    postgres = machine.postgres
    config = replace(postgres.control.config, sync=SyncNames(0, ()))
    return await rewind(postgres.tools, postgres.files, config, source.upstream, system_identifier)


async def follow(machine: Machine, source: Machine) -> None:
    config = replace(machine.postgres.control.config, upstream=source.upstream, sync=SyncNames(0, ()))
    assert await machine.start(as_standby=True, config=config) == "standby"
    await machine.postgres.control.wait_streaming(10.0)


async def test_a_diverged_former_primary_is_rewound_and_streams(cluster: Cluster) -> None:
    """Goal: it rejoins without a copy, and its own commit is gone.

    Method: diverge, rewind, follow, switch back.
    """
    first, second, identifier = await diverge(cluster)
    if first.postgres.binaries.major < 16:  # later ones look at more than the control file
        with pytest.raises(Conflict, match="no checkpoint"):
            await wind_back(first, second, identifier)
    await second.postgres.control.checkpoint(30.0)
    began = time.monotonic()
    assert await wind_back(first, second, identifier) is Rewound.DONE
    print(f"rewound in {time.monotonic() - began:.2f} s")
    await follow(first, second)
    await second.postgres.control.set_sync(SyncNames(1, (first.host,)))
    await write(second, 3)
    await second.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    await first.postgres.control.seal()
    assert (await first.postgres.control.promote(10.0)).timeline == 3
    await first.postgres.control.open()
    assert await read(first) == [1, 2, 3]


async def test_a_rewound_standby_that_lacks_wal_says_whom_it_waits_for(cluster: Cluster) -> None:
    """Goal: it can be told another primary, and is never rewound with pages that are newer than its WAL.

    Method: rewound, its newest segment is taken away, and the source is dead; then the source is back.
    """
    first, second, identifier = await diverge(cluster)
    await second.postgres.control.checkpoint(30.0)
    await second.postgres.control._query("SELECT pg_switch_wal()")
    await write(second, 3)
    assert await wind_back(first, second, identifier) is Rewound.DONE
    max(path for path in (first.layout.data / "pg_wal").iterdir() if len(path.name) == 24).unlink()
    await second.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    assert "not become consistent" in (await read_local_data(first.layout)).rewind_refused
    with pytest.raises(CannotRewind, match="not become consistent"):
        await wind_back(first, second, identifier)
    config = replace(first.postgres.control.config, upstream=second.upstream, sync=SyncNames(0, ()))
    first.postgres.start(as_standby=True, config=config)
    eyes = Eyes(first.postgres, Standing(first.layout))
    with pytest.raises(NotInTime):
        await first.postgres.postmaster.wait_ready(1.0)
    process = (await eyes.look(identifier, "")).local.process
    assert (process.as_standby, process.told) == (True, (second.host, second.upstream.place))
    await second.start(as_standby=False)
    await first.postgres.postmaster.wait_ready(10.0)
    assert (await eyes.look(identifier, "")).local.process.kind is ProcessKind.STANDBY
    await first.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    assert (await read_local_data(first.layout)).rewind_refused == ""


async def test_a_former_primary_that_was_promoted_itself_is_rewound_to_the_next_one(cluster: Cluster) -> None:
    """Goal: what is rewound becomes consistent. Method: the former primary was itself promoted, on a timeline
    that the next one never had, and that one has not written a checkpoint since its own promotion.
    """
    first, second, third = await cluster.up(3)
    identifier = (await first.postgres.control.look()).system_identifier
    await write(first, 1)
    for standby in (second, third):
        await standby.postgres.control.seal()
    await first.postgres.postmaster.kill_tree(5.0)
    await second.postgres.control.set_sync(SyncNames(0, ()))
    assert (await second.postgres.control.promote(10.0)).timeline == 2
    await second.postgres.control.open()
    await write(second, 666)
    await second.postgres.control.checkpoint(30.0)
    await second.postgres.postmaster.kill_tree(5.0)
    left_out = third.layout.data / "pg_wal" / "00000002.history"
    third.layout.write(left_out, LEFT_OUT, mode=0o600, own=True)
    await third.postgres.control.set_sync(SyncNames(0, ()))
    assert (await third.postgres.control.promote(10.0)).timeline == 3
    await third.postgres.control.open()
    await write(third, 2)
    if second.postgres.binaries.major < 16:
        with pytest.raises(Conflict, match="no checkpoint"):
            await wind_back(second, third, identifier)
    await third.postgres.control.checkpoint(30.0)
    assert await wind_back(second, third, identifier) is Rewound.DONE
    await follow(second, third)
    session = await Session.open(second.layout, second.port, deadline_s=2.0, database=APP_DATABASE)
    assert await session.query("SELECT n FROM t ORDER BY n", deadline_s=2.0) == [(1,), (2,)]
    session.drop()


async def test_after_a_clean_end_no_rewind_is_needed(cluster: Cluster) -> None:
    """Goal: a switchover needs no rewind.

    Method: fast stop, the successor has all, promote, ask for a rewind.
    """
    first, second = await cluster.up(2)
    await write(first, 1)
    identifier = (await first.postgres.control.look()).system_identifier
    stopped = await first.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    assert stopped.code == 0
    ended = await read_control_data(first.layout.data)
    view = await second.postgres.control.seal()
    assert view.flushed > ended.checkpoint
    local = await read_local_data(first.layout)
    assert (local.kind, local.was_primary, local.is_clean) == (DataKind.PRESENT, True, True)
    assert local.end == view.flushed  # so nothing is missing there
    await second.postgres.control.promote(10.0)
    await second.postgres.control.checkpoint(30.0)
    assert await wind_back(first, second, identifier) is Rewound.NOT_NEEDED
    await follow(first, second)


async def test_a_rewind_that_is_refused_or_interrupted_says_so(cluster: Cluster) -> None:
    """Goal: a half-rewound copy is never started.

    Method: another database, a dead source, and a kill in the middle.
    """
    first, second, identifier = await diverge(cluster)
    with pytest.raises(CannotRewind, match="another database"):
        await wind_back(first, second, "1")
    gone = replace(second, port=1)
    with pytest.raises(Conflict, match="Nothing was rewound"):
        await wind_back(first, gone, identifier)
    assert not first.layout.is_partial
    await second.postgres.control.checkpoint(30.0)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(wind_back(first, second, identifier))
        await until(lambda: _true(first.layout.rewind_note.exists()), "it is under way")
        task.cancel()
    assert bool(first.layout.is_partial)
    assert (await read_local_data(first.layout)).kind is DataKind.PARTIAL
    with pytest.raises(Conflict, match="not a whole database"):
        first.postgres.start(as_standby=True)
    with pytest.raises(CannotRewind):
        await wind_back(first, second, identifier)
    await second.postgres.control.set_slots((first.host,))
    await first.clone_of(second)
    assert not first.layout.is_partial
    assert first.layout.former.is_dir()
    first.layout.drop_former()


async def _true(value: bool) -> bool:
    return value


async def test_an_interrupted_clone_leaves_nothing_that_could_be_started(cluster: Cluster) -> None:
    """Goal: never a half copy.

    Method: cancel it while it writes; then kill the process that runs one; clone anew.
    """
    first, second, _ = cluster.machines
    await cluster.up(1)
    postgres, layout = second.postgres, second.layout
    config = postgres.control.config
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(clone(postgres.tools, postgres.files, config, first.upstream))
        await until(lambda: _true((layout.fresh / "base").is_dir()), "it writes")
        task.cancel()
    assert not layout.fresh.exists()
    assert not layout.clone_note.exists()
    # As a sidecar leaves it that dies in the middle.
    layout.note(layout.clone_note, complete=False, source=first.host)
    layout.make_empty(layout.fresh)
    (layout.fresh / "PG_VERSION").write_text("15\n")
    assert layout.is_partial
    with pytest.raises(Conflict):
        layout.put_in_place()
    with pytest.raises(Conflict):
        postgres.start(as_standby=True)
    await postgres.recover()
    await second.clone_of(first)


CLONING = """
import asyncio, pickle, sys
from sidecar.postgres.engine.clone import clone
from sidecar.postgres.engine.local import LocalPostgres
from mesh.adapters.cgroup import find_hierarchies
binaries, layout, config, upstream, name, folder = pickle.load(sys.stdin.buffer)
postgres = LocalPostgres(binaries, layout, find_hierarchies(name, folder), config)
asyncio.run(clone(postgres.tools, postgres.files, config, upstream))
"""


async def test_the_program_that_clones_dies_with_the_sidecar(cluster: Cluster) -> None:
    """Goal: nobody writes into a directory that is cleared.

    Method: kill -9 of a process in a clone that hangs.
    """
    first, second, _ = cluster.machines
    await cluster.up(1)
    postgres, layout = second.postgres, second.layout
    folder = str(layout.root.parent)
    given = (postgres.binaries, layout, postgres.control.config, first.upstream, "pg2", folder)
    sidecar = subprocess.Popen([sys.executable, "-c", CLONING], stdin=subprocess.PIPE)
    try:
        assert sidecar.stdin is not None
        sidecar.stdin.write(pickle.dumps(given))
        sidecar.stdin.close()
        await until(lambda: _true(bool(copying(layout.fresh))), "pg_basebackup runs")
        os.kill(copying(layout.fresh)[0], signal.SIGSTOP)  # so that it does not come to its end first
    finally:
        sidecar.kill()
        sidecar.wait()
    await until(lambda: _true(not copying(layout.fresh)), "it dies too")
    assert layout.is_partial
    assert await postgres.recover() is None
    with pytest.raises(Conflict, match="clone this host first"):
        postgres.start(as_standby=True)
    await second.clone_of(first)


def copying(fresh: Path) -> list[int]:
    """Processes of pg_basebackup that write into *fresh*."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            if words[:1] and words[0].endswith(b"/pg_basebackup") and str(fresh).encode() in words:
                found.append(int(entry.name))
    return found


async def test_a_clone_that_fails_leaves_the_old_copy_as_it_was(cluster: Cluster) -> None:
    """Goal: nothing is deleted before a better copy is there.

    Method: the source is dead, then not ours, then idle.
    """
    first, second = await cluster.up(2)
    await second.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    postgres = second.postgres
    dead = replace(first.upstream, port=1)
    with pytest.raises(DatabaseFailed, match="cannot be copied from host1"):
        await clone(postgres.tools, postgres.files, postgres.control.config, dead)
    wrong = replace(first.upstream, host=cluster.names[2])
    with pytest.raises(DatabaseFailed, match="does not match host name"):
        await clone(postgres.tools, postgres.files, postgres.control.config, wrong)
    first.postgres.postmaster.signal(signal.SIGSTOP)
    with pytest.raises(NotInTime):
        await clone(postgres.tools, postgres.files, postgres.control.config, first.upstream, deadline_s=0.5)
    first.postgres.postmaster.signal(signal.SIGCONT)
    assert not second.layout.is_partial
    with pytest.raises(Conflict, match="is a standby's"):
        postgres.start(as_standby=False)
    assert await second.start(as_standby=True) == "standby"
    await postgres.control.wait_streaming(10.0)


@pytest.mark.parametrize("cluster", ["found"] if NAMED else ["13", "found", "wheel"], indirect=True)
async def test_the_control_file_says_what_pg_controldata_says(cluster: Cluster) -> None:
    """Goal: the fields are read as PostgreSQL means them.

    Method: killed, then ended cleanly; every field beside the tool's; then the shutdown checkpoint damaged.
    """
    (first,) = await cluster.up(1)
    postmaster, data = first.postgres.postmaster, first.layout.data
    await postmaster.stop(StopMode.IMMEDIATE, deadline_s=10.0)
    assert_as_told(first, await read_control_data(data))
    assert (await read_local_data(first.layout)).end == NO_LSN
    await first.start(as_standby=False)
    await postmaster.stop(StopMode.FAST, deadline_s=10.0)
    found = await read_control_data(data)
    assert_as_told(first, found)
    end = await read_shutdown_end(data, found)
    assert found.checkpoint < end == (await read_local_data(first.layout)).end
    number = found.checkpoint // found.segment_bytes
    segment = data / "pg_wal" / f"{found.checkpoint_timeline:08X}{0:08X}{number:08X}"
    content = bytearray(segment.read_bytes())
    content[found.checkpoint % found.segment_bytes + 40] ^= 1
    segment.write_bytes(content)
    with pytest.raises(DataDamaged, match="checksum is wrong"):
        await read_shutdown_end(data, found)
    segment.unlink()
    assert "cannot be read" in (await read_local_data(first.layout)).damaged


def assert_as_told(machine: Machine, found: ControlData) -> None:
    program = machine.postgres.binaries.path("pg_controldata")
    said = subprocess.run([program, "-D", machine.layout.data], capture_output=True, text=True, check=True)
    rows = {
        name: value.strip() for name, _, value in (line.partition(":") for line in said.stdout.splitlines())
    }
    assert found.system_identifier == rows["Database system identifier"]
    assert found.state == rows["Database cluster state"]
    least = {name: str(value) for name, value in found.least}
    assert least == {
        "max_connections": rows["max_connections setting"],
        "max_locks_per_transaction": rows["max_locks_per_xact setting"],
        "max_prepared_transactions": rows["max_prepared_xacts setting"],
        "max_worker_processes": rows["max_worker_processes setting"],
    }
    assert found.checkpoint == parse_lsn(rows["Latest checkpoint location"])
    assert str(found.checkpoint_timeline) == rows["Latest checkpoint's TimeLineID"]
    assert found.min_recovery == parse_lsn(rows["Minimum recovery ending location"])
    assert str(found.min_recovery_timeline) == rows["Min recovery ending loc's timeline"]
    assert found.has_checksums == (rows["Data page checksum version"] != "0")
    assert found.has_hint_log == (rows["wal_log_hints setting"] == "on")
    assert str(found.segment_bytes) == rows["Bytes per WAL segment"]


async def test_a_damaged_control_file_is_told(cluster: Cluster) -> None:
    """Goal: a damaged copy never leads.

    Method: one byte of pg_control turned; then none; then no data at all.
    """
    (first,) = await cluster.up(1)
    await first.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    path = first.layout.data / "global" / "pg_control"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match="does not verify"):
        await read_control_data(first.layout.data)
    first.postgres.start(as_standby=False)
    with pytest.raises(DataDamaged):
        await first.postgres.postmaster.wait_ready(10.0)
    path.unlink()
    with pytest.raises(DataDamaged):
        await read_control_data(first.layout.data)
