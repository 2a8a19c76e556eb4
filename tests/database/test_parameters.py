"""Declared parameters of PostgreSQL reach every server, and a bad one reaches no primary."""

import time
from datetime import datetime
from functools import partial

import psycopg
import pytest

from tests.harness.database_cluster import DatabaseCluster
from tests.harness.host import Host
from tests.harness.inserts import Inserts
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


def test_what_comes_into_force_by_a_start_does_so_on_one_host_after_the_other(
    database: DatabaseCluster,
) -> None:
    """Goal: nobody restarts anything by hand, and no standby has less than its primary, which would end its
    replay. Method: max_connections is raised and then lowered under load; who started when tells the order.
    """
    primary = database.wait_whole()
    standbys = database.others(primary)
    with Inserts(database, primary, *standbys) as inserts:
        for value, standbys_first in (("210", True), ("90", False)):
            asked = time.monotonic_ns()
            declare(primary, f"max_connections={value}")
            for host in database.hosts:
                wait_for(partial(has, database, host, "max_connections", value), f"{host.name} has it", 40.0)
            assert database.wait_whole() is primary
            assert not any(health(database, host) for host in database.hosts)
            began = {host.name: started(database, host) for host in database.hosts}
            others = [began[host.name] for host in standbys]
            assert (max(others) < began[primary.name]) is standbys_first, began
            assert (min(others) > began[primary.name]) is not standbys_first, began
            inserts.wait_progress()
            print(f"to {value}: outage {inserts.outage_ms(asked):.0f} ms")
        declare(primary, "max_connections=")
        for host in database.hosts:
            wait_for(partial(has, database, host, "max_connections", "200"), f"{host.name} has it", 40.0)
        database.wait_whole()
    inserts.check()


def has(database: DatabaseCluster, host: Host, name: str, value: str) -> bool:
    """The server is up, and uses this value."""
    try:
        return shown(database, host, name) == value
    except psycopg.OperationalError:
        return False


def started(database: DatabaseCluster, host: Host) -> datetime:
    found = database.ask(host, "SELECT pg_postmaster_start_time()")[0][0]
    assert isinstance(found, datetime)
    return found


def test_a_value_with_which_no_server_starts_gives_way_to_the_last_good_one(
    database: DatabaseCluster,
) -> None:
    """Goal: a mistake that only a start shows costs one standby a start.

    Method: more shared memory than there is; a standby comes up with what worked and says so; the others
    are left alone.
    """
    primary = database.wait_whole()
    first, second = sorted(database.others(primary), key=lambda host: host.name)
    good = shown(database, first, "shared_buffers")
    untouched = {host.name: started(database, host) for host in (primary, second)}
    declare(primary, "shared_buffers=7TB")
    wait_for(lambda: "shared" in health(database, first), "it says with what it did not come up", 30.0)
    assert database.wait_whole() is primary
    wait_for(lambda: f"{first.name} refuses" in health(database, second), "the others wait")
    assert shown(database, first, "shared_buffers") == good
    assert untouched == {host.name: started(database, host) for host in (primary, second)}
    declare(primary, "shared_buffers=")
    wait_for(lambda: not any(health(database, host) for host in database.hosts), "nothing waits any more")
