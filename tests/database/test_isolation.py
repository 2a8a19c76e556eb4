"""Hosts in network namespaces that are cut off or far away, with clients on them that go on."""

import json
import os
import time
from collections.abc import Iterator
from random import Random
from signal import SIGINT, SIGSTOP

import pytest

from sidecar.postgres.model import parse_lsn
from tests.chaos.network_faults import Late
from tests.chaos.stage import Stage
from tests.harness import namespaces
from tests.harness.database_cluster import DatabaseCluster, why_not
from tests.harness.host import Host, start_ticks
from tests.harness.inserts import Inserts
from tests.harness.namespaces import NamespaceNetwork
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture(scope="module")
def network() -> NamespaceNetwork:
    """Three hosts on a bridge."""
    if reason := why_not() or namespaces.why_not():
        pytest.skip(reason)
    return NamespaceNetwork()


@pytest.fixture(scope="module")
def module_database(network: NamespaceNetwork) -> Iterator[DatabaseCluster]:
    """A database on them, which closes the network too."""
    with DatabaseCluster(network) as made:
        yield made


def number_of(host: Host) -> int:
    """Of a host in its network."""
    return int(host.name.removeprefix("host"))


def test_a_primary_that_is_cut_off_ends_before_another_acts(
    database: DatabaseCluster, network: NamespaceNetwork
) -> None:
    """Goal: an isolated primary acknowledges nothing after the new one has begun to.

    Method: on the cut host one client waits for standbys and one does not, so that it goes on committing
    in its open session until the server is ended.
    """
    old = database.wait_whole()
    other = database.others(old)[0]
    with Inserts(database, old, other, local=[old]) as inserts:
        cut = time.monotonic_ns()
        network.isolate(number_of(old))
        try:
            new = database.wait_open(old)
            assert database.servers(old) == []
            inserts.wait_progress(other)
            outage_ms = inserts.outage_ms(cut)
            last = inserts.of(old, "local").acks[-1].at_ns
            print(f"outage {outage_ms:.0f} ms; went on alone for {(last - cut) / 1e6:.0f} ms")
        finally:
            network.rejoin(number_of(old))
        assert database.wait_whole() is new
        inserts.wait_progress()
    inserts.check()


def test_a_standby_that_is_cut_off_holds_up_nobody(
    database: DatabaseCluster, network: NamespaceNetwork
) -> None:
    """Goal: the other standby acknowledges. Method: cut one off under load, and let it back."""
    primary = database.wait_whole()
    lost, other = database.others(primary)
    with Inserts(database, primary, other) as inserts:
        cut = time.monotonic_ns()
        network.isolate(number_of(lost))
        try:
            inserts.wait_progress()
            print(f"outage {inserts.outage_ms(cut):.0f} ms")
        finally:
            network.rejoin(number_of(lost))
        assert database.wait_whole() is primary
        inserts.wait_progress()
    inserts.check()


# ---- the obvious host is the wrong one ----------------------------------------------------


class LateToOne(Late):
    """Only the frames of the target are late, both ways."""

    def hosts(self) -> list[Host]:
        return [self.target]


def stop_sending(database: DatabaseCluster, primary: Host, *standbys: Host) -> None:
    """What sends WAL to these stands still; their receivers wait, and would end at once."""
    query = "SELECT pid FROM pg_stat_replication WHERE application_name = ANY(%s)"
    pids = [int(pid) for (pid,) in database.ask(primary, query, [host.name for host in standbys])]
    assert len(pids) == len(standbys)
    for pid in pids:
        os.kill(pid, SIGSTOP)


def flushed(database: DatabaseCluster, host: Host) -> int:
    """How far a host is, in bytes: what a standby has received, what a primary has written."""
    query = """
        SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
                                    ELSE pg_current_wal_flush_lsn() END, '0/0')::bigint
    """
    return int(database.ask(host, query)[0][0])


