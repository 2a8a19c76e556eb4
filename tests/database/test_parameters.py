"""Declared parameters of PostgreSQL reach every server, and a bad one reaches no primary."""

import pytest

from tests.harness.database_cluster import DatabaseCluster
from tests.harness.host import Host
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


def declare(host: Host, *settings: str) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    done = host.trellis("db", "declare", *words)
    assert done.returncode == 0, done.stderr


def shown(database: DatabaseCluster, host: Host, name: str) -> str:
    return str(database.ask(host, "SELECT current_setting(%s)", name)[0][0])


def health(database: DatabaseCluster, host: Host) -> str:
    status = database.status(host)
    rows = [row for row in status.members if row.host == host.name] if status is not None else []
    return rows[0].status.health if rows else ""


def test_a_parameter_reaches_every_server_without_a_restart(database: DatabaseCluster) -> None:
    """Goal: one declaration, one database. Method: a harmless parameter; servers keep their start time."""
    began = {host.name: database.ask(host, "SELECT pg_postmaster_start_time()") for host in database.hosts}
    declare(database.hosts[0], "work_mem=7MB")
    wait_for(
        lambda: {shown(database, host, "work_mem") for host in database.hosts} == {"7MB"},
        "all have loaded it",
    )
    assert began == {
        host.name: database.ask(host, "SELECT pg_postmaster_start_time()") for host in database.hosts
    }


def test_what_a_standby_refuses_never_reaches_the_primary(database: DatabaseCluster) -> None:
    """Goal: a wrong value costs nothing. Method: a value that PostgreSQL refuses, then it is taken away."""
    primary = database.wait_whole()
    standby = database.others(primary)[0]
    before = {host.name: shown(database, host, "work_mem") for host in database.hosts}
    declare(primary, "work_mem=nonsense")
    wait_for(lambda: "work_mem" in health(database, standby), "the standby says what it refuses")
    assert health(database, primary) == "", "the primary was not asked"
    assert before == {host.name: shown(database, host, "work_mem") for host in database.hosts}
    declare(primary, "work_mem=8MB")
    wait_for(lambda: {shown(database, host, "work_mem") for host in database.hosts} == {"8MB"}, "all have it")
    wait_for(lambda: not health(database, standby), "nothing is wrong any more")


def test_a_value_with_which_no_server_starts_gives_way_to_the_last_good_one(
    database: DatabaseCluster,
) -> None:
    """Goal: a mistake that only a start shows is survived. Method: more shared memory than there is; a
    standby is started anew: it comes up with what worked."""
    primary = database.wait_whole()
    standby = database.others(primary)[0]
    good = shown(database, standby, "shared_buffers")
    declare(primary, "shared_buffers=7TB")
    wait_for(lambda: "next start" in health(database, standby), "it waits for a start")
    standby.terminate()
    standby.wait_exit()
    standby.start()
    assert database.wait_whole() is primary
    assert shown(database, standby, "shared_buffers") == good
    declare(primary, "shared_buffers=")
    wait_for(lambda: not health(database, primary), "nothing waits any more")
