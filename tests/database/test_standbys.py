"""Standbys that are lost, slow, wiped, damaged or not what they say; primaries that have too much."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import rmtree

import psycopg
import pytest

from tests.harness.database_cluster import DatabaseCluster, each_signal
from tests.harness.host import Host
from tests.harness.inserts import Inserts
from tests.harness.postgres import BINARIES
from tests.harness.waiting import let_pass, wait_for

pytestmark = pytest.mark.integration

#: Long enough that a commit which waits for nobody would be seen.
WATCHED_S = 2.0
#: A stranger is found at the next look, which is every half second.
FOUND_S = 3.0
#: Of a table with a damaged page.
ROWS = 10_000


@contextmanager
def receiving_nothing(database: DatabaseCluster, *hosts: Host) -> Iterator[None]:
    """Their receivers of WAL stand still, so they acknowledge nothing more."""
    pids = [pid for host in hosts for pid in database.of_kind(host, "walreceiver")]
    assert len(pids) == len(hosts), pids
    each_signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        each_signal(pids, signal.SIGCONT)


def test_writes_go_on_without_one_standby(database: DatabaseCluster) -> None:
    """Goal: any one of two acknowledges. Method: one standby's whole host dies under load, and comes back."""
    primary = database.wait_whole()
    lost, other = database.others(primary)
    with Inserts(database, primary, other) as inserts:
        died = time.monotonic_ns()
        database.power_off(lost)
        inserts.wait_progress()
        print(f"outage {inserts.outage_ms(died):.0f} ms")
        lost.start()
        assert database.wait_whole() is primary
        inserts.wait_progress()
    inserts.check()


def test_writes_wait_while_both_standbys_are_lost(database: DatabaseCluster) -> None:
    """Goal: no acknowledgement by one host alone. Method: both others die, and come back later."""
    primary = database.wait_whole()
    others = database.others(primary)
    with Inserts(database, primary) as inserts:
        database.power_off(*others)
        died = time.monotonic_ns()
        let_pass(WATCHED_S)
        assert inserts.acked_since(died) is None
        for host in others:
            host.start()
        inserts.wait_progress(within_s=40.0)
        print(f"outage {inserts.outage_ms(died):.0f} ms")
        database.wait_whole()
    inserts.check()


def test_a_survivor_that_may_lack_commits_refuses_until_a_loss_is_accepted(database: DatabaseCluster) -> None:
    """Goal: with the primary and one standby gone nobody is promoted by itself, and people are told why.

    Method: the primary's host dies in one instant with another whose data is lost; that one comes back empty.
    """
    primary = database.wait_whole()
    emptied, survivor = database.others(primary)
    with Inserts(database, survivor) as inserts:
        database.power_off(primary, emptied)
        died = time.monotonic_ns()
        rmtree(database.data(emptied))
        emptied.start()

        def refusal() -> str:
            shown = survivor.trellis("db", "status", "--json")
            return shown.stdout if "nobody is promoted" in shown.stdout else ""

        told = wait_for(refusal, "trellis db status says why nobody is promoted", 30.0)
        assert emptied.name in told
        assert inserts.acked_since(died) is None
        accepted = time.monotonic_ns()
        done = survivor.trellis("db", "failover", "--accept-data-loss", "--why", "a test", "--timeout", "40")
        assert done.returncode == 0, done.stderr
        inserts.wait_progress()
        primary.start()
        assert database.wait_whole() is survivor
    inserts.check(accepted)


def test_a_primary_that_comes_back_while_others_lack_commits_goes_on(database: DatabaseCluster) -> None:
    """Goal: what only the last primary has is not lost when it returns. Method: as above; then it starts."""
    primary = database.wait_whole()
    emptied, survivor = database.others(primary)
    with Inserts(database, survivor) as inserts:
        with receiving_nothing(database, survivor):
            inserts_after = time.monotonic_ns()
            wait_for(lambda: inserts.acked_since(inserts_after), "the other standby acknowledges")
            database.power_off(primary, emptied)
            rmtree(database.data(emptied))
            emptied.start()
            primary.start()
            # A receiver that stands still is not found by itself while its primary is well.
            assert database.wait_open() is primary
        assert database.wait_whole() is primary
        inserts.wait_progress()
    inserts.check()


