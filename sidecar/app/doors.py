"""Which services stand behind which listener (see listeners for what the doors are)."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc
from trellis.certificate.v1 import certificate_pb2, certificate_pb2_grpc
from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc
from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc
from trellis.database.v1 import database_pb2, database_pb2_grpc
from trellis.heartbeat.v1 import heartbeat_pb2_grpc
from trellis.membership.v1 import membership_pb2, membership_pb2_grpc
from trellis.supervisor.v1 import supervisor_pb2, supervisor_pb2_grpc

from mesh.adapters.clock import wall_ns
from mesh.identity.interceptor import Listener, present_caller
from mesh.identity.names import Role
from mesh.ids import HostId
from sidecar.admin.cluster_server import ClusterServicer
from sidecar.admin.documents_server import ConfigSyncServicer
from sidecar.admin.services_server import SupervisorServicer
from sidecar.app.listeners import Door, Listeners, Register
from sidecar.app.observed import LocalInstances
from sidecar.leadership.server import HeartbeatServicer
from sidecar.membership.admission import Admission
from sidecar.membership.server import CertificateServicer, MembershipServicer
from sidecar.membership.standing import is_removed
from sidecar.postgres.operator_server import DatabaseServicer
from sidecar.postgres.peer_server import DatabasePeerServicer

if TYPE_CHECKING:
    from sidecar.app.sidecar import Sidecar

NAMES = tuple(
    service.full_name
    for contract in (
        certificate_pb2,
        cluster_pb2,
        config_sync_pb2,
        database_pb2,
        membership_pb2,
        supervisor_pb2,
    )
    for service in contract.DESCRIPTOR.services_by_name.values()
)


def calling_host() -> HostId | None:
    """The host that makes the call being handled; None for anybody else."""
    caller = present_caller()
    return HostId(caller.name) if caller.role is Role.HOST else None


class Doors:
    """Opens the listeners of one sidecar."""

    def __init__(self, sidecar: "Sidecar") -> None:
        self._sidecar = sidecar
        state = sidecar.replica
        self._listeners = Listeners(
            credentials=sidecar.credentials,
            is_revoked=lambda serial: serial in state.state.revoked,
            is_removed=lambda member: is_removed(state.state, member),
            on_bug=sidecar.fail,
        )
        self._make_servicers()

    def _make_servicers(self) -> None:
        made = self._sidecar
        self._cluster = ClusterServicer(
            replica=made.replica, member=made, northbound=made.routing, version=made.version
        )
        self._documents = ConfigSyncServicer(made.replica)
        self._supervisor = SupervisorServicer(
            replica=made.replica,
            instances=LocalInstances(made.supervisor, made.observed),
            channel_to=made.channel_to,
        )
        self._heartbeat = HeartbeatServicer(
            cluster=made.cluster,
            answers=made.core.answers,
            leader=lambda: made.node.leader,
            caller=calling_host,
        )
        admission = Admission(
            made.replica,
            made.issuer,
            version=made.version,
            clock_skew_ms_max=made.settings.join.clock_skew_ms_max,
            now_ns=wall_ns,
        )
        self._membership = MembershipServicer(
            replicated=made.replica,
            issuer=made.issuer,
            observed=made.node,
            admission=admission,
            own_host=made.host_id,
            join_address=str(made.settings.mesh.join_address),
            leader_channel=self._leader_channel,
            now_ns=wall_ns,
        )
        self._certificate = CertificateServicer(replicated=made.replica, issuer=made.issuer, now_ns=wall_ns)

        self._database = DatabaseServicer(
            own=made.member,
            replica=made.replica,
            members=made,
            leadership=lambda: made.leading.database if made.node.duty is not None else None,
            look=made.database.look,
            checkpoint=made.database.checkpoint,
            backups=made.database.backups,
        )
        self._database_peer = DatabasePeerServicer(
            cluster=made.cluster,
            host=made.host_id,
            driver=made.database.driver,
            leader=made.node.leading_host,
            caller=calling_host,
        )

    def _leader_channel(self) -> grpc.aio.Channel | None:
        made = self._sidecar
        leader = made.node.leader
        return None if leader in (None, made.member) else made.channel_to(leader)

    def recheck(self) -> None:
        """A certificate was revoked."""
        self._listeners.recheck()

    def _operators(self) -> tuple[Register, ...]:
        return (
            lambda server: cluster_pb2_grpc.add_ClusterServiceServicer_to_server(self._cluster, server),
            lambda server: config_sync_pb2_grpc.add_ConfigSyncServiceServicer_to_server(
                self._documents, server
            ),
            lambda server: supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server(
                self._supervisor, server
            ),
            lambda server: membership_pb2_grpc.add_MembershipServiceServicer_to_server(
                self._membership, server
            ),
            lambda server: certificate_pb2_grpc.add_CertificateServiceServicer_to_server(
                self._certificate, server
            ),
            lambda server: database_pb2_grpc.add_DatabaseServiceServicer_to_server(self._database, server),
        )

    async def open_mesh(self) -> grpc.aio.Server:
        """The door for other hosts. Fails: SettingsError when the address is taken."""
        made = self._sidecar
        services: Iterable[Register] = (
            made.consensus.add_to,
            lambda server: heartbeat_pb2_grpc.add_HeartbeatServiceServicer_to_server(self._heartbeat, server),
            lambda server: database_pb2_grpc.add_DatabasePeerServiceServicer_to_server(
                self._database_peer, server
            ),
            *self._operators(),
        )
        return await self._listeners.open_mesh(str(made.settings.mesh.address), services)

    async def open_local(self) -> list[Door]:
        """The doors for joining hosts, for operators of this machine and for its instances."""
        settings = self._sidecar.settings
        join = await self._listeners.open_join(
            settings.mesh.join_address,
            settings.host.run_dir / "join.sock",
            [
                lambda server: membership_pb2_grpc.add_MembershipServiceServicer_to_server(
                    self._membership, server
                )
            ],
        )
        admin = await self._listeners.open_socket(
            settings.admin_socket, Listener.ADMIN_SOCKET, self._operators(), mode=0o600, names=NAMES
        )
        # Only root runs services as other users, who have to reach it.
        mode = 0o666 if os.geteuid() == 0 else 0o600
        service = await self._listeners.open_socket(
            settings.service_socket, Listener.SERVICE_SOCKET, self._operators(), mode=mode
        )
        return [join, admin, service]
