"""Hosts as the contract membership shows them."""

from trellis.membership.v1 import membership_pb2 as pb

from mesh.ids import Index
from mesh.state.model import HostRecord, Member
from mesh.wire.enums import HOST_STATUS, MEMBER_ROLE
from mesh.wire.service import duration_of_ms


def host_to_wire(
    record: HostRecord,
    member: Member,
    *,
    leader: bool = False,
    applied: Index | None = None,
    last_beat_age_ms: int | None = None,
) -> pb.Host:
    """A host with its member; what only the leader knows is left out when None."""
    return pb.Host(
        host=record.host,
        member=member.member,
        role=MEMBER_ROLE.encode(member.role),
        address=member.address,
        status=HOST_STATUS.encode(record.status),
        draining=record.draining,
        leader=leader,
        applied_index=applied or 0,
        last_beat_age=None if last_beat_age_ms is None else duration_of_ms(last_beat_age_ms),
        version=member.version,
    )