def test_a_former_primary_with_more_wal_is_rewound(database: DatabaseCluster) -> None:
    """Goal: what nobody acknowledged for goes away, and the host streams again.

    Method: standbys receive nothing while a row is committed on the primary alone, whose host then dies.
    """
    old = database.wait_whole()
    others = database.others(old)
    with Inserts(database, old, others[0]) as inserts:
        with receiving_nothing(database, *others):
            database.ask(old, "INSERT INTO entries VALUES ('alone', 1)")
            died = time.monotonic_ns()
            database.power_off(old)
            new = database.wait_open(old)
        inserts.wait_progress(others[0])
        print(f"outage {inserts.outage_ms(died):.0f} ms")
        old.start()
        assert database.wait_whole() is new
        inserts.wait_progress()
    inserts.check()
    for host in database.hosts:
        assert database.ask(host, "SELECT number FROM entries WHERE client = 'alone'") == [], host.name
    assert old.logged("database")[-1]["goal"] == "follow"
    assert "rewind" in [entry.get("does") for entry in old.logged("database")]


def test_a_standby_without_data_is_copied_anew(database: DatabaseCluster) -> None:
    """Goal: a new disk needs no hand. Method: a standby's host is off, its data removed, and it starts."""
    primary = database.wait_whole()
    wiped, other = database.others(primary)
    with Inserts(database, other) as inserts:
        database.power_off(wiped)
        rmtree(database.data(wiped))
        wiped.start()
        assert database.wait_whole() is primary
        inserts.wait_progress()
    inserts.check()


def test_a_receiver_that_bears_another_hosts_name_does_not_count(database: DatabaseCluster) -> None:
    """Goal: only a host's own certificate makes its acknowledgement count.

    Method: both standbys receive nothing; a program with the certificate of one calls itself the other
    and confirms everything. It is ended, and from then on no commit is acknowledged.
    """
    primary = database.wait_whole()
    one, other = database.others(primary)
    kept = database.cluster.directory / "rogue"
    kept.mkdir(mode=0o777)
    kept.chmod(0o777)
    mine = database.conninfo(one)
    named = mine.replace(f"application_name={one.name}", f"application_name={other.name}")
    assert named != mine
    argv = ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    argv += [str(BINARIES / "pg_receivewal"), "-D", str(kept), "--synchronous", "--no-loop", "-d", named]
    processes = database.cluster.processes
    with Inserts(database, primary) as inserts:
        with receiving_nothing(database, one, other):
            rogue = processes.start(argv, database.cluster.directory / "rogue.log")
            processes.wait_exit(rogue, FOUND_S)
            ended = time.monotonic_ns()
            let_pass(WATCHED_S)
            assert inserts.acked_since(ended) is None
        inserts.wait_progress()
        database.wait_whole()
    inserts.check()
    assert [entry["name"] for entry in primary.logged("database-stranger")] == [other.name]


def damage(database: DatabaseCluster, host: Host, table: str) -> None:
    """A page of this table changes on the disk of one standby, while no server has it in memory."""
    primary = database.wait_whole()
    database.ask(primary, f"CREATE TABLE {table} AS SELECT generate_series(1, {ROWS}) AS n")
    path = database.data(host) / str(database.ask(primary, f"SELECT pg_relation_filepath('{table}')")[0][0])
    wait_for(lambda: database.ask(host, "SELECT to_regclass(%s)", table) != [(None,)], "the standby has it")
    database.ask(primary, "CHECKPOINT")
    wait_for(lambda: database.ask(host, "CHECKPOINT") == [] and path.stat().st_size, "it is on the disk")
    host.terminate()
    host.wait_exit()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 64)
    host.start()
    assert database.wait_whole() is primary


def health(database: DatabaseCluster, host: Host) -> str:
    status = database.status(database.hosts[0])
    rows = [row for row in status.members if row.host == host.name] if status is not None else []
    return rows[0].status.health if rows else ""


