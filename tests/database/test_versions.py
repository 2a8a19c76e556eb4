"""The whole story with the oldest PostgreSQL; `make postgres-versions` tells it with the others too."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sidecar.postgres.engine.binaries import MAJOR_MIN
from tests.harness.addresses import LoopbackNetwork
from tests.harness.database_cluster import (
    SETTINGS,
    DatabaseCluster,
    each_signal,
    settings_with,
    why_not,
)
from tests.harness.host import Host
from tests.harness.inserts import Inserts
from tests.harness.postgres import NAMED, brought
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    """For a backup; the user that PostgreSQL runs as can pass through to it."""
    path = Path(tempfile.mkdtemp(prefix="trl-kept-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def settings_of(major: int) -> str:
    if reason := why_not():
        pytest.skip(reason)
    if NAMED:
        return SETTINGS
    programs, reason = brought(major)
    if programs is None:
        pytest.skip(reason)
    return settings_with(str(programs))


def has_loaded(database: DatabaseCluster, host: Host) -> bool:
    return database.ask(host, "SHOW work_mem") == [("7MB",)]


def test_a_database_of_another_version_lives_through_it_all(folder: Path) -> None:
    """Goal: nothing rests on one version of PostgreSQL.

    Method: made, cloned and declared anew under load; the primary's host dies with WAL that nobody else has
    and comes back, which takes a rewind; a switchover; a backup.
    """
    with DatabaseCluster(LoopbackNetwork(), settings_of(MAJOR_MIN)) as database:
        first = database.wait_whole()
        version = database.ask(first, "SHOW server_version")[0][0]
        print(f"PostgreSQL {version}")
        assert NAMED or version.startswith(f"{MAJOR_MIN}.")
        second, third = database.others(first)
        with Inserts(database, second, third) as inserts:
            declared = first.trellis("db", "declare", "--set", "work_mem=7MB")
            assert declared.returncode == 0, declared.stderr
            for host in database.hosts:
                wait_for(partial(has_loaded, database, host), f"{host.name} has loaded it")
            receivers = database.of_kind(second, "walreceiver") + database.of_kind(third, "walreceiver")
            each_signal(receivers, signal.SIGSTOP)
            database.ask(first, "INSERT INTO entries VALUES ('alone', 1)")
            database.power_off(first)
            primary = database.wait_open(first)
            each_signal(receivers, signal.SIGCONT)
            first.start()
            assert database.wait_whole() is primary
            inserts.wait_progress()
            moved = primary.trellis("db", "switchover", first.name)
            assert moved.returncode == 0, moved.stderr
            assert database.wait_whole() is first
            inserts.wait_progress()
            kept = third.trellis("db", "backup", "--to", str(folder))
            assert kept.returncode == 0, kept.stderr
        inserts.check()
        for host in database.hosts:
            assert database.ask(host, "SELECT FROM entries WHERE client = 'alone'") == [], host.name
        did = [entry.get("does") for entry in first.logged("database")]
        assert "rewind" in did
        assert "clone" not in did[did.index("rewind") :], "the rewind was not enough"
