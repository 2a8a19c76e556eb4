"""The cluster and its hosts: incarnations, tokens, verdicts, removal."""

from dataclasses import replace

import pytest

from mesh import limits
from mesh.ids import VIP, ClusterId, FencingTerm, HostId, MemberId
from mesh.state import Rejected, hosts, security
from mesh.state.commands import (
    AddToken,
    AdmitMember,
    AssignOwner,
    Batch,
    ConsumeToken,
    DrainHost,
    InitCluster,
    PutSecret,
    RemoveMember,
    ReportInstances,
    RevokeCertificate,
    SetHostStatus,
    SetMemberRole,
    SetTrust,
    SetVirtualAddress,
    UpdateMember,
)
from mesh.state.model import Change, ChangeKind, HostStatus, JoinToken, MemberRole
from tests.state.model_state import A, B, C, Cluster, member, status

D = HostId("host4")
TOKEN = JoinToken("ee" * 32, expires_ns=2_000)


def test_a_cluster_is_initialised_once() -> None:
    """Goal: a second `init` never replaces a living cluster.

    Method: repeat it, then with another id; the first stays.
    """
    cluster = Cluster()
    again = InitCluster(ClusterId("c" * 32), member(A))
    assert cluster.do(again).unchanged
    assert cluster.refuse(replace(again, cluster_id=ClusterId("d" * 32))).reason == "CONFLICT"
    info = cluster.state.info
    assert info is not None
    assert (info.cluster_id, info.virtual_address, info.created_ns) == ("c" * 32, "127.0.0.9:8443", 1_000)
    assert cluster.state.ca_pem == b"PEM"


def test_before_a_cluster_is_initialised_there_is_no_virtual_address_to_change() -> None:
    """Goal: commands in the wrong order are refused, not half done. Method: an empty state."""
    cluster = Cluster(empty=True)
    assert cluster.refuse(SetVirtualAddress("x:1")).reason == "CONFLICT"
    assert cluster.refuse(InitCluster(ClusterId(""), member(A))).reason == "INVALID_REQUEST"
    assert cluster.state.ca_pem == b""
    assert cluster.state.info is None
    assert cluster.state.member_of(A) is None


def test_the_virtual_address_can_change() -> None:
    """Goal: a new address needs no new cluster. Method: the same one, then none."""
    cluster = Cluster()
    assert cluster.do(SetVirtualAddress("127.0.0.9:8443")).unchanged
    cluster.do(SetVirtualAddress(""))
    assert cluster.state.info is not None
    assert cluster.state.info.virtual_address == ""


def test_incarnations_of_a_host_rise_also_over_removal() -> None:
    """Goal: two lives of a host never share a name.

    Method: admit the same number before and after removal.
    """
    cluster = Cluster()
    refusal = cluster.refuse(AdmitMember(member(B, 1)))
    assert dict(refusal.metadata) == {"incarnation": "1"}
    cluster.do(RemoveMember(member(B).member))
    assert B not in cluster.state.hosts
    assert cluster.refuse(AdmitMember(member(B, 1))).reason == "CONFLICT"
    assert cluster.do(AdmitMember(member(B, 2))).member == "host2.2"
    assert cluster.state.members[MemberId("host2.2")].admitted == cluster.state.applied


def test_a_new_incarnation_replaces_the_earlier_one_and_its_certificate() -> None:
    """Goal: the former life of a host can do nothing more.

    Method: re-admit, then report and judge as the old one.
    """
    cluster = Cluster()
    cluster.do(ReportInstances(B, member(B).member, (status(B),)))
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.LOST))
    cluster.do(AdmitMember(member(B, 2, MemberRole.LEARNER)))
    assert sorted(cluster.state.members) == ["host1.1", "host2.2", "host3.1"]
    assert cluster.state.hosts[B].status is HostStatus.LOST  # until it beats
    assert cluster.state.instances_of(status(B).service) == ()
    assert member(B).certificate_serial in cluster.state.revoked
    assert cluster.refuse(SetHostStatus(B, member(B).member, HostStatus.LOST)).reason == "STALE_TERM"
    assert cluster.refuse(ReportInstances(B, member(B).member, ())).reason == "STALE_TERM"


