"""Calls over real TLS: who gets in, as whom, and when an open call ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc

from mesh.adapters.errors_interceptor import ErrorsInterceptor
from mesh.errors import Denied, InvariantBroken, PeerUnreachable
from mesh.identity.credentials import Credentials
from mesh.identity.interceptor import (
    ON_BEHALF,
    AuthorisationInterceptor,
    Listener,
    forwarding_metadata,
    present_caller,
)
from mesh.identity.keys import key_to_pem, make_csr, new_key
from mesh.identity.table import build_table
from mesh.ids import HostId
from mesh.ports import MeshIdentity
from mesh.wire.errors import from_rpc_error
from tests.identity.cast import CLUSTER, OTHER_CLUSTER, authority, credentials, identity

CA = authority()


class WhoCalls(cluster_pb2_grpc.ClusterServiceServicer):
    """Answers with the caller; a watch answers once and then waits."""

    async def _none(self, request: Any, context: Any) -> Any:
        raise InvariantBroken("nobody was to get this far")

    TransferLeadership = ListEvents = DrainHost = _none

    async def GetStatus(  # noqa: N802  # named by the contract
        self, request: cluster_pb2.GetStatusRequest, context: Any
    ) -> cluster_pb2.GetStatusResponse:
        return cluster_pb2.GetStatusResponse(host_id=str(present_caller()))

    async def WatchEvents(  # noqa: N802  # named by the contract
        self, request: cluster_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[cluster_pb2.WatchEventsResponse]:
        yield cluster_pb2.WatchEventsResponse()
        await asyncio.Event().wait()


@dataclass
class Door:
    """A running listener and what its interceptor looks at."""

    interceptor: AuthorisationInterceptor
    own: Credentials
    address: str = ""
    revoked: set[str] = field(default_factory=set)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    removed: set[str] = field(default_factory=set)

    def channel(self, caller: Credentials) -> grpc.aio.Channel:
        return caller.channel(HostId("host1"), self.address)


def _fail(error: InvariantBroken) -> None:
    raise error


@asynccontextmanager
async def door(listener: Listener, socket: Path | None = None) -> AsyncIterator[Door]:
    revoked: set[str] = set()
    opened: list[Door] = []
    interceptor = AuthorisationInterceptor(
        listener,
        CLUSTER,
        build_table(),
        revoked.__contains__,
        lambda: opened[0].now,
        lambda member: member in opened[0].removed,
    )
    opened.append(Door(interceptor, credentials(CA, "host1.1"), revoked=revoked))
    server = grpc.aio.server(interceptors=[ErrorsInterceptor(_fail), interceptor])
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(WhoCalls(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    reflection.enable_server_reflection([reflection.SERVICE_NAME], server)
    if socket is None:
        secure = opened[0].own.server_credentials(require_client=listener is Listener.MESH)
        opened[0].address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', secure)}"
    else:
        opened[0].address = f"unix:{socket}"
        server.add_insecure_port(opened[0].address)
    await server.start()
    try:
        yield opened[0]
    finally:
        await server.stop(0)


async def who(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> str:
    stub = cluster_pb2_grpc.ClusterServiceStub(channel)
    try:
        answer = await stub.GetStatus(cluster_pb2.GetStatusRequest(), metadata=metadata, timeout=5)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from None
    return answer.host_id


async def transfer(channel: grpc.aio.Channel) -> None:
    stub = cluster_pb2_grpc.ClusterServiceStub(channel)
    try:
        await stub.TransferLeadership(cluster_pb2.TransferLeadershipRequest(), timeout=5)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from None


async def test_a_host_is_known_by_its_certificate_and_called_by_name() -> None:
    """Goal: who calls is proven, not claimed; roles bound what they may.

    Method: a host's call and an operator's.
    """
    async with door(Listener.MESH) as mesh, mesh.channel(credentials(CA, "host2.7")) as channel:
        assert await who(channel) == "host host2.7"
        with pytest.raises(Denied, match="only a caller of role operator"):
            await transfer(channel)


async def test_a_host_may_call_for_an_operator_and_nobody_else_may() -> None:
    """Goal: an operator cannot pose as another.

    Method: the header from a host, a bad role, and from an operator.
    """
    key = new_key()
    issued = CA.issue_operator("alice", make_csr(key, "alice"), time.time_ns())
    alice = grpc.ssl_channel_credentials(CA.certificate_pem, key_to_pem(key), issued.certificate_pem)
    for_bob = ((ON_BEHALF, "operator/bob"),)
    async with door(Listener.MESH) as mesh:
        async with mesh.channel(credentials(CA, "host2.1")) as channel:
            assert await who(channel, for_bob) == "operator bob"
            with pytest.raises(Denied, match="no role"):
                await who(channel, ((ON_BEHALF, "king/bob"),))
        options = mesh.own.channel_options(HostId("host1"))
        async with grpc.aio.secure_channel(mesh.address, alice, options=options) as channel:
            assert await who(channel, for_bob) == "operator alice"


async def test_a_certificate_of_another_authority_gets_no_connection() -> None:
    """Goal: TLS refuses before any method runs. Method: a stranger that trusts us."""
    stranger = identity(authority(), "host2.1")[0]
    trusting = Credentials(stranger.renewed(stranger.key_pem, stranger.certificate_pem, CA.certificate_pem))
    async with door(Listener.MESH) as mesh, mesh.channel(trusting) as channel:
        with pytest.raises(PeerUnreachable):
            await who(channel)


async def test_a_server_of_another_name_is_not_spoken_to() -> None:
    """Goal: a reused address is not taken for the former host. Method: call host1's port as host3."""
    async with door(Listener.MESH) as mesh:
        caller = credentials(CA, "host2.1")
        async with caller.channel(HostId("host3"), mesh.address) as channel:
            with pytest.raises(PeerUnreachable):
                await who(channel)


