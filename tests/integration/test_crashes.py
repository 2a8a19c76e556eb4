"""Sidecars that are killed, ended and started again, while documents are written and calls are made."""

import time

import pytest
from trellis.cluster.v1 import cluster_pb2

from tests.harness.calls import Calls
from tests.harness.cluster import Cluster, owner
from tests.harness.host import Host
from tests.harness.load import Load
from tests.harness.sight import Sight
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration


def instance_pids(host: Host, service: str) -> dict[str, int]:
    """Process ids of the ready instances of a service on a host."""
    status = host.status()
    assert status is not None
    return {
        item.instance: item.pid
        for found in status.services
        if found.spec.name == service
        for item in found.instances
        if item.ready and f"@{host.name}#" in item.instance
    }


def test_a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    """Goal: SIGKILL of the leader costs neither a write nor a call that is safe to repeat."""
    old = cluster.wait_whole()
    with Sight(cluster) as sight, Load(cluster.hosts) as load:
        with Calls(cluster) as calls:
            killed = old.kill()
            new = cluster.wait_leader(cluster.others(old), but=old, within_s=3.0)
            cluster.wait_owner(new)
            took = load.wait_progress()
            acted = wait_for(lambda: cluster.resource.acted_since(killed, new.name), "the new owner acts")
            wait_for(lambda: calls.answered(killed + 10**9), "calls are answered again")
        old.start()
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()
    assert calls.failed(idempotent=True) == []
    assert all(act.host != old.name for act in cluster.resource.acts() if act.at_ns > acted.at_ns)
    print(f"virtual IP after {sight.gap_ms(killed):.0f} ms, writes after {took:.2f} s")


def test_a_killed_follower_costs_nothing_and_its_instances_go_on_serving(cluster: Cluster) -> None:
    """Goal: active-active instances outlive their sidecar and are adopted: same process, still ready."""
    leader = cluster.wait_whole()
    follower = cluster.others(leader)[0]
    before = instance_pids(follower, "echo")
    assert before
    with Load(cluster.hosts) as load:
        killed = follower.kill()
        follower.start()
        assert cluster.wait_whole() is leader
        assert load.acknowledged(killed)
    load.check()
    after = wait_for(lambda: instance_pids(follower, "echo"), "its instances take traffic", 5.0)
    assert after == before, "they were started anew, not adopted"
    cluster.resource.check_one_owner()


def test_a_leader_that_is_asked_to_end_hands_over_first(cluster: Cluster) -> None:
    """Goal: SIGTERM moves everything without waiting for a lease. Method: the gap is below one lease."""
    old = cluster.wait_whole()
    with Load(cluster.hosts) as load, Calls(cluster) as calls, Sight(cluster) as sight:
        asked = old.terminate()
        new = cluster.wait_leader(cluster.others(old), but=old, within_s=3.0)
        acted = wait_for(lambda: cluster.resource.acted_since(asked, new.name), "the new owner acts")
        assert old.wait_exit() == 0
        load.wait_progress()
    print(
        f"reporter after {(acted.at_ns - asked) / 1e6:.0f} ms, virtual IP after {sight.gap_ms(asked):.0f} ms"
    )
    assert sight.gap_ms(asked) < 1200
    assert calls.failed(idempotent=True) == []
    old.start()
    cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()


def test_a_planned_transfer_fails_no_call(cluster: Cluster) -> None:
    """Goal: `trellis leader transfer` is not noticed by clients, also for calls that may not be repeated."""
    old = cluster.wait_whole()
    target = cluster.others(old)[-1]
    with Load(cluster.hosts) as load, Calls(cluster) as calls, Sight(cluster) as sight:
        asked = time.monotonic_ns()
        done = old.trellis("leader", "transfer", target.name, "--json")
        assert done.returncode == 0, done.stderr
        assert cluster.wait_leader(within_s=3.0) is target
        cluster.wait_whole()
        wait_for(lambda: calls.answered(asked + 10**9), "calls go on")
    assert calls.failed() == []
    load.check()
    cluster.resource.check_one_owner()
    print(f"handed over: {done.stdout.strip()}, virtual IP after {sight.gap_ms(asked):.0f} ms")


def test_two_of_three_killed_leave_a_host_that_refuses_and_says_so(cluster: Cluster) -> None:
    """Goal: a minority answers no linearizable read and no write, with exit code 69, and keeps status."""
    left, *dead = cluster.wait_whole(), *cluster.others(cluster.wait_whole())
    for host in dead:
        host.kill()
    wait_for(lambda: (left.status() or cluster_pb2.GetStatusResponse()).fenced_reason, "it says it is fenced")
    wrote = left.trellis("documents", "put", "minority", "x", "--timeout", "2", "--json")
    read = left.trellis("documents", "get", "minority", "--timeout", "2")
    stale = left.trellis("documents", "list", "--stale", "--json")
    status = left.trellis("status", "--json")
    # A write that was taken in before the loss was noticed might still happen: 75 says so.
    assert wrote.returncode in (69, 75), wrote
    assert read.returncode == 69, read
    assert "error" in read.stderr
    assert stale.returncode == 0, stale
    assert status.returncode == 0, status
    assert '"fenced_reason"' in status.stdout
    moment = time.monotonic_ns()
    assert cluster.resource.acted_since(moment, left.name) is None
    for host in dead:
        host.start()
    cluster.wait_whole()
    assert owner(left.status())
    cluster.resource.check_one_owner()


def test_a_frozen_or_killed_envoy_is_replaced(cluster: Cluster) -> None:
    """Goal: the data plane of the leader comes back by itself under a running sidecar."""
    import json
    import os
    import signal

    leader = cluster.wait_whole()
    state = leader.run_dir / "envoy.state.json"
    pid = int(json.loads(state.read_text())["pid"])
    with Calls(cluster) as calls:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: int(json.loads(state.read_text())["pid"]) != pid, "another Envoy runs")
        killed = time.monotonic_ns()
        wait_for(lambda: calls.answered(killed), "calls are answered again")
    assert calls.failed(idempotent=True) == []
    cluster.wait_whole()
