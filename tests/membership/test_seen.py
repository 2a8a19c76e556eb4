"""A follower shows what only the leader knows of the hosts, and its own view when there is nobody to ask."""

from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from trellis.membership.v1 import membership_pb2 as pb
from trellis.membership.v1 import membership_pb2_grpc

from mesh.errors import PeerUnreachable
from mesh.identity import interceptor
from mesh.identity.credentials import Credentials
from mesh.identity.names import Caller, Role
from mesh.ids import HostId
from sidecar.membership.seen import completed, seen_by_leader
from tests.membership.founded import founded
from tests.membership.test_certificates import joined

IP1 = "127.0.14.1"


async def test_the_leader_is_asked_in_the_callers_name_for_what_it_has_seen(tmp_path: Path) -> None:
    """Goal: ages and indices arrive over mTLS. Method: a host that has joined asks the founder."""
    async with founded(tmp_path, IP1) as cluster:
        own = Credentials(await joined(cluster, tmp_path))
        options = own.channel_options(HostId("host1"))
        address = str(cluster.settings.mesh.address)
        async with grpc.aio.secure_channel(address, own.channel_credentials(), options=options) as channel:
            assert await seen_by_leader(lambda: channel, timeout_s=5) == {}, "an anonymous caller's question"
            asking = interceptor._present.set(Caller(Role.OPERATOR, "alice"))
            try:
                seen = await seen_by_leader(lambda: channel, timeout_s=5)
            finally:
                interceptor._present.reset(asking)
    assert seen[HostId("host1")].last_beat_age == Duration(nanos=7_000_000)
    assert {host: row.applied_index for host, row in seen.items()} == {"host1": 3, "host2": 3}


async def test_without_an_answer_of_the_leader_nothing_is_made_up(tmp_path: Path) -> None:
    """Goal: nobody leads, it is a stranger, it refuses: each gives an empty view and no error."""

    def stranger() -> grpc.aio.Channel:
        raise PeerUnreachable("host9 is not known here yet")

    assert await seen_by_leader(lambda: None, timeout_s=5) == {}
    assert await seen_by_leader(stranger, timeout_s=5) == {}
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'nobody.sock'}") as channel:
        assert await seen_by_leader(lambda: channel, timeout_s=0.5) == {}


async def test_a_host_that_leads_asks_nobody(tmp_path: Path) -> None:
    """Goal: its own view is the answer. Method: the founder lists its hosts."""
    async with (
        founded(tmp_path, IP1) as cluster,
        grpc.aio.insecure_channel(f"unix:{cluster.settings.admin_socket}") as channel,
    ):
        stub = membership_pb2_grpc.MembershipServiceStub(channel)
        answer = await stub.ListHosts(pb.ListHostsRequest(), timeout=5)
    assert [(row.host, row.last_beat_age.nanos) for row in answer.hosts] == [("host1", 7_000_000)]


def test_rows_are_completed_and_those_of_another_incarnation_are_not() -> None:
    """Goal: what is known here stays; an answer about an earlier life of a host is no answer."""
    own = [
        pb.Host(host="host1", member="host1.1", applied_index=9),
        pb.Host(host="host2", member="host2.2"),
        pb.Host(host="host3", member="host3.3"),
    ]
    seen = {
        HostId("host1"): pb.Host(host="host1", member="host1.1"),
        HostId("host2"): pb.Host(
            host="host2", member="host2.2", applied_index=8, last_beat_age=Duration(nanos=5)
        ),
        HostId("host3"): pb.Host(host="host3", member="host3.2", applied_index=7),
    }
    first, second, third = completed(own, seen)
    assert (first.applied_index, first.HasField("last_beat_age")) == (9, False)
    assert (second.applied_index, second.last_beat_age.nanos) == (8, 5)
    assert third.applied_index == 0