def test_a_lagging_standby_with_the_better_network_is_not_chosen(
    database: DatabaseCluster, network: NamespaceNetwork
) -> None:
    """Goal: who has the acknowledged commits is promoted, not who answers first or leads.

    Method: one standby gets no WAL any more; all frames of the other, which acknowledges alone from then
    on, are late. The primary's host dies.
    """
    old = database.wait_whole()
    lagging, slow = database.others(old)
    late = LateToOne(Stage(database.cluster, network), slow, Random(1))
    with Inserts(database, old, lagging) as inserts:
        stop_sending(database, old, lagging)
        late.inject()
        try:
            inserts.wait_progress()
            assert flushed(database, lagging) < flushed(database, slow)
            died = time.monotonic_ns()
            database.power_off(old)
            new = database.wait_open(old)
            inserts.wait_progress(lagging)
            outage_ms = inserts.outage_ms(died)
        finally:
            late.heal()
        assert new is slow
        old.start()
        assert database.wait_whole() is slow
        inserts.wait_progress()
    inserts.check()
    print(f"outage {outage_ms:.0f} ms")


def test_a_higher_position_on_an_older_timeline_is_not_chosen(
    database: DatabaseCluster, network: NamespaceNetwork
) -> None:
    """Goal: a former primary with more bytes loses against a standby of its successor, and is rewound.

    Method: cut off, the primary writes much that nobody waits for and ends in order; then its host dies. The
    next one has rows acknowledged, and dies as the first comes back: that is further by far on the timeline
    before, and cannot be rewound, since nobody is there to do so from.
    """
    first = database.wait_whole()
    with Inserts(database, *database.others(first)) as inserts:
        network.isolate(number_of(first))
        more = end_with_more(database, first)
        database.power_off(first)
        network.rejoin(number_of(first))
        second = database.wait_open(first)
        (third,) = database.others(first, second)
        inserts.wait_progress()
        wait_for(lambda: voters(database, third) == [third.name], "only the third is asked from now on")
        assert flushed(database, third) < more
        died = time.monotonic_ns()
        database.power_off(second)
        first.start()
        assert database.wait_open(first, second) is third
        inserts.wait_progress(third)
        outage_ms = inserts.outage_ms(died)
        told = third.trellis("events", "--kind", "database-failover", "--json")
        second.start()
        assert database.wait_whole() is third
        inserts.wait_progress()
    inserts.check()
    reports = json.loads(told.stdout)["events"][-1]["attributes"]
    before, now = (position(reports[f"report-{host.name}"]) for host in (first, third))
    assert before[0] < now[0]
    assert before[1] > now[1]
    for host in database.hosts:
        assert database.ask(host, "SELECT number FROM entries WHERE client = 'alone'") == [], host.name
    print(f"outage {outage_ms:.0f} ms")


def end_with_more(database: DatabaseCluster, primary: Host) -> int:
    """Have a primary that reaches nobody write some MiB and end before its lease; how far it was then."""
    postmaster = database.postmaster(primary)
    primary.freeze()  # or its sidecar would start it again
    database.ask(primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    for _ in range(4):
        database.ask(primary, "SELECT pg_logical_emit_message(false, 'more', repeat('x', %s))", MIB)
    database.ask(primary, "INSERT INTO entries VALUES ('alone', 1)")
    more = flushed(database, primary)
    os.kill(postmaster, SIGINT)
    wait_for(lambda: start_ticks(postmaster) is None, "it has ended in order", 1.0)
    return more


def voters(database: DatabaseCluster, host: Host) -> list[str]:
    """Whom a failover asks, as one host has it."""
    status = database.status(host, stale=True)
    return list(status.published.voters) if status is not None else []


def position(report: str) -> tuple[int, int]:
    """Timeline and bytes of "2@0/400E190 …"."""
    timeline, _, lsn = report.split()[0].partition("@")
    return int(timeline), parse_lsn(lsn)
