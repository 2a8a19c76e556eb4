"""Commands on the cluster and its hosts: who belongs to it, and the verdicts about them."""

from dataclasses import replace

from mesh.errors import Conflict, Denied, InvalidRequest, QueueFull
from mesh.ids import member_id
from mesh.limits import HOSTS_MAX
from mesh.state.applying import Applying, check_name, check_text, invalid, shortened
from mesh.state.commands import (
    AdmitMember,
    Applied,
    DrainHost,
    InitCluster,
    RemoveMember,
    SetHostStatus,
    SetMemberRole,
    SetVirtualAddress,
    UpdateMember,
)
from mesh.state.database import close_database_of, forget_database_of
from mesh.state.model import ChangeKind, ClusterInfo, HostRecord, HostStatus, JoinToken, Member, MemberRole
from mesh.state.security import check_token, consume, revoke
from mesh.state.services import close_instances_of, forget_instances_of
from mesh.state.tables import ONLY

#: Why a host that was just admitted is not alive.
NOT_HEARD = "it has not been heard from yet"


def init_cluster(at: Applying, command: InitCluster) -> Applied:
    state, present = at.state, at.state.info
    if present is not None:
        if present.cluster_id == command.cluster_id:
            return Applied(at.index, member=command.member.member, unchanged=True)
        raise Conflict(
            f"this is already cluster {present.cluster_id}; start from an empty data directory",
            cluster_id=present.cluster_id,
        )
    if not command.cluster_id:
        raise InvalidRequest("a cluster id must not be empty")
    check_text("cluster_id", command.cluster_id, command.virtual_address)
    outcome = _admit(at, command.member, HostStatus.ALIVE, reason="")
    state.cluster.put(ONLY, ClusterInfo(command.cluster_id, command.virtual_address, at.at_ns))
    at.changed(ChangeKind.CLUSTER, ONLY)
    if command.ca_pem:
        state.trust.put(ONLY, command.ca_pem)
        at.changed(ChangeKind.TRUST, ONLY)
    at.record("cluster-initialised", command.cluster_id, f"cluster {command.cluster_id} begins")
    return outcome


def set_virtual_address(at: Applying, command: SetVirtualAddress) -> Applied:
    present = at.state.info
    if present is None:
        raise Conflict("there is no cluster yet; run `trellis init` first")
    check_text("virtual_address", command.virtual_address)
    if present.virtual_address == command.virtual_address:
        return Applied(at.index, unchanged=True)
    at.state.cluster.put(ONLY, replace(present, virtual_address=command.virtual_address))
    at.changed(ChangeKind.CLUSTER, ONLY)
    return Applied(at.index)


def admit_member(at: Applying, command: AdmitMember) -> Applied:
    if not command.token_sha256:
        return _admit(at, command.member)
    member = command.member
    token = check_token(at, command.token_sha256, member.host, member.key_sha256)
    if token.consumed_by:
        return Applied(at.index, member=token.member, unchanged=True)
    _check_witness(token, member)
    outcome = _admit(at, member)
    consume(at, token, member.key_sha256, member.member)
    return outcome


def update_member(at: Applying, command: UpdateMember) -> Applied:
    present = at.member(command.member.member)
    _check_member(command.member)
    updated = replace(
        command.member,
        host=present.host,
        incarnation=present.incarnation,
        role=present.role,
        admitted=present.admitted,
    )
    return _put_member(at, present, updated)


def set_member_role(at: Applying, command: SetMemberRole) -> Applied:
    present = at.member(command.member)
    return _put_member(at, present, replace(present, role=command.role))


def remove_member(at: Applying, command: RemoveMember) -> Applied:
    member = at.member(command.member)
    at.check_owns_nothing(member.host)
    _forget_member(at, member)
    at.state.hosts.drop(member.host)
    at.changed(ChangeKind.HOST, member.host)
    if member.certificate_serial:
        revoke(at, member.certificate_serial, f"{member.member} was removed")
    at.record("member-removed", member.host, f"{member.member} is removed for good", member=member.member)
    return Applied(at.index, member=member.member)


