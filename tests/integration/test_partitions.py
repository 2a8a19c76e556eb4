"""Hosts in network namespaces that are cut off: both ways, one way, all from each other, and their links.

The resource that verifies fencing terms stays reachable for everybody, so an isolated
owner that went on acting would be seen.
"""

import itertools
import time
from collections.abc import Iterator

import grpc
import pytest
from trellis.cluster.v1 import cluster_pb2
from trellis.config_sync.v1 import config_sync_pb2

from tests.harness.calls import Calls
from tests.harness.cluster import Cluster, error_code
from tests.harness.host import Host
from tests.harness.load import Load
from tests.harness.namespaces import NamespaceNetwork, why_not
from tests.harness.sight import Sight
from tests.harness.waiting import let_pass, wait_for

pytestmark = pytest.mark.integration

#: The longest election timeout, twice, on a busy machine.
ELECTED_S = 8.0
NORTHBOUND_PORT = 8080
#: A lease, and what the fence may take on a busy machine.
CLOSED_S = 2.5


@pytest.fixture(scope="module")
def network() -> NamespaceNetwork:
    """Three hosts and a client on a bridge."""
    if reason := why_not():
        pytest.skip(reason)
    return NamespaceNetwork()


@pytest.fixture(scope="module")
def made(network: NamespaceNetwork) -> Iterator[Cluster]:
    """A cluster in it, which closes it too."""
    with Cluster(network) as cluster:
        cluster.found()
        yield cluster


@pytest.fixture
def cluster(made: Cluster, network: NamespaceNetwork) -> Iterator[Cluster]:
    """The cluster, whole, and with every fault undone afterwards."""
    made.heal()
    made.wait_whole()
    yield made
    for number in (1, 2, 3):
        network.rejoin(number)
        network.link_up(number)
        network.unmute_all(number)


def number_of(host: Host) -> int:
    """Of a host in its network."""
    return int(host.name.removeprefix("host"))


def wait_fenced(cluster: Cluster, host: Host) -> None:
    """The host says that it does not serve, and holds no virtual IP."""

    def look() -> bool:
        status = host.status()
        return (
            status is not None and bool(status.fenced_reason) and host.name not in cluster.network.holders(0)
        )

    wait_for(look, f"{host.name} has fenced itself", 5.0)


def check_refuses(host: Host) -> None:
    """A minority answers neither linearizable reads nor writes, and says so; its status stays."""
    wrote = host.trellis("documents", "put", "minority", "x", "--timeout", "2", "--json")
    read = host.trellis("documents", "get", "minority", "--timeout", "2", "--json")
    status = host.trellis("status", "--json")
    assert wrote.returncode == 69, wrote
    assert read.returncode == 69, read
    assert '"reason"' in wrote.stderr
    assert status.returncode == 0, status


def test_a_leader_that_is_cut_off_is_replaced_and_serves_nobody(
    cluster: Cluster, network: NamespaceNetwork
) -> None:
    """Goal: the majority goes on behind the same address; the old leader acts no more, cut off or back."""
    old = cluster.wait_whole()
    with Load(cluster.hosts) as load, Sight(cluster) as sight, Calls(cluster, inside=network.client) as calls:
        cut = time.monotonic_ns()
        network.isolate(number_of(old))
        new = cluster.wait_leader(cluster.others(old), but=old, within_s=ELECTED_S)
        acted = wait_for(lambda: cluster.resource.acted_since(cut, new.name), "the new owner acts")
        wait_fenced(cluster, old)
        load.wait_progress()
        answered = wait_for(lambda: calls.answered(acted.at_ns), "calls are answered again")
        check_refuses(old)
        network.rejoin(number_of(old))
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()
    # A call whose connection leads to the silent host ends by its deadline at the latest.
    print(
        f"new owner acts after {(acted.at_ns - cut) / 1e6:.0f} ms,"
        f" virtual IP after {sight.gap_ms(cut):.0f} ms,"
        f" calls answered after {(answered[0].ended_ns - cut) / 1e6:.0f} ms, failed {len(calls.failed())}"
    )


