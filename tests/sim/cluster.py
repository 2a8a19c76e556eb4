"""What the simulated cluster is founded with: its name, its first members, its services."""

from collections.abc import Sequence

from mesh.ids import ClusterId, HostId, Incarnation, MemberId, ServiceName, host_of
from mesh.state.commands import AdmitMember, ApplyService, Batch, InitCluster
from mesh.state.model import Member, MemberRole
from mesh.state.service import ServiceMode, ServiceSpec

CLUSTER = ClusterId("5" * 32)


def address_of(host: HostId) -> str:
    """Where the other members reach it."""
    return f"{host}:7400"


def member_row(member: MemberId, role: MemberRole) -> Member:
    """A member's record."""
    host = host_of(member)
    return Member(
        member=member,
        host=host,
        incarnation=Incarnation(int(member.rpartition(".")[2])),
        role=role,
        address=address_of(host),
        certificate_serial=f"{member}",
        key_sha256=f"key-{member}",
    )


def service(name: str, mode: ServiceMode, copies: int = 1) -> ServiceSpec:
    """A declaration; exclusive ones have one copy."""
    return ServiceSpec(
        name=ServiceName(name),
        command=("/bin/true",),
        mode=mode,
        instances_min=copies,
        instances_max=copies,
        grace_ms=300,
    )


def founding(founders: Sequence[MemberId]) -> Batch:
    """The first content of the replicated state."""
    first, *others = founders
    return Batch(
        (
            InitCluster(CLUSTER, member_row(first, MemberRole.VOTER), "10.0.0.100:443"),
            *(AdmitMember(member_row(each, MemberRole.VOTER)) for each in others),
            ApplyService(service("reporter", ServiceMode.ACTIVE_STANDBY)),
            ApplyService(service("echo", ServiceMode.ACTIVE_ACTIVE, 2)),
        )
    )
