"""Snapshots: the whole state there and back, hash and future behaviour included."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trellis.replication.v1 import state_pb2 as pb

from mesh.errors import Corruption, OutOfRange, UnknownCommand
from mesh.ids import (
    PRIMARY,
    VIP,
    ClusterId,
    DocumentName,
    FencingTerm,
    HostId,
    Incarnation,
    Index,
    ServiceName,
    SessionId,
    member_id,
)
from mesh.state import ClusterState, Request, apply, checkpoint
from mesh.state.commands import (
    AddToken,
    AdmitMember,
    ApplyService,
    AssignOwner,
    DeleteDocument,
    DrainHost,
    InitCluster,
    PutDocument,
    PutSecret,
    ReportInstances,
    RequestRelease,
    RevokeCertificate,
    SetHostStatus,
    SetPlacement,
    StopService,
)
from mesh.state.database_commands import (
    AcceptDataLoss,
    DeclareDatabase,
    PublishSyncSet,
    RecordBootstrap,
    RecordPromotion,
    ReportDatabase,
)
from mesh.state.database_model import DatabaseRole, DatabaseSpec, DatabaseStatus, Lag
from mesh.state.model import HostStatus, JoinToken, Member, MemberRole, Slot
from mesh.state.service import Probe, ProbeKind, Probes, ServiceMode
from mesh.wire.command import decode_request, encode_request
from mesh.wire.snapshot import decode_snapshot, encode_snapshot
from tests.state.model_state import ECHO, A, B, Cluster, member, spec, status
from tests.wire import commands

HOSTS = commands.hosts.map(lambda host: Member(
    member_id(host, Incarnation(1)), host, Incarnation(1), MemberRole.VOTER, "127.0.0.1:7400"
))  # fmt: skip
members = st.lists(HOSTS, min_size=2, max_size=4, unique_by=lambda each: each.host)


def started(first: list[Member]) -> ClusterState:
    state = ClusterState()
    apply(state, Index(1), Request(InitCluster(ClusterId("c"), first[0])))
    for number, each in enumerate(first[1:], start=2):
        apply(state, Index(number), Request(AdmitMember(each)))
    return state


def run(state: ClusterState, requests: list[Request]) -> list[object]:
    """Applies what comes out of the log, and tells everything observable."""
    seen: list[object] = []
    for request in requests:
        index = Index(state.applied + 1)
        seen.append(apply(state, index, decode_request(encode_request(request))))
    return seen


@given(members, st.lists(commands.requests, max_size=25), st.lists(commands.requests, max_size=10))
@settings(max_examples=60, deadline=None)
def test_a_host_restored_from_a_snapshot_goes_on_exactly_like_the_others(
    first: list[Member], before: list[Request], after: list[Request]
) -> None:
    """Whatever was applied: equal hash, equal bytes, equal outcomes and hash ever after."""
    original = started(first)
    run(original, before)
    data = encode_snapshot(original)
    restored = decode_snapshot(data)
    assert checkpoint(restored) == checkpoint(original)
    assert encode_snapshot(restored) == data
    assert encode_snapshot(original.copy()) == data
    assert run(restored, after) == run(original, after)
    assert checkpoint(restored) == checkpoint(original)
    assert encode_snapshot(restored) == encode_snapshot(original)


def busy() -> ClusterState:
    state = ClusterState()
    for number in range(1, 200):
        session = SessionId(f"s{number % 6}")
        command = PutDocument(DocumentName(f"d{number % 7}"), bytes([number]))
        apply(state, Index(number), Request(command, session, number // 6 + 1))
    return state


def test_sessions_and_fencing_terms_survive() -> None:
    """Goal: a restored host neither applies twice nor turns a fence back.

    Method: repeat a request on both sides.
    """
    state = busy()
    apply(state, Index(200), Request(InitCluster(ClusterId("c"), member(A))))
    apply(state, Index(201), Request(AssignOwner(VIP, A, FencingTerm(0))))
    restored = decode_snapshot(encode_snapshot(state))
    assert restored.fencing_term(VIP) == 1
    repeated = Request(PutDocument(DocumentName("d1"), b"again"), SessionId("s1"), 33)
    assert apply(restored, Index(202), repeated) == apply(state, Index(202), repeated)
    assert not apply(restored, Index(203), repeated).changed.changes
    assert list(restored.sessions.rows) == list(state.sessions.rows), "in the order they are forgotten"


def test_an_empty_state_has_a_snapshot() -> None:
    """Goal: a member added at once can be sent one. Method: there and back."""
    assert checkpoint(decode_snapshot(encode_snapshot(ClusterState()))) == checkpoint(ClusterState())


def test_a_snapshot_whose_rows_differ_from_its_hash_is_refused() -> None:
    """Goal: a damaged snapshot never becomes the state. Method: change a value; cut a byte."""
    message = pb.ClusterStateSnapshot.FromString(encode_snapshot(busy()))
    message.documents[0].value = b"other"
    with pytest.raises(Corruption, match="its rows hash to"):
        decode_snapshot(message.SerializeToString())
    with pytest.raises(Corruption):
        decode_snapshot(encode_snapshot(busy())[:-1])


def test_a_snapshot_of_a_later_version_is_refused() -> None:
    """Goal: an old host drops nothing it does not know. Method: a later field and an unset enum."""
    with pytest.raises(UnknownCommand):
        decode_snapshot(encode_snapshot(busy()) + b"\xb8\x3e\x01")
    unknown_status = pb.ClusterStateSnapshot(hosts=[pb.HostRow(host="a")])
    with pytest.raises(UnknownCommand, match="status must be set"):
        decode_snapshot(unknown_status.SerializeToString())


def test_what_a_restored_host_no_longer_knows_for_watchers_is_refused() -> None:
    """Goal: a watcher that changes hosts sees the gap instead of missing changes.

    Method: watch from before the snapshot.
    """
    restored = decode_snapshot(encode_snapshot(busy()))
    assert restored.kept.after == restored.applied == 199
    with pytest.raises(OutOfRange):
        restored.kept.since(Index(198))
    assert restored.kept.since(Index(199)) == ()


def before_database() -> Cluster:
    """A state with something in every table that there was before the database's."""
    cluster = Cluster()
    probe = Probe(ProbeKind.HTTP, 500, 200, 2, 4, "/ready", ("true",))
    for command in (
        ApplyService(replace(spec(), probes=Probes(probe, probe, probe), environment=(("A", "1"),))),
        ApplyService(replace(spec("web", "echo"), mode=ServiceMode.ACTIVE_ACTIVE)),
        StopService(ServiceName("web"), keep=True),
        SetPlacement(ECHO, (Slot(A, 0), Slot(B, 0), Slot(B, 1))),
        ReportInstances(A, member(A).member, (status(A),)),
        AssignOwner(VIP, A, FencingTerm(0)),
        RequestRelease(VIP, B),
        AddToken(JoinToken("aa", 9_000)),
        AdmitMember(replace(member(HostId("host4")), role=MemberRole.LEARNER), "aa"),
        AddToken(JoinToken("bb", 9_000, HostId("host5"), witness=True)),
        RevokeCertificate("5f", "stolen"),
        PutSecret("ca-key", b"sealed"),
        SetHostStatus(B, member(B).member, HostStatus.LOST, "no beat"),
        DrainHost(B, True),
        PutDocument(DocumentName("a"), b"1"),
        PutDocument(DocumentName("a"), b"2"),
        DeleteDocument(DocumentName("a")),
    ):
        cluster.do(command)
    cluster.apply(PutDocument(DocumentName("b"), b"x", 7), "s", 1)
    cluster.apply(PutDocument(DocumentName("b"), b"x"), "s", 2)
    return cluster


