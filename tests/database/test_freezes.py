"""What stands still on the primary's host, by SIGSTOP: sidecar, postmaster, a backend, all of PostgreSQL."""

import os
import signal
import time

import pytest

from tests.harness.database_cluster import DatabaseCluster, each_signal
from tests.harness.host import start_ticks
from tests.harness.inserts import ENDED_S, Inserts, Standstill
from tests.harness.waiting import let_pass, wait_for

pytestmark = pytest.mark.integration

FROZEN_S = 4.0


def test_a_frozen_sidecars_primary_is_ended_before_another_acts(database: DatabaseCluster) -> None:
    """Goal: what a frozen sidecar cannot end, its fence ends; woken, the host follows the new primary.

    Method: one client's commits wait for no standby, so that only the end of its server stops them.
    """
    old = database.wait_whole()
    other = database.others(old)[0]
    with Inserts(database, old, other, local=[old]) as inserts:
        frozen = old.freeze()
        new = database.wait_open(old)
        assert database.servers(old) == []
        inserts.wait_progress(other)
        outage_ms = inserts.outage_ms(frozen)
        let_pass(max(0.0, FROZEN_S - (time.monotonic_ns() - frozen) / 1e9))
        old.thaw()
        assert database.wait_whole() is new
        inserts.wait_progress()
    inserts.check()
    print(f"outage {outage_ms:.0f} ms")


def test_a_host_that_stood_still_whole_acknowledges_nothing_more(database: DatabaseCluster) -> None:
    """Goal: where nobody is left to fence, only commits that wait for standbys protect, and they do.

    Method: every process of the primary's host stands still for longer than its lease, with sessions in
    the midst of committing, and goes on when another host is primary: no row begun since is acknowledged
    there, the server it had is ended, and the host follows. One session's commits wait for nobody; what
    it is told counts from when that server must have ended.
    """
    old = database.wait_whole()
    other = database.others(old)[0]
    before = database.servers(old)
    with Inserts(database, old, other, local=[old]) as inserts:
        stopped = database.freeze_whole(old)
        frozen = time.monotonic_ns()
        try:
            new = database.wait_open(old)
            inserts.wait_progress(other)
            outage_ms = inserts.outage_ms(frozen)
            assert inserts.of(old).trouble(frozen), "its sessions stood still with it"
            assert set(before) & set(database.servers(old))
        finally:
            thawed = time.monotonic_ns()
            each_signal(stopped, signal.SIGCONT)
        inserts.standstills.append(Standstill(old, frozen, thawed))
        wait_for(lambda: not set(before) & set(database.servers(old)), "the server it had is ended", ENDED_S)
        took_ms = (time.monotonic_ns() - thawed) / 1e6
        assert database.wait_whole() is new
        inserts.wait_progress()
    inserts.check()
    print(f"outage {outage_ms:.0f} ms; its server had ended {took_ms:.0f} ms after it went on")


def test_a_frozen_postmaster_is_replaced(database: DatabaseCluster) -> None:
    """Goal: a server that lets nobody in any more is found out although its sessions go on, and replaced."""
    old = database.wait_whole()
    other = database.others(old)[0]
    postmaster = database.postmaster(old)
    with Inserts(database, old, other) as inserts:
        frozen = time.monotonic_ns()
        os.kill(postmaster, signal.SIGSTOP)
        try:
            wait_for(lambda: start_ticks(postmaster) is None, "the frozen postmaster is ended", 20.0)
        finally:
            each_signal([postmaster], signal.SIGCONT)
        inserts.wait_progress()
        print(f"outage {inserts.outage_ms(frozen):.0f} ms")
        database.wait_whole()
        inserts.wait_progress()
    inserts.check()


def test_a_frozen_backend_holds_up_nobody_else(database: DatabaseCluster) -> None:
    """Goal: one client's trouble is no failover. Method: its backend stands still; others insert on."""
    primary = database.wait_whole()
    one, other = database.others(primary)
    postmaster = database.postmaster(primary)
    with Inserts(database, one, other) as inserts:
        backend = inserts.of(one).sessions[-1].pid
        os.kill(backend, signal.SIGSTOP)
        try:
            let_pass(FROZEN_S)
            inserts.wait_progress(other)
        finally:
            each_signal([backend], signal.SIGCONT)
        inserts.wait_progress()
        assert database.postmaster(primary) == postmaster
        assert inserts.of(other).refused == []
    inserts.check()


def test_a_frozen_server_is_replaced(database: DatabaseCluster) -> None:
    """Goal: a server that answers nobody is ended, all of it, and writes go on."""
    old = database.wait_whole()
    other = database.others(old)[0]
    postmaster = database.postmaster(old)
    with Inserts(database, old, other) as inserts:
        frozen = time.monotonic_ns()
        each_signal(database.servers(old), signal.SIGSTOP)
        try:
            wait_for(lambda: start_ticks(postmaster) is None, "the frozen server is ended", 20.0)
        finally:
            each_signal(database.servers(old), signal.SIGCONT)
        inserts.wait_progress()
        print(f"outage {inserts.outage_ms(frozen):.0f} ms")
        database.wait_whole()
        inserts.wait_progress()
    inserts.check()
