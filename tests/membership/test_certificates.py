"""Renewal, operators' certificates, revocation and trust over real TLS."""

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.duration_pb2 import Duration
from trellis.certificate.v1 import certificate_pb2, certificate_pb2_grpc
from trellis.membership.v1 import membership_pb2, membership_pb2_grpc

from mesh.errors import Denied, InvalidRequest, PeerUnreachable
from mesh.identity.authority import Authority
from mesh.identity.credentials import Credentials
from mesh.identity.files import HostIdentity, IdentityFiles
from mesh.identity.keys import key_to_pem, make_csr, new_key
from mesh.ids import HostId
from mesh.settings.values import Endpoint
from mesh.state.commands import DrainHost, UpdateMember
from mesh.wire.errors import from_rpc_error
from sidecar.membership import join
from sidecar.membership.removal import removal_problems
from sidecar.membership.renew import Renewal
from sidecar.membership.renewal import announcement
from tests.identity.cast import identity as made_by
from tests.membership.founded import Founded, founded, settings
from tests.membership.test_join import token

IP1, IP2 = "127.0.13.1", "127.0.13.2"
OTHER_PORT = Endpoint(IP2, 9400)


async def call(
    cluster: Founded, method: str, request: Any, caller: grpc.ChannelCredentials | None = None
) -> Any:
    """As the operator of the founder's machine, or over TLS as *caller*."""
    options = cluster.credentials.channel_options(HostId("host1"))
    if caller is None:
        channel = grpc.aio.insecure_channel(f"unix:{cluster.settings.admin_socket}")
    else:
        channel = grpc.aio.secure_channel(str(cluster.settings.mesh.address), caller, options=options)
    async with channel:
        stub = certificate_pb2_grpc.CertificateServiceStub(channel)
        try:
            return await getattr(stub, method)(request, timeout=5)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from None


async def joined(cluster: Founded, folder: Path) -> HostIdentity:
    own = settings(folder, "host2", IP2)
    await join(own, await token(cluster), timeout_s=5)
    identity = IdentityFiles(own.identity_dir).load()
    assert identity is not None
    return identity


async def test_a_host_renews_its_own_certificate_and_goes_on(tmp_path: Path) -> None:
    """Goal: the newest serial is known to the cluster, so that removal revokes it.

    Method: renew twice, the second over the first.
    """
    async with founded(tmp_path, IP1) as cluster:
        identity = await joined(cluster, tmp_path)
        credentials = Credentials(identity)

        async def renew(csr_pem: bytes) -> tuple[bytes, bytes]:
            request = certificate_pb2.RenewCertificateRequest(csr_pem=csr_pem)
            answer = await call(cluster, "RenewCertificate", request, credentials.channel_credentials())
            return answer.certificate_pem, answer.ca_pem

        renewal = Renewal(credentials, IdentityFiles(tmp_path / "host2" / "identity"), renew)
        await renewal.renew_now()
        await renewal.renew_now()
        row = cluster.replicated.state.members[identity.member]
        assert row.certificate_serial == f"{credentials.identity.certificate.serial_number:x}"
        assert credentials.generation == 3


async def test_a_removed_host_renews_nothing(tmp_path: Path) -> None:
    """Goal: removal is not undone by a renewal. Method: remove, then ask with the old certificate."""
    async with founded(tmp_path, IP1) as cluster:
        identity = await joined(cluster, tmp_path)
        async with grpc.aio.insecure_channel(f"unix:{cluster.settings.admin_socket}") as channel:
            stub = membership_pb2_grpc.MembershipServiceStub(channel)
            await stub.RemoveHost(membership_pb2.RemoveHostRequest(host="host2", force=True), timeout=5)
        request = certificate_pb2.RenewCertificateRequest(csr_pem=make_csr(new_key(), "host2"))
        with pytest.raises(Denied, match="revoked"):
            await call(cluster, "RenewCertificate", request, Credentials(identity).channel_credentials())