def test_a_host_that_owns_something_is_neither_removed_nor_replaced() -> None:
    """Goal: nobody is forgotten while it may act. Method: give it the address, then remove and re-admit."""
    cluster = Cluster()
    cluster.do(AssignOwner(VIP, B, FencingTerm(0)))
    refusal = cluster.refuse(RemoveMember(member(B).member))
    assert (refusal.reason, dict(refusal.metadata)) == ("CONFLICT", {"host": B, "owned": "vip"})
    assert cluster.refuse(AdmitMember(member(B, 2))).reason == "CONFLICT"


def test_a_removed_member_is_unknown_and_its_certificate_refused() -> None:
    """Goal: removal revokes, exactly what was issued.

    Method: members with and without certificate, one revoked before.
    """
    cluster = Cluster()
    cluster.do(AdmitMember(replace(member(HostId("host5")), certificate_serial="")))
    cluster.do(RemoveMember(member(HostId("host5")).member))
    cluster.do(AdmitMember(replace(member(D), certificate_serial="")))
    cluster.do(AdmitMember(member(D, 2)))
    cluster.do(RemoveMember(member(D, 2).member))
    cluster.do(RevokeCertificate(member(C).certificate_serial, "stolen"))
    cluster.do(RemoveMember(member(C).member))
    assert cluster.refuse(RemoveMember(member(C).member)).reason == "NOT_FOUND"
    serials = [member(C).certificate_serial, member(D, 2).certificate_serial]
    assert sorted(cluster.state.revoked) == sorted(serials), "one without a certificate leaves none"


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (replace(member(D), host=HostId("Host 4")), "host"),
        (replace(member(D), member=MemberId("host4.2")), "member"),
        (member(D, 0), "member"),
        (replace(member(D), address=""), "address"),
        (replace(member(D), version="x" * 256), "member"),
    ],
)
def test_a_malformed_member_is_refused(wrong: object, path: str) -> None:
    """Goal: no unusable name, address or incarnation in the log.

    Method: table, each with the field it must name.
    """
    refusal = Cluster().refuse(AdmitMember(wrong))  # type: ignore[arg-type]
    assert refusal.problems[0].path == path