def set_host_status(at: Applying, command: SetHostStatus) -> Applied:
    record = at.host_with_member(command.host, command.member)
    if record.status is command.status:
        return Applied(at.index, unchanged=True)
    reason = shortened(command.reason) if command.status is not HostStatus.ALIVE else ""
    at.state.hosts.put(command.host, replace(record, status=command.status, since=at.index, reason=reason))
    at.changed(ChangeKind.HOST, command.host)
    if command.status is HostStatus.LOST:
        close_instances_of(at, command.host)
        close_database_of(at, command.host)
    why = f": {command.reason}" if command.reason else ""
    at.record(
        f"host-{command.status.value}",
        command.host,
        f"{command.host} is {command.status.value}{why}",
        before=record.status.value,
        member=command.member,
    )
    return Applied(at.index)


def drain_host(at: Applying, command: DrainHost) -> Applied:
    record = at.host(command.host)
    if record.draining is command.draining:
        return Applied(at.index, unchanged=True)
    at.state.hosts.put(command.host, replace(record, draining=command.draining))
    at.changed(ChangeKind.HOST, command.host)
    if command.draining:
        at.record("host-draining", command.host, f"{command.host} gives away what it has")
    else:
        at.record("host-undrained", command.host, f"{command.host} is back in service")
    return Applied(at.index)


def _admit(
    at: Applying, member: Member, status: HostStatus = HostStatus.LOST, reason: str = NOT_HEARD
) -> Applied:
    """Makes a member the present one of its host, in place of an earlier incarnation.

    It counts as lost until it beats, so that nothing is placed on a host that does not run yet.
    """
    state = at.state
    _check_member(member)
    counter = f"incarnation/{member.host}"
    latest = state.counters.get(counter, 0)
    if member.incarnation <= latest:
        raise Conflict(
            f"{member.host} has already been incarnation {latest}; admit it as incarnation {latest + 1}",
            incarnation=latest,
        )
    if member.host not in state.hosts and len(state.hosts) >= HOSTS_MAX:
        raise QueueFull(f"a cluster has at most {HOSTS_MAX} hosts; remove one first", hosts=HOSTS_MAX)
    at.check_owns_nothing(member.host)
    at.set_counter(counter, member.incarnation)
    earlier = state.member_of(member.host)
    if earlier is not None:
        _forget_member(at, earlier)
        if earlier.certificate_serial:
            revoke(at, earlier.certificate_serial, f"{earlier.member} was replaced by {member.member}")
    state.members.put(member.member, replace(member, admitted=at.index))
    state.hosts.put(
        member.host, HostRecord(member.host, member.member, status, since=at.index, reason=reason)
    )
    at.changed(ChangeKind.MEMBER, member.member)
    at.changed(ChangeKind.HOST, member.host)
    at.record(
        "member-admitted",
        member.host,
        f"{member.member} is admitted as {member.role.value}",
        member=member.member,
        address=member.address,
        version=member.version,
    )
    return Applied(at.index, member=member.member)


def _forget_member(at: Applying, member: Member) -> None:
    at.state.members.drop(member.member)
    at.changed(ChangeKind.MEMBER, member.member)
    forget_instances_of(at, member.host)
    forget_database_of(at, member.host)


def _put_member(at: Applying, present: Member, member: Member) -> Applied:
    if present == member:
        return Applied(at.index, member=member.member, unchanged=True)
    at.state.members.put(member.member, member)
    at.changed(ChangeKind.MEMBER, member.member)
    return Applied(at.index, member=member.member)


def _check_member(member: Member) -> None:
    check_name("host", member.host, "host1")
    if member.incarnation < 1 or member.member != member_id(member.host, member.incarnation):
        raise invalid("member", f"is not {member.host}.INCARNATION", f"{member.host}.1")
    check_text("member", member.address, member.northbound, member.ingress, member.version)
    check_text("member", member.certificate_serial, member.key_sha256, member.join_address)
    if not member.address:
        raise invalid("address", "is empty", "10.0.0.1:7400")


def _check_witness(token: JoinToken, member: Member) -> None:
    if token.witness != (member.role is MemberRole.WITNESS):
        expected = "a witness" if token.witness else "no witness"
        raise Denied(f"the token is for {expected}; make another one with `trellis token`")
