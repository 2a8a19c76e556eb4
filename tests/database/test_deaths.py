"""What dies on the primary's host: all of it, its sidecar, its postmaster, one backend; and moves in order.

Clients insert through the listeners of two hosts meanwhile. Whatever was acknowledged is
there once, on every host, and no server acknowledges after another has begun to.
"""

import time

import pytest

from tests.harness.database_cluster import DatabaseCluster
from tests.harness.inserts import Inserts

pytestmark = pytest.mark.integration


def test_the_primarys_whole_host_dies(database: DatabaseCluster) -> None:
    """Goal: another host takes writes with every acknowledged row; the dead one comes back as standby."""
    old = database.wait_whole()
    other = database.others(old)[0]
    with Inserts(database, old, other) as inserts:
        died = time.monotonic_ns()
        database.power_off(old)
        new = database.wait_open(old)
        inserts.wait_progress(other)
        outage_ms = inserts.outage_ms(died)
        old.start()
        assert database.wait_whole() is new
        inserts.wait_progress()
    inserts.check()
    print(f"outage {outage_ms:.0f} ms")


def test_the_primarys_sidecar_dies(database: DatabaseCluster) -> None:
    """Goal: the fence ends its PostgreSQL before another host acts. Method: SIGKILL to the sidecar alone."""
    old = database.wait_whole()
    other = database.others(old)[0]
    with Inserts(database, old, other) as inserts:
        died = old.kill()
        new = database.wait_open(old)
        assert database.servers(old) == []
        inserts.wait_progress(other)
        outage_ms = inserts.outage_ms(died)
        old.start()
        assert database.wait_whole() is new
        inserts.wait_progress()
    inserts.check()
    print(f"outage {outage_ms:.0f} ms")


def test_a_switchover_under_load_and_back(database: DatabaseCluster) -> None:
    """Goal: a move in order loses nothing and needs no rewind. Method: to another host, and back."""
    first = database.wait_whole()
    second, third = database.others(first)
    before = rewinds(database)
    with Inserts(database, first, third) as inserts:
        for old, new in ((first, second), (second, first)):
            began = time.monotonic_ns()
            moved = third.trellis("db", "switchover", new.name)
            assert moved.returncode == 0, moved.stderr
            inserts.wait_progress()
            assert database.wait_whole() is new
            print(f"{old.name} to {new.name}: outage {inserts.outage_ms(began):.0f} ms")
    inserts.check()
    assert rewinds(database) == before


def rewinds(database: DatabaseCluster) -> int:
    """How many were begun so far, on any host."""
    did = [entry.get("does") for host in database.hosts for entry in host.logged("database")]
    return sum(does in ("rewind", "clone") for does in did)