def clones(host: Host) -> int:
    return [entry.get("does") for entry in host.logged("database")].count("clone")


def test_a_standby_with_a_damaged_page_is_copied_anew(database: DatabaseCluster) -> None:
    """Goal: it is told, and mended without a hand. Method: a damaged page of a standby is read there."""
    primary = database.wait_whole()
    standby, other = database.others(primary)
    damage(database, standby, "of_standby")
    before = clones(standby)
    with Inserts(database, primary, other) as inserts:
        with pytest.raises(psycopg.Error, match="invalid page"):
            database.ask(standby, "SELECT count(*) FROM of_standby")
        wait_for(lambda: "checksums" in health(database, standby), "it is told", 20.0)
        wait_for(lambda: clones(standby) > before, "it is copied")
        assert database.wait_whole() is primary
        assert database.ask(standby, "SELECT count(*) FROM of_standby") == [(ROWS,)]
        wait_for(lambda: not health(database, standby), "all is well")
        inserts.wait_progress()
    inserts.check()


def test_a_primary_with_a_damaged_page_hands_over_and_is_copied_anew(database: DatabaseCluster) -> None:
    """Goal: clients read a page that is whole, and a copy is never made of what is damaged.

    Method: a standby whose page is damaged becomes primary before anybody reads it; then a client does.
    """
    first = database.wait_whole()
    standby, other = database.others(first)
    damage(database, standby, "of_primary")
    before = clones(standby)
    moved = other.trellis("db", "switchover", standby.name)
    assert moved.returncode == 0, moved.stderr
    assert database.wait_whole() is standby
    with Inserts(database, first, other) as inserts:
        with pytest.raises(psycopg.Error, match="invalid page"):
            database.ask(standby, "SELECT count(*) FROM of_primary")
        new = database.wait_open(standby)
        wait_for(lambda: clones(standby) > before, "it is copied", 30.0)
        assert database.wait_whole() is new
        for host in database.hosts:
            assert database.ask(host, "SELECT count(*) FROM of_primary") == [(ROWS,)], host.name
        wait_for(lambda: not health(database, standby), "all is well")
        inserts.wait_progress()
    inserts.check()


def test_names_that_a_hand_overrides_are_taken_back(database: DatabaseCluster) -> None:
    """Goal: commits are acknowledged by those that a promotion asks, whatever somebody has set.

    Method: ALTER SYSTEM has the primary wait for nobody; then both standbys receive nothing.
    """
    primary = database.wait_whole()
    others = database.others(primary)
    names = database.ask(primary, "SHOW synchronous_standby_names")
    assert names != [("",)]
    with Inserts(database, primary) as inserts:
        database.ask(primary, "ALTER SYSTEM SET synchronous_standby_names = ''")
        database.ask(primary, "SELECT pg_reload_conf()")
        overrides = database.data(primary) / "postgresql.auto.conf"
        wait_for(lambda: overrides.read_bytes() == b"", "it is taken back")
        wait_for(
            lambda: database.ask(primary, "SHOW synchronous_standby_names") == names, "they are in force"
        )
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        with receiving_nothing(database, *others):
            wait_for(lambda: database.ask(primary, waiting) != [(0,)], "a commit waits")
            frozen = time.monotonic_ns()
            let_pass(WATCHED_S)
            assert inserts.acked_since(frozen) is None
        inserts.wait_progress()
        assert database.wait_whole() is primary
    inserts.check()


def test_a_standby_goes_on_receiving_over_a_restart_of_its_sidecar(database: DatabaseCluster) -> None:
    """Goal: a new sidecar costs the database nothing. Method: a standby's sidecar is killed and started."""
    primary = database.wait_whole()
    standby = database.others(primary)[0]
    receiver, began = database.of_kind(standby, "walreceiver"), database.servers(standby)[0]
    standby.kill()
    standby.start()
    assert database.wait_whole() is primary
    let_pass(WATCHED_S)
    assert database.of_kind(standby, "walreceiver") == receiver
    assert began in database.servers(standby)