def test_a_follower_that_is_cut_off_comes_back_without_a_new_election(
    cluster: Cluster, network: NamespaceNetwork
) -> None:
    """Goal: pre-vote keeps a returning host from disturbing. Method: same leader, same term."""
    leader = cluster.wait_whole()
    before = leader.status()
    follower = cluster.others(leader)[0]
    with Load(cluster.hosts) as load, Sight(cluster):
        network.isolate(number_of(follower))
        wait_fenced(cluster, follower)
        load.wait_progress()
        let_pass(2.0)
        network.rejoin(number_of(follower))
        assert cluster.wait_whole() is leader
    after = leader.status()
    assert before is not None
    assert after is not None
    assert after.term == before.term
    load.check()
    cluster.resource.check_one_owner()


@pytest.mark.parametrize("direction", ["deaf", "mute"])
def test_a_leader_with_a_one_way_link_steps_down(
    cluster: Cluster, network: NamespaceNetwork, direction: str
) -> None:
    """Goal: who is heard by nobody, or hears nobody, leads nobody, and the others elect one."""
    old = cluster.wait_whole()
    number, others = number_of(old), [number_of(host) for host in cluster.others(old)]
    with Load(cluster.hosts) as load, Sight(cluster):
        cut = time.monotonic_ns()
        for one, towards in (
            [(number, others)] if direction == "mute" else [(other, [number]) for other in others]
        ):
            network.mute(one, towards)
        new = cluster.wait_leader(cluster.others(old), but=old, within_s=ELECTED_S)
        wait_for(lambda: cluster.resource.acted_since(cut, new.name), "the new owner acts")
        wait_fenced(cluster, old)
        load.wait_progress()
        for one in (number, *others):
            network.unmute_all(one)
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()


def test_three_hosts_cut_from_each_other_do_nothing_until_they_are_healed(
    cluster: Cluster, network: NamespaceNetwork
) -> None:
    """Goal: no acknowledgement while nobody has a majority; one leader soon after."""
    with Load(cluster.hosts) as load, Sight(cluster):
        for one in (1, 2, 3):
            network.isolate(one)
        for host in cluster.hosts:
            wait_fenced(cluster, host)
        fenced = time.monotonic_ns()
        for host in cluster.hosts:
            put = config_sync_pb2.PutDocumentRequest(name="alone", value=b"x", session=host.name, sequence=1)
            code = error_code(lambda host=host, put=put: host.documents.PutDocument(put, timeout=1.0))  # type: ignore[misc]
            assert code is not grpc.StatusCode.OK
        check_refuses(cluster.hosts[0])
        assert load.acknowledged(fenced) == 0
        assert cluster.resource.acted_since(fenced) is None
        for one in (1, 2, 3):
            network.rejoin(one)
        healed = time.monotonic_ns()
        cluster.wait_leader(within_s=ELECTED_S)
        led = time.monotonic_ns()
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()
    print(f"a leader after {(led - healed) / 1e6:.0f} ms")


def test_two_hosts_that_cannot_hear_each_other_still_follow_the_third(
    cluster: Cluster, network: NamespaceNetwork
) -> None:
    """Goal: a broken link between followers changes nothing. Method: same term, writes go on."""
    leader = cluster.wait_whole()
    before = leader.status()
    pairs = list(itertools.permutations([number_of(host) for host in cluster.others(leader)], 2))
    with Load(cluster.hosts) as load, Sight(cluster):
        for one, other in pairs:
            network.mute(one, [other])
        let_pass(3.0)
        load.wait_progress()
        for one, _ in pairs:
            network.unmute_all(one)
        assert cluster.wait_whole() is leader
    after = leader.status()
    assert before is not None
    assert after is not None
    assert after.term == before.term
    load.check()
    cluster.resource.check_one_owner()


