"""Sidecars stopped for half a minute: longer than every timer but the grace of what runs without a lease.

A leader and a follower of five hosts are frozen side by side, so that the wall time is paid once.
"""

import time
from collections.abc import Iterator

import pytest

from mesh.ids import ServiceName, owned_service
from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster, owner
from tests.harness.host import start_ticks
from tests.harness.load import Load
from tests.harness.sight import Sight
from tests.harness.waiting import let_pass, wait_for
from tests.integration.test_freezes import FENCED_S, reporter_pid

pytestmark = pytest.mark.integration

FROZEN_S = 30.0
#: Two of five hosts gone at once, on a busy machine.
ELECTED_S = 10.0
REPORTER = owned_service(ServiceName("reporter"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Five hosts on loopback addresses."""
    with Cluster(LoopbackNetwork(), hosts=5) as made:
        made.found()
        yield made


def test_a_leader_and_a_follower_frozen_for_half_a_minute_are_fenced_and_follow_when_they_wake(
    cluster: Cluster,
) -> None:
    """Goal: the three others serve all the while; who wakes acts for nothing and unseats nobody.

    Method: the frozen follower is the owner of the active-standby service if the leader is not, so that one
    of the two frozen hosts has an exclusive process, which the fence must end without its sidecar.
    """
    old = cluster.wait_whole()
    holder = cluster.host(owner(old.status(), REPORTER))
    follower = holder if holder is not old else cluster.others(old)[0]
    awake = cluster.others(old, follower)
    pid = reporter_pid(old)
    with Load(awake) as load, Sight(cluster) as sight:
        frozen = old.freeze()
        follower.freeze()
        wait_for(lambda: start_ticks(pid) is None, "the frozen owner's instance is killed", FENCED_S)
        fenced = time.monotonic_ns()
        new = cluster.wait_leader(awake, within_s=ELECTED_S)
        cluster.wait_owner(new)
        acted = wait_for(
            lambda: next((a for a in cluster.resource.acts() if a.at_ns > fenced), None), "another owner acts"
        )
        load.wait_progress()
        let_pass(max(0.0, FROZEN_S - (time.monotonic_ns() - frozen) / 1e9))
        load.wait_progress()
        led = new.status()
        woken = old.thaw()
        follower.thaw()
        assert cluster.wait_whole() is new
        load.wait_progress()
    after = new.status()
    assert led is not None
    assert after is not None
    assert after.term == led.term, "a host that woke up forced an election"
    assert cluster.resource.acted_since(fenced, holder.name) is None
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()
    print(
        f"fenced after {(fenced - frozen) / 1e6:.0f} ms, another owner acts after"
        f" {(acted.at_ns - frozen) / 1e6:.0f} ms, virtual IP after {sight.gap_ms(frozen):.0f} ms,"
        f" whole again {(time.monotonic_ns() - woken) / 1e9:.1f} s after they woke"
    )
