"""The end of a server: whole trees, frozen ones, strangers, and what is found afterwards."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from typing import LiteralString

import psycopg
import pytest

from mesh.adapters.cgroup import find_hierarchies
from mesh.errors import Conflict, DatabaseFailed, NotInTime
from sidecar.postgres.engine.config import ServerConfig
from sidecar.postgres.engine.connection import Session
from sidecar.postgres.engine.control_data import read_control_data
from sidecar.postgres.engine.hands import EngineHands
from sidecar.postgres.engine.local import LocalPostgres
from sidecar.postgres.engine.process import StopMode, processes_in
from sidecar.postgres.engine.tool import environment
from sidecar.postgres.model import ProcessKind
from sidecar.postgres.port import ServerSettings
from tests.identity.cast import identity
from tests.postgres.engine.conftest import Cluster, Machine, until

pytestmark = pytest.mark.integration


@dataclass
class Writer:
    """A client that commits without a pause."""

    acknowledged: int = 0
    last: float = 0.0
    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, client: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        with contextlib.suppress(psycopg.Error):
            while True:
                await client.execute("INSERT INTO t VALUES (%s)", (self.acknowledged + 1,))
                self.acknowledged += 1
                self.last = time.monotonic()
                self.began.set()


async def with_table(machine: Machine) -> psycopg.AsyncConnection[tuple[object, ...]]:
    client = await machine.client()
    await client.execute("CREATE TABLE IF NOT EXISTS t (n int)")
    return client


@pytest.mark.parametrize("frozen", [False, True])
async def test_nothing_is_committed_after_the_tree_was_seen_to_be_gone(
    cluster: Cluster, frozen: bool
) -> None:
    """Goal: fencing is sure. Method: a busy backend; the tree is killed, also with a frozen postmaster."""
    (first,) = await cluster.up(1)
    postmaster = first.postgres.postmaster
    writer = Writer()
    async with await with_table(first) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run(client))
        await writer.began.wait()
        if frozen:
            postmaster.signal(signal.SIGSTOP)
            before = writer.acknowledged
            await until(lambda: _true(writer.acknowledged > before + 5), "open sessions go on committing")
            with pytest.raises(NotInTime):
                await first.postgres.control.check_new_session(0.3)
        took = await postmaster.kill_tree(5.0)
        gone_at = time.monotonic()
        assert postmaster.is_gone()
    assert processes_in(first.layout.data) == []
    assert writer.last <= gone_at
    print(f"killed and verified in {1000 * took:.1f} ms (frozen: {frozen})")
    await first.start(as_standby=False)
    rows = await first.postgres.control.look()
    assert not rows.is_standby
    await first.postgres.control.open()
    async with await first.client() as client:
        found = await (await client.execute("SELECT count(*), max(n) FROM t")).fetchone()
    assert found in ((writer.acknowledged, writer.acknowledged), (writer.acknowledged + 1,) * 2)


async def _true(value: bool) -> bool:
    return value


async def test_a_backend_that_outlives_its_postmaster_is_seen_and_killed(cluster: Cluster) -> None:
    """Goal: a dead postmaster is not a dead server. Method: kill -9 of it alone while a backend commits."""
    (first,) = await cluster.up(1)
    postmaster = first.postgres.postmaster
    async with await with_table(first) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(commit_in_the_server(client))
        await until(lambda: _true(bool(committing(first))), "a backend commits")
        postmaster.signal(signal.SIGKILL)
        assert await postmaster.wait_end(5.0)
        assert postmaster.running is None
        before = newest_wal(first)
        await until(lambda: _true(newest_wal(first) > before), "the backend goes on")
        assert not postmaster.is_gone()
        with pytest.raises(Conflict):
            first.postgres.start(as_standby=False)
        await postmaster.kill_tree(5.0)
        assert postmaster.is_gone()
    assert await first.start(as_standby=False) == "primary"


async def test_a_note_that_cannot_be_deleted_does_not_hide_that_the_tree_is_gone(cluster: Cluster) -> None:
    """Goal: a primary gives way on a read-only disk, too. Method: a folder where the note was."""
    (first,) = await cluster.up(1)
    note = first.layout.process_note
    note.unlink()
    (note / "in").mkdir(parents=True)
    await first.postgres.postmaster.kill_tree(5.0)
    assert first.postgres.postmaster.is_gone()
    shutil.rmtree(note)


async def commit_in_the_server(client: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """A loop inside a backend: one that waits for its client notices that the postmaster is gone."""
    text = "DO $$ BEGIN LOOP INSERT INTO t VALUES (1); COMMIT; END LOOP; END $$"
    with contextlib.suppress(psycopg.Error):
        await client.execute(text)


def committing(machine: Machine) -> list[int]:
    return [
        pid for pid in processes_in(machine.layout.data) if b"] DO" in _title(pid) or b") DO" in _title(pid)
    ]


def newest_wal(machine: Machine) -> int:
    return max(path.stat().st_mtime_ns for path in (machine.layout.data / "pg_wal").iterdir())


async def test_stopping_tells_how_it_went(cluster: Cluster) -> None:
    """Goal: clean or not is known. Method: fast, immediate, and fast of one that cannot end in time."""
    (first,) = await cluster.up(1)
    postmaster, data = first.postgres.postmaster, first.layout.data
    stopped = await postmaster.stop(StopMode.FAST, deadline_s=10.0)
    assert (stopped.code, stopped.was_killed) == (0, False)
    assert (await read_control_data(data)).is_clean
    await first.start(as_standby=False)
    stopped = await postmaster.stop(StopMode.IMMEDIATE, deadline_s=10.0)
    assert not stopped.was_killed
    found = await read_control_data(data)
    assert (found.state, found.is_clean, found.has_checksums) == ("in production", False, True)
    await first.start(as_standby=False)
    (checkpointer,) = [pid for pid in processes_in(data) if b"checkpointer" in _title(pid)]
    os.kill(checkpointer, signal.SIGSTOP)
    stopped = await postmaster.stop(StopMode.FAST, deadline_s=0.5)
    assert stopped.was_killed
    assert postmaster.is_gone()


async def test_an_archive_command_that_hangs_holds_up_no_end(cluster: Cluster) -> None:
    """Goal: a switchover waits for the server alone. Method: a declared command that never returns, with a
    segment to archive; the server ends cleanly, and in time, and starts again.
    """
    (first, *_) = cluster.machines
    await first.make()
    await first.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    config = first.postgres.control.config
    hanging = (("archive_command", "sleep 987 && false"), ("archive_mode", "on"))
    await first.start(as_standby=False, config=replace(config, parameters=(*config.parameters, *hanging)))
    await first.postgres.control.write_barrier()
    session = await Session.open(first.layout, first.port, deadline_s=2.0)
    await session.query("SELECT pg_switch_wal()", deadline_s=2.0)
    session.drop()

    async def is_archiving() -> bool:
        titles = [_title(pid) for pid in processes_in(first.layout.data)]
        return any(b"archiver archiving" in title for title in titles)

    await until(is_archiving, "the archive command runs")
    stopped = await first.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    assert (stopped.code, stopped.was_killed) == (0, False)
    assert stopped.took_s < 3.0
    assert (await read_control_data(first.layout.data)).is_clean
    assert await first.start(as_standby=False) == "primary"


def _title(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


async def test_a_pid_file_that_names_another_process_does_not_hinder(cluster: Cluster) -> None:
    """Goal: a number given away twice is no server.

    Method: postmaster.pid names a process of the same user.
    """
    (first,) = await cluster.up(1)
    await first.postgres.postmaster.kill_tree(5.0)
    other = subprocess.Popen(["/bin/sleep", "1000"], user=first.layout.uid)
    try:
        path = first.layout.data / "postmaster.pid"
        lines = path.read_text().splitlines() if path.exists() else ["", str(first.layout.data)]
        first.layout.write(path, "\n".join([str(other.pid), *lines[1:], ""]).encode(), mode=0o600, own=True)
        assert await first.start(as_standby=False) == "primary"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_a_server_that_another_started_is_named_and_left_alone(cluster: Cluster) -> None:
    """Goal: never two servers on one directory. Method: a hand starts PostgreSQL there, then we are to."""
    (first,) = await cluster.up(1)
    await first.postgres.postmaster.stop(StopMode.FAST, deadline_s=10.0)
    program = first.postgres.binaries.path("postgres")
    hand = subprocess.Popen(
        [program, "-D", str(first.layout.data)], user=first.layout.uid,
        group=os.stat(first.layout.data).st_gid, env=environment(), cwd="/", stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(lambda: _true(bool(first.postgres.postmaster.strangers())), "it runs")
        with pytest.raises(Conflict, match=f"Process {hand.pid}"):
            first.postgres.start(as_standby=False)
        assert hand.poll() is None
    finally:
        hand.send_signal(signal.SIGINT)
        hand.wait()


async def test_the_next_sidecar_goes_on_with_the_running_server(cluster: Cluster) -> None:
    """Goal: a sidecar's restart costs the database nothing.

    Method: let go, adopt by another object, ask it.
    """
    (first,) = await cluster.up(1)
    before = first.postgres.postmaster.running
    first.postgres.control.close()
    first.postgres.postmaster.let_go()
    hierarchies = find_hierarchies("pg1", str(first.layout.root.parent))
    config = first.postgres.control.config
    first.postgres = LocalPostgres(first.postgres.binaries, first.layout, hierarchies, config)
    assert await first.postgres.recover() == before
    await first.postgres.postmaster.wait_ready(1.0)
    await first.postgres.control.look()
    first.postgres.postmaster.signal(signal.SIGKILL)
    assert await first.postgres.postmaster.wait_end(5.0)


async def test_clients_are_kept_out_until_it_is_opened(cluster: Cluster) -> None:
    """Goal: closed means closed. Method: a client before it is opened, and one after."""
    (first,) = await cluster.up(1)
    control = first.postgres.control
    await control.reload(replace(control.config, is_open=False))
    with pytest.raises(psycopg.OperationalError, match="rejects"):
        await first.client()
    await control.open()
    async with await first.client() as again:
        await again.execute("SELECT 1")


async def test_a_standby_goes_on_receiving_when_the_next_sidecar_adopts_it(cluster: Cluster) -> None:
    """Goal: a sidecar's restart costs no standby its primary.

    Method: let go; the engine of a fresh sidecar adopts it, and tells it its members and parameters.
    """
    first, second = await cluster.up(2)
    config = second.postgres.control.config
    receiver: LiteralString = "SELECT pid FROM pg_stat_wal_receiver"
    before = await second.postgres.control._query(receiver)
    second.postgres.control.close()
    second.postgres.postmaster.let_go()
    fresh = ServerConfig(config.cluster_id, config.host, 1, config.listen, ())
    hierarchies = find_hierarchies("pg2", str(second.layout.root.parent))
    second.postgres = LocalPostgres(second.postgres.binaries, second.layout, hierarchies, fresh)
    shown = identity(second.authority, second.member)[0]
    hands = EngineHands(second.postgres, lambda: shown, lambda: None)
    await hands.recover()
    members = (first.member, second.member)
    await hands.configure(ServerSettings(second.port, members, (*config.parameters, ("work_mem", "8MB"))))
    process = (await hands.look("")).local.process
    assert (process.kind, process.receives_from) == (ProcessKind.STANDBY, first.host)
    now = second.postgres.control.config
    assert (now.upstream, now.port, now.sync) == (first.upstream, second.port, config.sync)
    assert await second.postgres.control._query("SHOW work_mem") == [("8MB",)]
    assert await second.postgres.control._query(receiver) == before != []


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER SYSTEM SET fsync = off",
        "SELECT pg_promote()",
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'trellis_admin'",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_create_physical_replication_slot('mine', true)",
        "SET ROLE trellis_admin",
        "CREATE ROLE another SUPERUSER",
    ],
)
async def test_the_application_has_no_power_over_the_server(cluster: Cluster, statement: str) -> None:
    """Goal: hostile SQL stays harmless. Method: each statement from the application's role is denied."""
    (first,) = await cluster.up(1)
    async with await first.client() as client:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await client.execute(statement.encode())


async def test_a_query_of_a_frozen_backend_ends_with_its_deadline(cluster: Cluster) -> None:
    """Goal: no wait without an end.

    Method: the kept session's backend is stopped; the next query is answered.
    """
    (first,) = await cluster.up(1)
    control = first.postgres.control
    backend = (await control._query("SELECT pg_backend_pid()"))[0][0]
    os.kill(backend, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(NotInTime):
        await control.look(0.3)
    assert time.monotonic() - began < 1.0
    assert not (await control.look()).is_standby
    os.kill(backend, signal.SIGCONT)
    with pytest.raises(DatabaseFailed):
        await control._query("SELECT no_such_thing")