def test_a_leader_whose_link_goes_down_is_replaced(cluster: Cluster, network: NamespaceNetwork) -> None:
    """Goal: a pulled cable is survived as a silent one; the address comes up elsewhere, once."""
    old = cluster.wait_whole()
    with Load(cluster.hosts) as load, Sight(cluster) as sight:
        down = time.monotonic_ns()
        network.link_down(number_of(old))
        new = cluster.wait_leader(cluster.others(old), but=old, within_s=ELECTED_S)
        cluster.wait_owner(new)
        load.wait_progress()
        network.link_up(number_of(old))
        cluster.wait_whole()
    load.check()
    cluster.resource.check_one_owner()
    print(f"virtual IP after {sight.gap_ms(down):.0f} ms")


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_host_without_a_sidecar_takes_no_northbound_calls_once_its_lease_is_over(
    cluster: Cluster, network: NamespaceNetwork, how: str
) -> None:
    """Goal: Envoy does not go on with routes that grow older; the next sidecar opens the port again.

    Method: a follower's sidecar is killed or frozen; its own northbound port is looked at from the kernel.
    """
    leader = cluster.wait_whole()
    follower = cluster.others(leader)[0]
    number, ip = number_of(follower), follower.ip
    wait_for(lambda: network.listens(number, ip, NORTHBOUND_PORT), "its northbound port is open")
    began = time.monotonic_ns()
    if how == "killed":
        follower.kill()
    else:
        follower.freeze()
    wait_for(lambda: not network.listens(number, ip, NORTHBOUND_PORT), "it is closed", CLOSED_S)
    print(f"{how}: closed after {(time.monotonic_ns() - began) / 1e6:.0f} ms")
    if how == "killed":
        follower.start()
    else:
        follower.thaw()
    cluster.wait_whole()
    wait_for(lambda: network.listens(number, ip, NORTHBOUND_PORT), "it is open again")
    cluster.resource.check_one_owner()


#: How long the link is down, and then up, in turn: below, at and above the election timeout (1.5 to 2.5 s).
FLAPS_S = (0.7, 1.5, 2.0, 1.5, 2.5)


@pytest.mark.parametrize("whose", ["leader", "follower"])
def test_a_flapping_link_does_not_unseat_one_leader_after_the_other(
    cluster: Cluster, network: NamespaceNetwork, whose: str
) -> None:
    """Goal: at most one election in ten timeouts beside the one that is needed, and writes go on.

    Method: the link of one host goes down and up again at the pace of elections; the journal counts them.
    """
    leader = cluster.wait_whole()
    flapping = leader if whose == "leader" else cluster.others(leader)[0]
    steady = cluster.others(flapping)
    before = elections(steady[0])
    with Load(steady) as load, Sight(cluster):
        for pause_s in FLAPS_S:
            network.link_down(number_of(flapping))
            let_pass(pause_s)
            network.link_up(number_of(flapping))
            let_pass(pause_s)
        load.wait_progress()
        cluster.wait_whole()
    elected = elections(steady[0]) - before
    longest_s = longest_pause_s(load)
    print(f"{elected} elections, longest time without a write {longest_s:.1f} s")
    assert elected <= (2 if whose == "leader" else 1)
    assert longest_s < ELECTED_S
    load.check()
    cluster.resource.check_one_owner()
    cluster.check_same_state()


def elections(host: Host) -> int:
    """How many leaderships the journal knows of."""
    request = cluster_pb2.ListEventsRequest(kind="leader-elected", limit=2000)
    return len(host.cluster.ListEvents(request, timeout=5.0).events)


def longest_pause_s(load: Load) -> float:
    """The longest time between two acknowledged writes."""
    acked = sorted(write.acked_ns for writes in load.writes.values() for write in writes if write.acked_ns)
    return max(later - earlier for earlier, later in itertools.pairwise(acked)) / 1e9
