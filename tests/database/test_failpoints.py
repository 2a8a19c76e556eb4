"""Sidecars that die at every named place of the database, in failovers, under load."""

import time
from collections.abc import Iterator

import pytest

from mesh.failpoints import FAILPOINTS
from tests.harness.addresses import LoopbackNetwork
from tests.harness.armed import start_armed, strikes
from tests.harness.database_cluster import DatabaseCluster, why_not
from tests.harness.inserts import Inserts
from tests.harness.waiting import let_pass

pytestmark = pytest.mark.integration

AT_BIRTH = "database.before-bootstrap-recorded"
#: Reached when a primary's sidecar sees for itself that its lease is over.
AT_LEASE_LOST = "database.killed"
NAMES = {name for name in FAILPOINTS if name.startswith("database.")} - {AT_BIRTH}
LOOK_S = 0.1
ALL_S = 400.0
FROZEN_S = 2.5


@pytest.fixture(scope="module")
def module_database() -> Iterator[DatabaseCluster]:
    """Whoever made this database died before it was on record."""
    if reason := why_not():
        pytest.skip(reason)
    with DatabaseCluster(LoopbackNetwork(), dies_at=AT_BIRTH) as made:
        yield made


def test_sidecars_may_die_anywhere_in_a_failover(database: DatabaseCluster) -> None:
    """Goal: between no two steps does a death cost an acknowledged row, or let two servers acknowledge.

    Method: whoever starts has every place armed at which nobody has died yet; while the database is
    whole, the primary's sidecar is killed, or frozen for longer than its lease.
    """
    began = time.monotonic()
    killed = 0
    with Inserts(database, *database.hosts) as inserts:
        while pending := NAMES - struck(database):
            assert time.monotonic() - began < ALL_S, f"nobody came to {sorted(pending)}"
            for host in database.hosts:
                if not host.is_running():
                    start_armed(host, *(f"{name}=crash" for name in sorted(pending)))
            primary = database.find_whole()
            if primary is None or not primary.is_running():
                let_pass(LOOK_S)
            elif pending == {AT_LEASE_LOST}:
                primary.freeze()
                let_pass(FROZEN_S)
                primary.thaw()
            else:
                primary.kill()
                killed += 1
        for host in database.hosts:
            if host.is_running():
                host.kill()
            host.start()
        database.wait_whole()
        inserts.wait_progress()
    inserts.check()
    print(f"{len(NAMES)} places in {time.monotonic() - began:.0f} s, {killed} primaries killed")


def struck(database: DatabaseCluster) -> set[str]:
    """Places at which somebody has died."""
    return {name for host in database.hosts for name in strikes(host.log_path)}
