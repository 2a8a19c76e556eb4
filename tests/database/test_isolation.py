"""Hosts in network namespaces that are cut off from the others, with clients on them that go on."""

import time
from collections.abc import Iterator

import pytest

from tests.harness import namespaces
from tests.harness.database_cluster import DatabaseCluster, why_not
from tests.harness.host import Host
from tests.harness.inserts import Inserts
from tests.harness.namespaces import NamespaceNetwork

pytestmark = pytest.mark.integration


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