async def test_an_operator_gets_a_certificate_that_works_until_it_is_revoked(tmp_path: Path) -> None:
    """Goal: a lost laptop is locked out. Method: issue, call, revoke in upper-case hex, call."""
    async with founded(tmp_path, IP1) as cluster:
        key = new_key()
        request = certificate_pb2.IssueOperatorCertificateRequest(
            name="alice", csr_pem=make_csr(key, "alice"), lifetime=Duration(seconds=3600)
        )
        issued = await call(cluster, "IssueOperatorCertificate", request)
        alice = grpc.ssl_channel_credentials(issued.ca_pem, key_to_pem(key), issued.certificate_pem)
        trust = await call(cluster, "GetTrust", certificate_pb2.GetTrustRequest(), alice)
        assert trust.ca_pem == cluster.identity.ca_pem
        assert list(trust.revoked_serials) == []
        serial = f"{x509.load_pem_x509_certificate(issued.certificate_pem).serial_number:X}"
        revoke = certificate_pb2.RevokeCertificateRequest(serial=serial, reason="laptop lost")
        await call(cluster, "RevokeCertificate", revoke)
        with pytest.raises(Denied, match="revoked"):
            await call(cluster, "GetTrust", certificate_pb2.GetTrustRequest(), alice)


async def test_hosts_may_not_issue_and_lifetimes_are_bounded(tmp_path: Path) -> None:
    """Goal: a stolen host makes no operators.

    Method: ask as a host, then with a bad name and too long a life.
    """
    async with founded(tmp_path, IP1) as cluster:
        request = certificate_pb2.IssueOperatorCertificateRequest(
            name="Alice!", csr_pem=make_csr(new_key(), "a"), lifetime=Duration(seconds=3600)
        )
        with pytest.raises(Denied):
            await call(
                cluster, "IssueOperatorCertificate", request, cluster.credentials.channel_credentials()
            )
        with pytest.raises(InvalidRequest, match="name"):
            await call(cluster, "IssueOperatorCertificate", request)
        request.lifetime.FromTimedelta(timedelta(days=31))
        with pytest.raises(InvalidRequest, match="lifetime"):
            await call(cluster, "IssueOperatorCertificate", request)


async def test_a_host_of_a_cluster_founded_twice_gets_no_connection(tmp_path: Path) -> None:
    """Method: both clusters have a host1.1 of the same name; only the authority differs."""
    async with founded(tmp_path / "other", IP2) as other:
        stranger = other.identity
    async with founded(tmp_path, IP1) as cluster:
        trusting = grpc.ssl_channel_credentials(
            cluster.identity.ca_pem, stranger.key_pem, stranger.certificate_pem
        )
        with pytest.raises(PeerUnreachable):
            await call(cluster, "GetTrust", certificate_pb2.GetTrustRequest(), trusting)


async def test_a_host_announces_what_its_settings_have_changed(tmp_path: Path) -> None:
    """Goal: others learn a new address, and nothing is proposed without news.

    Method: same, changed, renewed, foreign.
    """
    async with founded(tmp_path, IP1) as cluster:
        state, own = cluster.replicated.state, cluster.settings
        assert announcement(state, own, cluster.identity) is None
        identity = await joined(cluster, tmp_path)
        theirs = settings(tmp_path, "host2", IP2)
        command = announcement(state, theirs, identity)
        assert isinstance(command, UpdateMember)
        await cluster.replicated.propose(command)
        assert state.members[identity.member].northbound == f"{IP2}:8080"
        assert announcement(state, theirs, identity) is None
        row = state.members[identity.member]
        assert row.join_address == "", "the port after the mesh port needs no word"
        moved = theirs.model_copy(
            update={"mesh": theirs.mesh.model_copy(update={"join_address": OTHER_PORT})}
        )
        said = announcement(state, moved, identity)
        assert said == UpdateMember(replace(row, join_address=str(OTHER_PORT)))
        await cluster.replicated.propose(UpdateMember(replace(row, certificate_serial="abc")))
        assert announcement(state, theirs, identity) == UpdateMember(row)
        foreign, _ = made_by(Authority.create(identity.cluster_id, time.time_ns()), "host9.1", time.time_ns())
        assert announcement(state, theirs, foreign) is None


async def test_what_speaks_against_a_removal(tmp_path: Path) -> None:
    """Goal: nobody removes the quorum or the last room by mistake.

    Method: reasons for a living, a drained and an unknown host.
    """
    async with founded(tmp_path, IP1) as cluster:
        await joined(cluster, tmp_path)
        await cluster.heard_from("host2")
        state = cluster.replicated.state
        assert [problem.problem for problem in removal_problems(state, HostId("host1"))] == [
            "host1 is alive and in service",
            "without host1 only 0 of 0 voters are alive, too few to decide",
        ]
        await cluster.replicated.propose(DrainHost(HostId("host2"), draining=True))
        assert removal_problems(state, HostId("host2")) == ()
        await cluster.replicated.propose(DrainHost(HostId("host1"), draining=True))
        assert "no other host could run" in removal_problems(state, HostId("host2"))[0].problem
        assert removal_problems(state, HostId("nobody")) == ()
