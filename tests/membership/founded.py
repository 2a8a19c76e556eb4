"""A founded cluster of one host, with its services on real TLS and its state applied at once.

The state machine is the real one; in place of consensus each command is applied
where it is proposed, as with a single voter.
"""

import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
from trellis.certificate.v1 import certificate_pb2_grpc
from trellis.membership.v1 import membership_pb2_grpc

from mesh.adapters.errors_interceptor import ErrorsInterceptor
from mesh.errors import InvariantBroken, Unavailable
from mesh.identity.credentials import Credentials
from mesh.identity.files import HostIdentity, IdentityFiles
from mesh.identity.interceptor import AuthorisationInterceptor, Listener
from mesh.identity.table import build_table
from mesh.ids import HostId, Index
from mesh.settings import HostSettings, parse_settings
from mesh.state import Applied, ClusterState, Command, Rejected, Request, apply, error_of
from mesh.state.commands import SetHostStatus
from mesh.state.model import HostStatus
from sidecar.membership.admission import Admission
from sidecar.membership.founding import load_founding
from sidecar.membership.init import founding_path, initialise
from sidecar.membership.issuer import Issuer
from sidecar.membership.server import CertificateServicer, MembershipServicer
from sidecar.membership.version import own_version


def settings(folder: Path, name: str, ip: str) -> HostSettings:
    text = f"""
        [host]
        name = "{name}"
        data_dir = "{folder / name}"
        run_dir = "{folder / name / "run"}"
        [mesh]
        address = "{ip}:7400"
        [join]
        disk_mib_min = 1
        memory_mib_min = 1
        """
    return parse_settings(tomllib.loads(text))


class AppliedAtOnce:
    """`Replicated` of one host; `lose_answers` applies commands and then says it does not know."""

    def __init__(self) -> None:
        self.state = ClusterState()
        self.lose_answers = 0
        self.has_leader = True

    async def propose(self, command: Command, *, timeout_s: float = 5, at_ns: int = 0) -> Applied:
        index = Index(self.state.applied + 1)
        outcome = apply(self.state, index, Request(command, at_ns=at_ns)).outcome
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("the answer was lost")
        if isinstance(outcome, Rejected):
            raise error_of(outcome)
        return outcome

    async def barrier(self, *, timeout_s: float = 5) -> Index:
        if not self.has_leader:
            raise Unavailable("no leader is known")
        return self.state.applied


class Watched:
    """What is observed of hosts: the founder leads."""

    def leading_host(self) -> HostId | None:
        return HostId("host1")

    def beat_age_ns(self, host: HostId) -> int | None:
        return 7_000_000 if host == "host1" else None

    def applied_index(self, host: HostId) -> int:
        return 3


class Founded:
    """The founder's side of everything."""

    def __init__(self, own: HostSettings, identity: HostIdentity) -> None:
        self.settings = own
        self.identity = identity
        self.files = IdentityFiles(own.identity_dir)
        self.credentials = Credentials(identity)
        self.replicated = AppliedAtOnce()
        self.skew_ns = 0
        lifetime = timedelta(hours=own.mesh.certificate_hours)
        self.issuer = Issuer(
            identity.cluster_id, identity.sealing_key, lambda: self.replicated.state, lifetime, self.now_ns
        )
        self.admission = Admission(
            self.replicated,
            self.issuer,
            version=own_version(),
            clock_skew_ms_max=own.join.clock_skew_ms_max,
            now_ns=self.now_ns,
        )
        self.servicer = MembershipServicer(
            replicated=self.replicated,
            issuer=self.issuer,
            observed=Watched(),
            admission=self.admission,
            own_host=identity.host,
            join_address=str(own.mesh.join_address),
            leader_channel=lambda: None,
            now_ns=self.now_ns,
        )
        self.certificates = CertificateServicer(
            replicated=self.replicated, issuer=self.issuer, now_ns=self.now_ns
        )

    def now_ns(self) -> int:
        return time.time_ns() + self.skew_ns

    async def heard_from(self, host: str, status: HostStatus = HostStatus.ALIVE) -> None:
        """The leader's verdict about a host that has joined; before it, the host counts as lost."""
        record = self.replicated.state.hosts[HostId(host)]
        await self.replicated.propose(SetHostStatus(record.host, record.member, status))

    def server(self, listener: Listener) -> grpc.aio.Server:
        guard = AuthorisationInterceptor(
            listener,
            self.identity.cluster_id,
            build_table(),
            lambda serial: serial in self.replicated.state.revoked,
        )
        server = grpc.aio.server(interceptors=[ErrorsInterceptor(_fail), guard])
        membership_pb2_grpc.add_MembershipServiceServicer_to_server(self.servicer, server)
        certificate_pb2_grpc.add_CertificateServiceServicer_to_server(self.certificates, server)
        return server


def _fail(error: InvariantBroken) -> None:
    raise error


@asynccontextmanager
async def founded(folder: Path, ip: str) -> AsyncIterator[Founded]:
    """host1 has founded a cluster, has applied its first content, and listens."""
    own = settings(folder, "host1", ip)
    initialise(own)
    identity = IdentityFiles(own.identity_dir).load()
    assert identity is not None
    cluster = Founded(own, identity)
    founding = load_founding(founding_path(own))
    assert founding is not None
    await cluster.replicated.propose(founding.command)
    mesh, joining, admin = (
        cluster.server(each) for each in (Listener.MESH, Listener.JOIN, Listener.ADMIN_SOCKET)
    )
    own.host.run_dir.mkdir(parents=True)
    mesh.add_secure_port(str(own.mesh.address), cluster.credentials.server_credentials())
    joining.add_secure_port(
        str(own.mesh.join_address), cluster.credentials.server_credentials(require_client=False)
    )
    admin.add_insecure_port(f"unix:{own.admin_socket}")
    servers = (mesh, joining, admin)
    for server in servers:
        await server.start()
    try:
        yield cluster
    finally:
        for server in servers:
            await server.stop(0)
