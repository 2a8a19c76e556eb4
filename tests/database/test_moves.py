"""The primary moves in order: asked to, because its host is drained, and because its sidecar ends."""

import signal
import time

import pytest

from sidecar.app.handover import LEAVE_S
from tests.harness.database_cluster import DatabaseCluster, each_signal
from tests.harness.inserts import Inserts
from tests.harness.waiting import let_pass

pytestmark = pytest.mark.integration

LONG_S = LEAVE_S + 1.5


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


def test_a_drained_host_hands_its_primary_over(database: DatabaseCluster) -> None:
    """Goal: a drain moves the primary as a switchover does. Method: drain its host, under load."""
    old = database.wait_whole()
    other = database.others(old)[0]
    before = rewinds(database)
    with Inserts(database, old, other) as inserts:
        began = time.monotonic_ns()
        drained = other.trellis("host", "drain", old.name)
        assert drained.returncode == 0, drained.stderr
        new = database.wait_open(old)
        inserts.wait_progress()
        print(f"drain: outage {inserts.outage_ms(began):.0f} ms")
        resumed = other.trellis("host", "undrain", old.name)
        assert resumed.returncode == 0, resumed.stderr
        assert database.wait_whole() is new
    inserts.check()
    assert rewinds(database) == before


def test_a_sidecar_that_ends_in_order_hands_its_primary_over(database: DatabaseCluster) -> None:
    """Goal: a restart of the sidecar costs a switchover and no failover. Method: SIGTERM, under load."""
    old = database.wait_whole()
    other = database.others(old)[0]
    before = rewinds(database)
    with Inserts(database, old, other) as inserts:
        began = old.terminate()
        assert old.wait_exit() == 0
        assert database.servers(old) == []
        database.wait_open(old)
        inserts.wait_progress(other)
        print(f"orderly end: outage {inserts.outage_ms(began):.0f} ms")
        old.start()
        database.wait_whole()
        inserts.wait_progress()
    inserts.check()
    assert rewinds(database) == before


def test_an_orderly_end_waits_for_a_long_checkpoint(database: DatabaseCluster) -> None:
    """Goal: a busy primary is handed over, too, and serves until it is. Method: its checkpointer stands still
    for longer than an end takes otherwise; SIGTERM to the sidecar, under load."""
    old = database.wait_whole()
    other = database.others(old)[0]
    before = rewinds(database)
    with Inserts(database, old, other) as inserts:
        checkpointer = database.of_kind(old, "checkpointer")
        each_signal(checkpointer, signal.SIGSTOP)
        began = old.terminate()
        try:
            let_pass(LONG_S)
            inserts.wait_progress(within_s=1.0)
            assert database.find_open() is old
        finally:
            each_signal(checkpointer, signal.SIGCONT)
        assert old.wait_exit() == 0
        database.wait_open(old)
        inserts.wait_progress(other)
        print(f"orderly end of a busy primary: outage {inserts.outage_ms(began):.0f} ms")
        old.start()
        database.wait_whole()
        inserts.wait_progress()
    inserts.check()
    assert rewinds(database) == before


def rewinds(database: DatabaseCluster) -> int:
    """How many were begun so far, on any host."""
    did = [entry.get("does") for host in database.hosts for entry in host.logged("database")]
    return sum(does in ("rewind", "clone") for does in did)
