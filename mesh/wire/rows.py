"""Rows of the replicated state on the wire: those that commands and snapshots share.

Fails: `InvalidRequest` from every decoder when an enum is unspecified or unknown.
"""

from collections.abc import Iterable

from trellis.replication.v1 import state_pb2 as pb

from mesh.ids import HostId, Index, MemberId, host_of, incarnation_of
from mesh.state.model import JoinToken, Member, Slot
from mesh.wire.enums import MEMBER_ROLE


def encode_member(member: Member) -> pb.MemberRow:
    return pb.MemberRow(
        member=member.member,
        role=MEMBER_ROLE.encode(member.role),
        address=member.address,
        northbound=member.northbound,
        ingress=member.ingress,
        version=member.version,
        certificate_serial=member.certificate_serial,
        key_sha256=member.key_sha256,
        admitted=member.admitted,
        join_address=member.join_address,
    )


def decode_member(row: pb.MemberRow) -> Member:
    """Fails: `ValueError` when the member's name holds no incarnation."""
    member = MemberId(row.member)
    return Member(
        member=member,
        host=host_of(member),
        incarnation=incarnation_of(member),
        role=MEMBER_ROLE.decode(row.role),
        address=row.address,
        northbound=row.northbound,
        ingress=row.ingress,
        version=row.version,
        certificate_serial=row.certificate_serial,
        key_sha256=row.key_sha256,
        admitted=Index(row.admitted),
        join_address=row.join_address,
    )


def encode_token(token: JoinToken) -> pb.TokenRow:
    return pb.TokenRow(
        sha256=token.sha256,
        expires_ns=token.expires_ns,
        host=token.host or "",
        witness=token.witness,
        consumed_by=token.consumed_by,
        member=token.member or "",
    )


def decode_token(row: pb.TokenRow) -> JoinToken:
    return JoinToken(
        sha256=row.sha256,
        expires_ns=row.expires_ns,
        host=HostId(row.host) if row.host else None,
        witness=row.witness,
        consumed_by=row.consumed_by,
        member=MemberId(row.member) if row.member else None,
    )


def encode_slot(slot: Slot) -> pb.Slot:
    return pb.Slot(host=slot.host, ordinal=slot.ordinal)


def decode_slot(row: pb.Slot) -> Slot:
    return Slot(HostId(row.host), row.ordinal)


def encode_facts(facts: Iterable[tuple[str, str]]) -> list[pb.Fact]:
    return [pb.Fact(name=name, value=value) for name, value in facts]


def decode_facts(facts: Iterable[pb.Fact]) -> tuple[tuple[str, str], ...]:
    return tuple((fact.name, fact.value) for fact in facts)
