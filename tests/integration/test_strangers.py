"""Hosts that do not belong: initialised twice, wrong tokens, wrong authorities, other clusters."""

from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest
from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

from mesh.identity.names import tls_name
from mesh.identity.token import TokenText
from mesh.ids import ClusterId, HostId
from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster, leads_itself
from tests.harness.load import Load
from tests.harness.waiting import let_pass, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def other() -> Iterator[Cluster]:
    """Another cluster, of one host that leads itself, on a network of its own."""
    with Cluster(LoopbackNetwork(), hosts=1) as made:
        made.found(services=False)
        yield made


@pytest.fixture(scope="module")
def lone() -> Iterator[Cluster]:
    """A cluster of one host that runs, and settings of a second that does not belong to it."""
    with Cluster(LoopbackNetwork(), hosts=2) as made:
        first = made.hosts[0]
        assert first.trellis("init").returncode == 0
        first.start()
        wait_for(lambda: leads_itself(first), "the founding host leads itself", 40.0)
        yield made


def test_a_host_that_was_initialised_cannot_be_initialised_again(lone: Cluster) -> None:
    """Goal: a running host keeps its cluster. Method: `init` beside the running sidecar."""
    again = lone.hosts[0].trellis("init", "--json")
    assert again.returncode == 1, again
    assert "already belongs to cluster" in again.stderr
    assert leads_itself(lone.hosts[0])


def test_a_token_that_nobody_made_is_denied(lone: Cluster) -> None:
    """Goal: nothing is told or left behind. Method: garbage, another host's token, a changed secret."""
    good = lone.token(lone.hosts[0], "host2")
    used = lone.token(lone.hosts[0], "host3")
    garbage = lone.hosts[1].trellis("join", "not-a-token", "--json")
    assert garbage.returncode == 64, garbage
    for_another = lone.hosts[1].trellis("join", used, "--json", "--timeout", "5")
    assert for_another.returncode == 77, for_another
    assert "token" in for_another.stderr
    forged = replace(TokenText.decode(good), secret=TokenText.decode(used).secret[::-1]).encode()
    denied = lone.hosts[1].trellis("join", forged, "--json", "--timeout", "5")
    assert denied.returncode == 77, denied
    status = lone.hosts[0].status()
    assert status is not None
    assert [host.host for host in status.hosts] == ["host1"]
    refused = lone.hosts[1].trellis("status")
    assert refused.returncode == 69, refused


def test_a_token_of_another_cluster_does_not_open_this_one(lone: Cluster, other: Cluster) -> None:
    """Goal: the token pins the authority. Method: the other's secret, then its authority."""
    mine = TokenText.decode(lone.token(lone.hosts[0]))
    theirs = TokenText.decode(other.token(other.hosts[0]))
    wrong_authority = replace(mine, ca_pem=theirs.ca_pem, cluster_id=theirs.cluster_id)
    wrong_secret = replace(mine, secret=theirs.secret)
    refused = lone.hosts[1].trellis("join", wrong_authority.encode(), "--json", "--timeout", "5")
    assert refused.returncode == 1, refused
    assert "another authority" in refused.stderr
    denied = lone.hosts[1].trellis("join", wrong_secret.encode(), "--json", "--timeout", "5")
    assert denied.returncode == 77, denied


def test_a_member_of_one_cluster_is_refused_by_another(lone: Cluster, other: Cluster) -> None:
    """Goal: a host belongs to one cluster. Method: the other cluster's member gets this one's token."""
    joined = other.hosts[0].trellis("join", lone.token(lone.hosts[0]), "--json")
    assert joined.returncode == 1, joined
    assert "belongs to cluster" in joined.stderr
    assert leads_itself(other.hosts[0])


def test_two_hosts_that_were_both_initialised_do_not_mix(lone: Cluster) -> None:
    """Goal: two clusters that know each other's addresses stay two. Method: the second host is initialised.

    It then cannot join the first, and serves its own content.
    """
    first, second = lone.hosts
    assert second.trellis("init").returncode == 0
    joined = second.trellis("join", lone.token(first), "--json")
    assert joined.returncode == 1, joined
    second.start()
    wait_for(lambda: leads_itself(second), "the second leads itself", 40.0)
    first.trellis("documents", "put", "whose", "first")
    read = second.trellis("documents", "get", "whose")
    assert read.returncode == 1, read
    let_pass(1.0)
    seen = [host.status() for host in lone.hosts]
    assert all(status is not None and len(status.hosts) == 1 for status in seen)
    assert len({status.cluster_id for status in seen if status is not None}) == 2


def test_a_stranger_with_another_authority_gets_no_answer_on_the_mesh(lone: Cluster, other: Cluster) -> None:
    """Goal: mutual TLS decides before any method does. Method: certificates of the other cluster."""
    first, stranger = lone.hosts[0].data_dir / "identity", other.hosts[0].data_dir / "identity"
    status = lone.hosts[0].status()
    assert status is not None
    credentials = grpc.ssl_channel_credentials(
        (first / "ca.pem").read_bytes(),
        (stranger / "host.key").read_bytes(),
        (stranger / "host.pem").read_bytes(),
    )
    name = tls_name(HostId("host1"), ClusterId(status.cluster_id))
    options = [("grpc.ssl_target_name_override", name)]
    with grpc.secure_channel(f"{lone.hosts[0].ip}:7400", credentials, options) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            cluster_pb2_grpc.ClusterServiceStub(channel).GetStatus(
                cluster_pb2.GetStatusRequest(), timeout=3.0
            )
        assert refused.value.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        )


def test_the_cluster_was_not_harmed(lone: Cluster) -> None:
    """Goal: after all these attempts it takes writes as before."""
    with Load(lone.hosts[:1], writers=1, readers=1) as load:
        load.wait_progress()
    load.check()
