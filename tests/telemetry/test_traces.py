"""What a collector and a scraper see of a real cluster."""

import re
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from trellis.cluster.v1 import cluster_pb2
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

from mesh.ids import ClusterId, Term
from mesh.telemetry.traces import trace_id_of_term
from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster
from tests.harness.host import Host
from tests.harness.waiting import wait_for
from tests.telemetry.collector import Collector, collecting

pytestmark = pytest.mark.integration

COLLECTOR = 201


@pytest.fixture(scope="module")
def traced() -> Iterator[tuple[Cluster, Collector]]:
    """Three hosts that send their spans to one collector."""
    network = LoopbackNetwork()
    with collecting(network.ip(COLLECTOR)) as (collector, address), Cluster(network) as cluster:
        for host in cluster.hosts:
            host.write_settings(f'\n[telemetry]\notlp_endpoint = "http://{address}"\n')
        cluster.found()
        yield cluster, collector


def scrape(host: Host) -> str:
    """The metrics page of a host."""
    with urllib.request.urlopen(f"http://{host.ip}:9464/metrics", timeout=5) as page:
        return str(page.read().decode())


def test_a_northbound_call_joins_the_trace_of_its_caller(traced: tuple[Cluster, Collector]) -> None:
    """Goal: W3C context goes through Envoy. Method: call with a traceparent, look for its trace."""
    cluster, collector = traced
    cluster.wait_whole()
    trace, parent = "a1" * 16, "b2" * 8
    with grpc.insecure_channel(cluster.virtual_address) as channel:
        answer = echo_pb2_grpc.EchoServiceStub(channel).Echo(
            echo_pb2.EchoRequest(message="hello"),
            timeout=5.0,
            metadata=(("traceparent", f"00-{trace}-{parent}-01"),),
        )
    assert answer.message == "hello"
    spans = wait_for(
        lambda: [span for span in collector.spans if span.trace == trace], "the call's span arrives", 20.0
    )
    assert parent in {span.parent for span in spans}


def test_a_call_between_hosts_is_one_trace_of_both(traced: tuple[Cluster, Collector]) -> None:
    """Goal: RPCs between hosts are traced. Method: a transfer asked on a follower goes to the leader."""
    cluster, collector = traced
    leader = cluster.wait_whole()
    follower = cluster.others(leader)[0]
    follower.cluster.TransferLeadership(
        cluster_pb2.TransferLeadershipRequest(host=follower.name), timeout=20.0
    )
    name = "/trellis.cluster.v1.ClusterService/TransferLeadership"

    def both_ends() -> set[str]:
        spans = collector.named(name)
        traces = [span.trace for span in spans]
        return {trace for trace in traces if traces.count(trace) >= 3}  # admin socket, client, leader

    assert wait_for(both_ends, "caller's and leader's spans share a trace", 20.0)
    cluster.wait_whole()


def test_a_failover_is_one_trace_across_the_hosts(traced: tuple[Cluster, Collector]) -> None:
    """Goal: see at night what happened. Method: kill the leader, collect the term's trace."""
    cluster, collector = traced
    old = cluster.wait_whole()
    old.kill()
    new = cluster.wait_leader(cluster.others(old), but=old, within_s=5.0)
    cluster.wait_owner(new)
    status = new.status()
    assert status is not None
    trace = trace_id_of_term(ClusterId(status.cluster_id), Term(status.term))
    other = next(host for host in cluster.others(old) if host is not new)

    def steps() -> set[tuple[str, str]]:
        return {
            (span.name, span.attributes.get("trellis.host", ""))
            for span in collector.spans
            if span.trace == trace
        }

    wanted = {
        ("elected", new.name),
        ("follows", other.name),
        ("ownership-applied", new.name),
        ("ownership-applied", other.name),
        ("vip-listening", new.name),
    }
    wait_for(lambda: wanted <= steps(), f"all steps of {trace} arrive: {wanted}", 20.0)
    events = new.cluster.ListEvents(cluster_pb2.ListEventsRequest(limit=50), timeout=5.0).events
    assert {
        event.trace_id for event in events if event.kind == "host-lost" and event.subject == old.name
    } >= {trace}
    old.start()
    cluster.wait_whole()


def test_metrics_say_who_leads_and_what_runs(traced: tuple[Cluster, Collector]) -> None:
    """Goal: a scrape tells the state of a host. Method: compare with its status."""
    cluster, _ = traced
    leader = cluster.wait_whole()
    for host in cluster.hosts:
        wait_for(lambda host=host: runs_echo(host), f"{host.name}'s metrics say that echo is ready")  # type: ignore[misc]
        page = scrape(host)
        assert re.search(rf"^trellis_raft_is_leader {1.0 if host is leader else 0.0}$", page, re.M)
        assert float(re.findall(r"^trellis_lease_seconds_left (.*)$", page, re.M)[0]) > 0
    assert "trellis_raft_proposals_total" in scrape(leader)


def runs_echo(host: Host) -> bool:
    """By its own supervisor's word; after a restart that comes later than what the state says."""
    ready = re.findall(r'^trellis_instance_ready\{instance="(.*?)",service="echo"\} 1.0$', scrape(host), re.M)
    return any(f"@{host.name}#" in name for name in ready)
