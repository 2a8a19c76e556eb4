"""All three hosts down, and up again in every order and with one missing."""

import itertools

import pytest

from tests.harness.cluster import Cluster
from tests.harness.load import Load
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration

ORDERS = list(itertools.permutations(range(3)))


def kill_all(cluster: Cluster) -> None:
    for host in cluster.hosts:
        host.kill()


@pytest.fixture(scope="module")
def load(module_cluster: Cluster) -> Load:
    """Some acknowledged writes that every start must find."""
    module_cluster.wait_whole()
    with Load(module_cluster.hosts) as made:
        made.wait_progress()
    return made


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(str(n + 1) for n in order))
def test_a_cluster_starts_in_any_order(cluster: Cluster, load: Load, order: tuple[int, ...]) -> None:
    """Goal: power comes back to one host after the other. Method: each starts when the one before answers."""
    kill_all(cluster)
    for number in order:
        host = cluster.hosts[number]
        host.start()
        wait_for(lambda host=host: host.status(), f"{host.name} answers", 15.0)  # type: ignore[misc]
    cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def test_two_hosts_start_without_the_third(cluster: Cluster, load: Load) -> None:
    """Goal: one host that stays away does not keep the others from serving."""
    leader = cluster.wait_whole()
    away, *present = leader, *cluster.others(leader)
    kill_all(cluster)
    present[0].start()
    wait_for(present[0].status, "the first answers", 15.0)
    status = present[0].status()
    assert status is not None
    assert status.fenced_reason, "one of three serves"
    present[1].start()
    new = cluster.wait_leader(present, within_s=15.0)
    cluster.wait_owner(new)
    with Load(present) as more:
        more.wait_progress()
    more.check()
    away.start()
    cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