def test_the_number_of_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the bound counts hosts, not admissions.

    Method: a full cluster takes a new life of an old host only.
    """
    monkeypatch.setattr(hosts, "HOSTS_MAX", 3)
    cluster = Cluster()
    assert cluster.refuse(AdmitMember(member(D))).reason == "QUEUE_FULL"
    cluster.do(AdmitMember(member(C, 2)))


def test_a_member_changes_its_addresses_and_keeps_its_role() -> None:
    """Goal: a move of a host cannot make it a voter by the back door. Method: update with another role."""
    cluster = Cluster()
    moved = replace(member(B), address="127.0.0.20:7400", role=MemberRole.WITNESS)
    cluster.do(UpdateMember(moved))
    found = cluster.state.member_of(B)
    assert found is not None
    assert (found.address, found.role) == ("127.0.0.20:7400", MemberRole.VOTER)
    assert cluster.do(UpdateMember(moved)).unchanged
    assert cluster.refuse(UpdateMember(replace(moved, address=""))).problems[0].path == "address"
    cluster.do(SetMemberRole(member(B).member, MemberRole.LEARNER))
    assert cluster.do(SetMemberRole(member(B).member, MemberRole.LEARNER)).unchanged
    assert cluster.refuse(UpdateMember(member(D))).reason == "NOT_FOUND"


def test_verdicts_are_journalled_once_with_their_reason() -> None:
    """Goal: the journal tells why, without noise. Method: the same verdict twice, then its end."""
    cluster = Cluster()
    lost = SetHostStatus(B, member(B).member, HostStatus.LOST, "no beat for 1.3 s")
    cluster.do(lost)
    assert cluster.do(lost).unchanged
    assert cluster.events("host-lost") == ["host2 is lost: no beat for 1.3 s"]
    record = cluster.state.hosts[B]
    assert (record.status, record.reason) == (HostStatus.LOST, "no beat for 1.3 s")
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.ALIVE, "beats again"))
    assert cluster.state.hosts[B].reason == ""
    assert cluster.refuse(SetHostStatus(D, member(D).member, HostStatus.LOST)).reason == "NOT_FOUND"


def test_the_instances_of_a_lost_host_take_no_traffic_until_it_reports_again() -> None:
    """Goal: no request to a dead host, none lost for a suspect one.

    Method: each verdict, then a new report.
    """
    cluster = Cluster()
    report = ReportInstances(B, member(B).member, (status(B),))
    cluster.do(report)
    cluster.do(ReportInstances(A, member(A).member, (status(A),)))
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.SUSPECT))
    assert all(each.ready for each in cluster.state.instances.values())
    effect = cluster.apply(SetHostStatus(B, member(B).member, HostStatus.LOST))
    assert [each.ready for each in cluster.state.instances_of(status(B).service)] == [True, False]
    assert Change(ChangeKind.INSTANCE, status(B).instance) in effect.changed.changes
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.ALIVE))
    assert not cluster.do(report).unchanged
    assert cluster.state.instances[status(B).instance].ready


def test_a_host_is_drained_and_taken_back() -> None:
    """Goal: only the operator ends a drain. Method: drain, a verdict in between, undrain."""
    cluster = Cluster()
    assert cluster.do(DrainHost(B, False)).unchanged
    cluster.do(DrainHost(B, True))
    assert cluster.state.hosts[B].draining
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.SUSPECT))
    assert cluster.state.hosts[B].draining, "a verdict does not undo it"
    cluster.do(DrainHost(B, False))
    assert cluster.events("host-undrained") == ["host2 is back in service"]


# ---- tokens -------------------------------------------------------------------------


def test_a_token_admits_one_key_and_repeats_its_answer_to_it() -> None:
    """Goal: a lost answer can be asked again, a stolen token not used.

    Method: same key twice, then another.
    """
    cluster = Cluster()
    cluster.do(AddToken(TOKEN))
    assert cluster.do(AddToken(TOKEN)).unchanged
    first = AdmitMember(member(D, 1, MemberRole.LEARNER), TOKEN.sha256)
    assert cluster.do(first).member == "host4.1"
    again = cluster.do(AdmitMember(member(D, 2, MemberRole.LEARNER), TOKEN.sha256), at_ns=9_999)
    assert (again.member, again.unchanged) == ("host4.1", True)
    other = replace(member(D, 2), key_sha256="cd" * 32)
    assert "has been used" in cluster.refuse(AdmitMember(other, TOKEN.sha256)).message


def test_a_token_does_not_admit_the_wrong_host_role_or_time() -> None:
    """Goal: a token is worth what it was made for.

    Method: each mismatch; the right use comes last and still works.
    """
    cluster = Cluster()
    cluster.do(AddToken(replace(TOKEN, host=D)))
    cluster.do(AddToken(replace(TOKEN, sha256="aa" * 32, witness=True)))
    unknown = cluster.refuse(AdmitMember(member(D), "00" * 32))
    wrong_host = cluster.refuse(AdmitMember(member(HostId("host5")), TOKEN.sha256))
    assert unknown.message == wrong_host.message, "a refusal does not tell which it was"
    assert "witness" in cluster.refuse(AdmitMember(member(D), "aa" * 32)).message
    assert "no witness" in cluster.refuse(AdmitMember(member(D, 1, MemberRole.WITNESS), TOKEN.sha256)).message
    assert "expired" in cluster.refuse(AdmitMember(member(D), TOKEN.sha256), at_ns=2_000).message
    no_key = replace(member(D), key_sha256="")
    assert cluster.refuse(AdmitMember(no_key, TOKEN.sha256)).reason == "INVALID_REQUEST"
    cluster.do(AdmitMember(member(D), TOKEN.sha256))


def test_a_token_is_not_used_up_by_an_admission_that_was_refused() -> None:
    """Goal: a mistake does not cost a token. Method: an old incarnation first, then the right one."""
    cluster = Cluster()
    cluster.do(AddToken(TOKEN))
    assert cluster.refuse(AdmitMember(member(B, 1), TOKEN.sha256)).reason == "CONFLICT"
    assert not cluster.state.tokens[TOKEN.sha256].consumed_by
    cluster.do(AdmitMember(member(B, 2), TOKEN.sha256))


def test_a_token_can_be_consumed_in_a_batch() -> None:
    """Goal: consuming and admitting are one step.

    Method: a batch, repeated by the same and by another key.
    """
    cluster = Cluster()
    cluster.do(AddToken(TOKEN))
    consume = ConsumeToken(TOKEN.sha256, D, "ab" * 32, member(D).member)
    outcome = cluster.do(Batch((consume, AdmitMember(member(D)))))
    assert [part.member for part in outcome.parts] == ["host4.1", "host4.1"]
    assert cluster.do(consume).unchanged
    assert cluster.refuse(replace(consume, key_sha256="cd" * 32)).reason == "DENIED"


def test_open_tokens_are_bounded_and_expired_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bounded, yet old tokens lock nobody out. Method: a bound of one, before and at expiry."""
    monkeypatch.setattr(security, "TOKENS_MAX", 1)
    cluster = Cluster()
    cluster.do(AddToken(TOKEN))
    second = replace(TOKEN, sha256="bb", expires_ns=9_000)
    assert cluster.refuse(AddToken(second)).reason == "QUEUE_FULL"
    cluster.do(AddToken(second), at_ns=2_000)
    assert list(cluster.state.tokens) == ["bb"]
    assert cluster.refuse(AddToken(replace(TOKEN, sha256="Zz"))).reason == "INVALID_REQUEST"