def full() -> Cluster:
    """A state with something in every table."""
    cluster = before_database()
    primary = DatabaseStatus(
        DatabaseRole.PRIMARY, "slow disk", "7301", 2, False, True, Lag.UNKNOWN, "i:1", "15.18", FencingTerm(1)
    )
    for command in (
        DeclareDatabase(DatabaseSpec(5433, (("work_mem", "4MB"),), 1, (A, HostId("host3"), HostId("host4")))),
        AssignOwner(PRIMARY, A, FencingTerm(0)),
        RecordBootstrap(A, "7301", 1, FencingTerm(1)),
        PublishSyncSet(A, (HostId("host3"),), 1, 0, FencingTerm(1)),
        RecordPromotion(A, 2, FencingTerm(1)),
        AcceptDataLoss(FencingTerm(1), "ann", "host1 burnt down"),
        ReportDatabase(A, member(A).member, primary),
    ):
        cluster.do(command)
    return cluster


#: Written by the version before the database came, of the same commands as `before_database`.
OLD = Path(__file__).parent / "snapshots" / "before_database.binpb"
OLD_HASH = "6feb1fbae33b265bd43ac1afecaf0551d63818d0c7389b942966b4b4dac0b024"


def test_a_snapshot_of_before_the_database_is_read_and_hashes_as_then() -> None:
    """Goal: a cluster is upgraded host by host. Method: bytes and hash that the earlier version wrote."""
    restored, now = decode_snapshot(OLD.read_bytes()), before_database().state
    assert checkpoint(restored).hex() == OLD_HASH == checkpoint(now).hex()
    assert restored.database is None
    assert encode_snapshot(now) == OLD.read_bytes()


def test_every_table_comes_back_row_by_row() -> None:
    """Goal: no table is forgotten when one is added. Method: a state with a row in each, compared."""
    state = full().state
    restored = decode_snapshot(encode_snapshot(state))
    for mine, its in zip(state.tables, restored.tables, strict=True):
        assert mine.rows, f"the test has no row of {mine.kind}"
        assert its.rows == mine.rows
    assert restored.document_history(DocumentName("a")) == state.document_history(DocumentName("a"))
    assert (restored.document_bytes, restored.history_bytes) == (state.document_bytes, state.history_bytes)
    assert (restored.history, restored.tombstones) == (state.history, state.tombstones)
    assert restored.sequences == state.sequences


def test_a_copy_stays_as_it_was_while_the_state_goes_on() -> None:
    """Goal: a snapshot can be written while commands are applied.

    Method: copy, twenty writes, compare bytes.
    """
    cluster = full()
    copy, data = cluster.state.copy(), encode_snapshot(cluster.state)
    for number in range(20):
        cluster.apply(PutDocument(DocumentName("a"), bytes([number])), "s", number + 3)
    assert encode_snapshot(copy) == data
    assert encode_snapshot(cluster.state) != data
