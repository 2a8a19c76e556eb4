"""Sidecars stopped by SIGSTOP that go on later, as a paused virtual machine or a starved host does."""

import time

import pytest

from tests.harness.cluster import Cluster
from tests.harness.host import Host, start_ticks
from tests.harness.load import Load
from tests.harness.sight import Sight
from tests.harness.waiting import let_pass, wait_for

pytestmark = pytest.mark.integration

LEASE_S = 1.2
#: Lease, and the time the fence process may take on a busy machine.
FENCED_S = 2.0


def reporter_pid(host: Host) -> int:
    """The process of the active-standby service on its host."""
    status = host.status()
    assert status is not None
    pids = [i.pid for s in status.services if s.spec.name == "reporter" for i in s.instances if i.ready]
    assert len(pids) == 1, pids
    return pids[0]


def test_a_leader_frozen_for_less_than_a_lease_stays_the_leader(cluster: Cluster) -> None:
    """Goal: half a second of silence changes nothing. Method: same term, same fencing term, same process."""
    leader = cluster.wait_whole()
    before, pid = leader.status(), reporter_pid(leader)
    with Load(cluster.hosts) as load, Sight(cluster):
        leader.freeze()
        let_pass(0.5)
        leader.thaw()
        load.wait_progress()
    assert cluster.wait_whole() is leader
    after = leader.status()
    assert before is not None
    assert after is not None
    assert (after.term, list(after.owners)) == (before.term, list(before.owners))
    assert reporter_pid(leader) == pid
    load.check()
    cluster.resource.check_one_owner()


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_a_frozen_leader_is_fenced_while_frozen_and_does_not_act_when_it_wakes(
    cluster: Cluster, seconds: float
) -> None:
    """Goal: what a frozen sidecar held is gone before another host acts, without the sidecar's help.

    Method: the fence process kills the exclusive instance and the Envoy that holds the virtual IP while the
    sidecar is stopped; the resource that verifies terms sees no act of the old owner after one of the new.
    """
    old = cluster.wait_whole()
    pid = reporter_pid(old)
    with Load(cluster.hosts) as load, Sight(cluster) as sight:
        frozen = old.freeze()
        others = cluster.others(old)
        wait_for(lambda: start_ticks(pid) is None, "the frozen owner's instance is killed", FENCED_S)
        fenced = time.monotonic_ns()
        new = cluster.wait_leader(others, but=old, within_s=8.0)
        acted = wait_for(lambda: cluster.resource.acted_since(frozen, new.name), "the new owner acts")
        cluster.wait_owner(new)
        load.wait_progress()
        let_pass(max(0.0, seconds - (time.monotonic_ns() - frozen) / 1e9))
        woken = old.thaw()
        cluster.wait_whole()
    assert cluster.resource.acted_since(max(fenced, acted.at_ns), old.name) is None
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()
    print(
        f"fenced after {(fenced - frozen) / 1e6:.0f} ms,"
        f" new owner acts after {(acted.at_ns - frozen) / 1e6:.0f} ms,"
        f" virtual IP after {sight.gap_ms(frozen):.0f} ms, {load.acknowledged(woken)} writes since it woke"
    )


def test_a_frozen_follower_costs_nothing_and_catches_up(cluster: Cluster) -> None:
    """Goal: two of three go on; the third follows again, with no change of leader, when it wakes."""
    leader = cluster.wait_whole()
    follower = cluster.others(leader)[0]
    term = leader.status()
    with Load(cluster.hosts) as load, Sight(cluster):
        follower.freeze()
        let_pass(3.0)
        load.wait_progress()
        follower.thaw()
        assert cluster.wait_whole() is leader
    after = leader.status()
    assert term is not None
    assert after is not None
    assert after.term == term.term
    load.check()
    cluster.resource.check_one_owner()