# ---- certificates and secrets -------------------------------------------------------


def test_a_certificate_is_revoked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the first reason stays and the list is bounded.

    Method: revoke twice, a malformed serial, one too many.
    """
    cluster = Cluster()
    cluster.do(RevokeCertificate("5f", "stolen"))
    assert cluster.do(RevokeCertificate("5f", "again")).unchanged
    assert cluster.state.revoked["5f"].reason == "stolen"
    assert cluster.refuse(RevokeCertificate("not hex")).reason == "INVALID_REQUEST"
    monkeypatch.setattr(security, "REVOKED_MAX", 1)
    assert cluster.refuse(RevokeCertificate("60")).reason == "QUEUE_FULL"


def test_trust_and_secrets_are_replaced_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: keys can be rolled, never emptied or bloated.

    Method: replace, repeat, and step over each bound.
    """
    cluster = Cluster()
    assert cluster.do(SetTrust(b"PEM")).unchanged
    cluster.do(SetTrust(b"PEM2"))
    assert cluster.state.ca_pem == b"PEM2"
    for wrong in (b"", b"x" * (limits.TRUST_BYTES_MAX + 1)):
        assert cluster.refuse(SetTrust(wrong)).reason == "INVALID_REQUEST"
    cluster.do(PutSecret("ca-key", b"sealed"))
    assert cluster.do(PutSecret("ca-key", b"sealed")).unchanged
    monkeypatch.setattr(security, "SECRETS_MAX", 1)
    assert cluster.refuse(PutSecret("other", b"x")).reason == "QUEUE_FULL"
    cluster.do(PutSecret("ca-key", b""))
    assert not cluster.state.secrets
    assert cluster.do(PutSecret("ca-key", b"")).unchanged
    too_big = b"x" * (limits.SECRET_BYTES_MAX + 1)
    assert cluster.refuse(PutSecret("ca-key", too_big)).reason == "INVALID_REQUEST"
    assert isinstance(cluster.apply(PutSecret("No", b"x")).outcome, Rejected)