async def test_a_cluster_id_that_differs_is_refused_even_under_the_same_authority() -> None:
    """Goal: a copied authority does not join two clusters. Method: the same key, another id."""
    other = type(CA)(OTHER_CLUSTER, CA.certificate, CA.key)
    made = identity(other, "host2.1")[0]
    async with door(Listener.MESH) as mesh:
        options = mesh.own.channel_options(HostId("host1"))
        secure = grpc.ssl_channel_credentials(CA.certificate_pem, made.key_pem, made.certificate_pem)
        async with grpc.aio.secure_channel(mesh.address, secure, options=options) as channel:
            with pytest.raises(Denied, match="Two clusters do not talk"):
                await who(channel)


async def test_revocation_ends_an_open_stream_and_refuses_the_next_call() -> None:
    """Goal: revocation is not waited for. Method: an open watch, revoke, recheck."""
    made, issued = identity(CA, "host2.1")
    async with door(Listener.MESH) as mesh, mesh.channel(Credentials(made)) as channel:
        watch = cluster_pb2_grpc.ClusterServiceStub(channel).WatchEvents(cluster_pb2.WatchEventsRequest())
        await watch.read()
        assert mesh.interceptor.recheck() == 0
        mesh.revoked.add(issued.serial)
        assert mesh.interceptor.recheck() == 1
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watch.read()
        assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "revoked" in str(ended.value.details())
        with pytest.raises(Denied, match="revoked"):
            await who(channel)
        assert mesh.interceptor.recheck() == 0


async def test_an_earlier_certificate_of_a_removed_member_is_no_way_in(tmp_path: Path) -> None:
    """Goal: only the newest certificate is revoked by a removal; older ones must not outlive it."""
    async with door(Listener.MESH) as mesh, mesh.channel(credentials(CA, "host2.1")) as channel:
        assert await who(channel) == "host host2.1"
        mesh.removed.add("host2.1")
        with pytest.raises(Denied, match="not of this cluster any more"):
            await who(channel)


async def test_a_certificate_that_runs_out_on_an_open_channel_is_refused() -> None:
    """Goal: an old connection does not outlive its proof. Method: move the clock by eight days."""
    async with door(Listener.MESH) as mesh, mesh.channel(credentials(CA, "host2.1")) as channel:
        watch = cluster_pb2_grpc.ClusterServiceStub(channel).WatchEvents(cluster_pb2.WatchEventsRequest())
        await watch.read()
        mesh.now += timedelta(days=8)
        with pytest.raises(Denied, match="ran out"):
            await who(channel)
        assert mesh.interceptor.recheck() == 1
        with pytest.raises(grpc.aio.AioRpcError):
            await watch.read()


