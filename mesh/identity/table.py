"""Who may call what: one table, full method name to roles.

Where a `.proto` restricts a method by its policy option, that is the rule.
Everything else stands here by name; a method found in neither place cannot be
called, and fails the tests.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from trellis.certificate.v1 import certificate_pb2
from trellis.cluster.v1 import cluster_pb2
from trellis.common.v1 import policy_pb2
from trellis.config_sync.v1 import config_sync_pb2
from trellis.database.v1 import database_pb2
from trellis.echo.v1 import echo_pb2
from trellis.election.v1 import election_pb2
from trellis.heartbeat.v1 import heartbeat_pb2
from trellis.lcm.v1 import lcm_pb2
from trellis.membership.v1 import membership_pb2
from trellis.replication.v1 import replication_pb2
from trellis.supervisor.v1 import supervisor_pb2

from mesh.errors import Denied
from mesh.identity.names import Caller, Role

Roles = frozenset[Role]
Table = Mapping[str, Roles]

HOSTS: Final = frozenset({Role.HOST})
OPERATORS: Final = frozenset({Role.OPERATOR})
#: Anyone who has proven to be of the cluster.
MEMBERS: Final = frozenset({Role.HOST, Role.OPERATOR, Role.SERVICE})
#: Also callers without any certificate.
ANYONE: Final = frozenset(Role)

CONTRACTS: Final[tuple[FileDescriptor, ...]] = (
    certificate_pb2.DESCRIPTOR,
    cluster_pb2.DESCRIPTOR,
    config_sync_pb2.DESCRIPTOR,
    database_pb2.DESCRIPTOR,
    echo_pb2.DESCRIPTOR,
    election_pb2.DESCRIPTOR,
    heartbeat_pb2.DESCRIPTOR,
    lcm_pb2.DESCRIPTOR,
    membership_pb2.DESCRIPTOR,
    replication_pb2.DESCRIPTOR,
    supervisor_pb2.DESCRIPTOR,
)

#: Methods without roles in their contract.
NAMED: Final[Table] = MappingProxyType(
    {
        # Between members only: these carry the log, votes and leases.
        "/trellis.election.v1.ElectionService/Elect": HOSTS,
        "/trellis.replication.v1.ReplicationService/Append": HOSTS,
        "/trellis.replication.v1.ReplicationService/InstallSnapshot": HOSTS,
        "/trellis.replication.v1.ReplicationService/Propose": HOSTS,
        "/trellis.replication.v1.ReplicationService/ReadIndex": HOSTS,
        "/trellis.heartbeat.v1.HeartbeatService/Beat": HOSTS,
        # Between members too: a sealed host gives up following its primary.
        "/trellis.database.v1.DatabasePeerService/Seal": HOSTS,
        "/trellis.database.v1.DatabasePeerService/Checkpoint": HOSTS,
        "/trellis.database.v1.DatabasePeerService/Look": HOSTS,
        # Proven by a token instead of a certificate.
        "/trellis.membership.v1.MembershipService/Join": ANYONE,
        "/trellis.membership.v1.MembershipService/ListHosts": MEMBERS,
        "/trellis.certificate.v1.CertificateService/GetTrust": MEMBERS,
        "/trellis.cluster.v1.ClusterService/GetStatus": MEMBERS,
        "/trellis.cluster.v1.ClusterService/ListEvents": MEMBERS,
        "/trellis.cluster.v1.ClusterService/WatchEvents": MEMBERS,
        "/trellis.config_sync.v1.ConfigSyncService/PutDocument": MEMBERS,
        "/trellis.config_sync.v1.ConfigSyncService/DeleteDocument": MEMBERS,
        "/trellis.config_sync.v1.ConfigSyncService/GetDocument": MEMBERS,
        "/trellis.config_sync.v1.ConfigSyncService/ListDocuments": MEMBERS,
        "/trellis.config_sync.v1.ConfigSyncService/GetDocumentHistory": MEMBERS,
        "/trellis.config_sync.v1.ConfigSyncService/WatchDocuments": MEMBERS,
        "/trellis.supervisor.v1.SupervisorService/ListServices": MEMBERS,
        "/trellis.database.v1.DatabaseService/GetStatus": MEMBERS,
        # Served by an instance behind Envoy, not by the sidecar.
        "/trellis.echo.v1.EchoService/Echo": ANYONE,
        "/trellis.echo.v1.EchoService/Count": ANYONE,
        "/trellis.echo.v1.EchoService/EchoStream": ANYONE,
        # The same; it asks its callers itself (services/lcm/access.py).
        "/trellis.lcm.v1.DeploymentService/CreateDeployment": ANYONE,
        "/trellis.lcm.v1.DeploymentService/GetDeployment": ANYONE,
        "/trellis.lcm.v1.DeploymentService/ListDeployments": ANYONE,
        "/trellis.lcm.v1.DeploymentService/UpdateDeployment": ANYONE,
        "/trellis.lcm.v1.DeploymentService/DeleteDeployment": ANYONE,
        "/trellis.lcm.v1.DeploymentService/WatchDeployments": ANYONE,
        "/trellis.lcm.v1.OperationService/GetOperation": ANYONE,
        "/trellis.lcm.v1.OperationService/ListOperations": ANYONE,
        "/trellis.lcm.v1.OperationService/WaitOperation": ANYONE,
        "/trellis.lcm.v1.OperationService/WatchOperation": ANYONE,
        "/trellis.lcm.v1.OperationService/CancelOperation": ANYONE,
        # Health says nothing but "serving"; reflection shows every contract.
        "/grpc.health.v1.Health/Check": ANYONE,
        "/grpc.health.v1.Health/Watch": ANYONE,
        "/grpc.health.v1.Health/List": ANYONE,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": OPERATORS,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": OPERATORS,
    }
)


def full_method(method: MethodDescriptor) -> str:
    """The name a call carries: "/package.Service/Method"."""
    return f"/{method.containing_service.full_name}/{method.name}"


def methods_of(contract: FileDescriptor) -> tuple[MethodDescriptor, ...]:
    """Every method of one contract, in its order."""
    return tuple(method for service in contract.services_by_name.values() for method in service.methods)


def declared_roles(method: MethodDescriptor) -> Roles | None:
    """The rule in the contract itself; None when it has none.

    Fails: `ValueError` for a role that does not exist.
    """
    roles = method.GetOptions().Extensions[policy_pb2.policy].roles
    return frozenset(Role(role) for role in roles) if roles else None


def build_table(contracts: tuple[FileDescriptor, ...] = CONTRACTS) -> Table:
    """The whole table.

    Fails: `ValueError` when a contract restricts a method that is also named here,
    so that no rule has two sources.
    """
    table: dict[str, Roles] = dict(NAMED)
    for contract in contracts:
        for method in methods_of(contract):
            declared, name = declared_roles(method), full_method(method)
            if declared is None:
                continue
            if name in NAMED:
                raise ValueError(f"{name} has a rule in its contract and another in the table")
            table[name] = declared
    return MappingProxyType(table)


def check_allowed(table: Table, method: str, caller: Caller) -> None:
    """Fails: `Denied` when *caller* may not call *method*, or when there is no rule for it."""
    allowed = table.get(method)
    if allowed is None:
        raise Denied(f"{method} cannot be called: no rule allows it.", method=method)
    if caller.role not in allowed:
        wanted = " or ".join(sorted(role.value for role in allowed if role is not Role.ANONYMOUS))
        raise Denied(
            f"{method} was called by {caller}, and only a caller of role {wanted} may."
            " Use the admin socket of a host, or a certificate for that role.",
            method=method,
            caller=caller,
        )
