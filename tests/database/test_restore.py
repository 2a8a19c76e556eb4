"""A cluster is lost with everything; another one goes on from its backup and its archive."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster
from tests.harness.database_cluster import SETTINGS, DatabaseCluster, why_not
from tests.harness.host import Host
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    """For backups and WAL; the user that PostgreSQL runs as can pass through to it."""
    if reason := why_not():
        pytest.skip(reason)
    path = Path(tempfile.mkdtemp(prefix="trl-kept-", dir="/tmp"))
    path.chmod(0o755)
    (path / "wal").mkdir()
    yield path
    shutil.rmtree(path)


def trellis(host: Host, *words: str) -> dict[str, object]:
    done = host.trellis("db", *words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_another_cluster_goes_on_from_a_backup_and_the_archive(folder: Path) -> None:
    """Goal: the loss of every host costs what was not archived, and a wrong DELETE costs nothing.

    Method: archive on all hosts, back up, insert, note the position, delete; end the cluster. In a new one,
    restore to that position on one host and declare: the rows are there on every host, and it goes on through
    a switchover. A restore where a database is declared is refused.
    """
    settings = SETTINGS.replace("[database]\n", f'[database]\narchive_dir = "{folder / "wal"}"\n')
    with DatabaseCluster(LoopbackNetwork(), settings) as first:
        primary = first.wait_whole()
        first.ask(primary, "INSERT INTO entries VALUES ('a', 1)")
        backup = trellis(first.others(primary)[0], "backup", "--to", str(folder / "backups"), "--keep", "2")
        first.ask(primary, "INSERT INTO entries VALUES ('a', 2)")
        position = str(first.ask(primary, "SELECT pg_current_wal_lsn()")[0][0])
        first.ask(primary, "DELETE FROM entries")
        wait_for(lambda: archived(first, primary, position), "the archive has it", 20.0)
        refused = primary.trellis("db", "restore", "--from", str(folder / "backups"))
        assert refused.returncode != 0
        assert "declared" in refused.stderr

    cluster = Cluster(LoopbackNetwork())
    try:
        cluster.directory.chmod(0o755)
        for host in cluster.hosts:
            host.write_settings(SETTINGS)
        cluster.found(services=False)
        restorer = cluster.hosts[1]
        words = ("--until", position, "--archive", str(folder / "wal"))
        made = trellis(restorer, "restore", "--from", str(folder / "backups"), *words)
        assert (made["host"], made["backup"]) == (restorer.name, Path(str(backup["path"])).name)
        trellis(restorer, "declare", "--wait", "--timeout", "60")
        second = DatabaseCluster.over(cluster)
        primary = second.wait_whole()
        status = trellis(restorer, "status")
        assert status["system_identifier"] == backup["system_identifier"] == made["system_identifier"]
        for host in cluster.hosts:
            assert second.ask(host, "SELECT number FROM entries ORDER BY 1") == [(1,), (2,)]
        other = second.others(primary)[0]
        moved = other.trellis("db", "switchover", other.name)
        assert moved.returncode == 0, moved.stderr
        assert second.wait_whole() is other
        second.ask(other, "INSERT INTO entries VALUES ('b', 3)")
    finally:
        cluster.close()


def archived(database: DatabaseCluster, host: Host, position: str) -> bool:
    """The receiver of this host's archive has it."""
    query = "SELECT write_lsn >= %s::pg_lsn FROM pg_stat_replication WHERE application_name ~ '^copy'"
    return database.ask(host, query, position) == [(True,)]