async def test_a_call_cancelled_by_its_caller_is_just_cancelled() -> None:
    """Goal: such a call is forgotten, and no bug is reported.

    Method: cancel a watch, revoke, and see that none is left to end.
    """
    made, issued = identity(CA, "host2.1")
    async with door(Listener.MESH) as mesh, mesh.channel(Credentials(made)) as channel:
        watch = cluster_pb2_grpc.ClusterServiceStub(channel).WatchEvents(cluster_pb2.WatchEventsRequest())
        await watch.read()
        watch.cancel()
        assert await who(channel) == "host host2.1"
        async with asyncio.timeout(5):
            while mesh.interceptor._open:
                await asyncio.sleep(0.005)
        mesh.revoked.add(issued.serial)
        assert mesh.interceptor.recheck() == 0


async def test_the_sockets_and_the_join_listener_have_their_own_callers(tmp_path: Path) -> None:
    """Goal: where a call arrives decides who it is. Method: each listener with the same methods."""
    path = tmp_path / "a"
    async with door(Listener.ADMIN_SOCKET, path), grpc.aio.insecure_channel(f"unix:{path}") as channel:
        assert await who(channel) == "operator local"
    async with (
        door(Listener.SERVICE_SOCKET, path),
        grpc.aio.insecure_channel(f"unix:{path}") as channel,
    ):
        assert await who(channel) == "service local"
        with pytest.raises(Denied):
            await transfer(channel)
    async with door(Listener.JOIN) as joining, joining.channel(credentials(CA, "host2.1")) as channel:
        with pytest.raises(Denied, match="called by anonymous"):
            await who(channel)


async def test_a_renewed_server_certificate_is_used_by_the_next_handshake() -> None:
    """Goal: renewal needs no restart. Method: replace by one of another name and call that."""
    async with door(Listener.MESH) as mesh:
        caller = credentials(CA, "host2.1")
        as_the_transport_sees_it: MeshIdentity = caller
        assert as_the_transport_sees_it.authority_of(HostId("a")) == f"a.{CLUSTER}.trellis"
        told: list[int] = []
        mesh.own.on_replaced(lambda: told.append(mesh.own.generation))
        other_name, _ = identity(CA, "host9.1")
        mesh.own.replace(other_name)
        assert told == [2]
        async with caller.channel(HostId("host9"), mesh.address) as channel:
            assert await who(channel) == "host host2.1"


async def test_health_is_for_all_and_reflection_for_operators(tmp_path: Path) -> None:
    """Method: the servicers of grpcio themselves, one of which writes its stream through the context."""
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    path = tmp_path / "a"
    async with door(Listener.ADMIN_SOCKET, path), grpc.aio.insecure_channel(f"unix:{path}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        asked = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([question]))
        answer = await asked.read()
        assert [each.name for each in answer.list_services_response.service] == [reflection.SERVICE_NAME]
        asked.cancel()
    async with door(Listener.MESH) as mesh, mesh.channel(credentials(CA, "host2.1")) as channel:
        assert await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        asked = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([question]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asked.read()
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_peer_is_a_host_of_this_cluster_or_denied() -> None:
    """Goal: Raft streams are open to hosts only.

    Method: a host, an operator, another cluster's host, nobody.
    """
    own = credentials(CA, "host1.1")
    other = type(CA)(OTHER_CLUSTER, CA.certificate, CA.key)
    key = new_key()
    alice = CA.issue_operator("alice", make_csr(key, "alice"), time.time_ns())
    proven = identity(CA, "host2.4")[0].certificate_pem
    assert own.check_peer({"x509_pem_cert": [proven]}) == "host2"
    for certificate in (alice.certificate_pem, identity(other, "host2.4")[0].certificate_pem):
        with pytest.raises(Denied, match="is not a host"):
            own.check_peer({"x509_pem_cert": [certificate]})
    with pytest.raises(Denied, match="no client certificate"):
        own.check_peer({})


def test_outside_a_call_nobody_calls() -> None:
    """Goal: background work does not borrow a caller's rights. Method: ask outside of a call."""
    assert forwarding_metadata() == ((ON_BEHALF, "anonymous/"),)
