"""What dies on the primary's host: all of it, its sidecar, its postmaster, or one backend.

Clients insert through the listeners of two hosts meanwhile. Whatever was acknowledged is
there once, on every host, and no server acknowledges after another has begun to.
"""

import os
import shutil
import signal
import time

import pytest

from tests.harness.database_cluster import DatabaseCluster
from tests.harness.inserts import Inserts
from tests.harness.waiting import wait_for

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


def test_a_primary_whose_disk_fails_to_flush_loses_nothing(database: DatabaseCluster) -> None:
    """Goal: what could not be flushed is not acknowledged, what was stays, and people are told why it ended.

    Method: strace makes every flush of the primary's server fail from one moment on, and it panics.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    old = database.wait_whole()
    other = database.others(old)[0]
    directory = database.cluster.directory
    told = len(old.logged("database-ended"))
    with Inserts(database, old, other) as inserts:
        failed = time.monotonic_ns()
        attach = [word for pid in database.servers(old) for word in ("-p", str(pid))]
        inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
        argv = ["strace", "-f", "-qq", "-o", str(directory / "flushes"), *inject, *attach]
        strace = database.cluster.processes.start(argv, directory / "strace.log")
        wait_for(lambda: len(old.logged("database-ended")) > told, "its server ends", 20.0)
        database.cluster.processes.wait_exit(strace)
        inserts.wait_progress()
        database.wait_whole()
        print(f"outage {inserts.outage_ms(failed):.0f} ms")
        inserts.wait_progress()
    inserts.check()
    assert "PANIC" in str(old.logged("database-ended")[told]["why"])
    assert "Input/output error" in str(old.logged("database-ended")[told]["why"])


@pytest.mark.parametrize("what", ["postmaster", "backend"])
def test_a_process_of_the_primary_dies(database: DatabaseCluster, what: str) -> None:
    """Goal: no backend outlives its postmaster to acknowledge beside the next server, and writes go on.

    Method: SIGKILL to the postmaster, or to the backend that a client uses, which ends the server too.
    """
    old = database.wait_whole()
    other = database.others(old)[0]
    with Inserts(database, old, other) as inserts:
        pid = database.postmaster(old) if what == "postmaster" else inserts.of(old).sessions[-1].pid
        before = database.servers(old)
        died = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not set(before) & set(database.servers(old)), "nothing of that server is left")
        inserts.wait_progress()
        print(f"{what} killed: outage {inserts.outage_ms(died):.0f} ms")
        database.wait_whole()
        inserts.wait_progress()
    inserts.check()
