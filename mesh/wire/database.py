"""The database on the wire: its declaration, sync set, what hosts report, and commands on it.

Fails: `InvalidRequest` from every decoder when an enum is unspecified or unknown.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from trellis.database.v1 import database_pb2 as pb
from trellis.replication.v1 import command_pb2, state_pb2

from mesh.ids import PRIMARY, FencingTerm, HostId, Index, MemberId
from mesh.state import database_commands as d
from mesh.state.database_commands import DatabaseCommand
from mesh.state.database_model import (
    AcceptedLoss,
    DatabaseMember,
    DatabaseRecord,
    DatabaseSpec,
    DatabaseStatus,
    SyncSet,
    Wants,
)
from mesh.state.tables import ClusterState
from mesh.wire.documents import timestamp_of_ns
from mesh.wire.enums import DATABASE_ROLE, LAG, WANTS


def encode_database_spec(spec: DatabaseSpec) -> pb.DatabaseSpec:
    return pb.DatabaseSpec(
        port=spec.port,
        parameters=[pb.Parameter(name=name, value=value) for name, value in spec.parameters],
        standbys_needed=spec.standbys_needed,
        data_hosts=spec.data_hosts,
    )


def decode_database_spec(message: pb.DatabaseSpec) -> DatabaseSpec:
    return DatabaseSpec(
        port=message.port,
        parameters=tuple((each.name, each.value) for each in message.parameters),
        standbys_needed=message.standbys_needed,
        data_hosts=tuple(HostId(each) for each in message.data_hosts),
    )


def encode_sync_set(sync_set: SyncSet) -> pb.SyncSet:
    return pb.SyncSet(version=sync_set.version, voters=sync_set.voters, quorum=sync_set.quorum)


def decode_sync_set(message: pb.SyncSet) -> SyncSet:
    return SyncSet(message.version, tuple(HostId(each) for each in message.voters), message.quorum)


def encode_database_status(status: DatabaseStatus) -> pb.DatabaseStatus:
    return pb.DatabaseStatus(
        role=DATABASE_ROLE.encode(status.role),
        health=status.health,
        system_identifier=status.system_identifier,
        timeline=status.timeline,
        is_streaming=status.is_streaming,
        is_open=status.is_open,
        lag=LAG.encode(status.lag),
        address=status.address,
        version=status.version,
        fencing_term=status.fencing_term,
        parameters_version=status.parameters_version,
        parameters_refused=status.parameters_refused,
        is_leftover=status.is_leftover,
        wants=None if status.wants is Wants.NOTHING else WANTS.encode(status.wants),
    )


def decode_database_status(message: pb.DatabaseStatus) -> DatabaseStatus:
    return DatabaseStatus(
        role=DATABASE_ROLE.decode(message.role),
        health=message.health,
        system_identifier=message.system_identifier,
        timeline=message.timeline,
        is_streaming=message.is_streaming,
        is_open=message.is_open,
        lag=LAG.decode(message.lag),
        address=message.address,
        version=message.version,
        fencing_term=FencingTerm(message.fencing_term),
        parameters_version=message.parameters_version,
        parameters_refused=message.parameters_refused,
        is_leftover=message.is_leftover,
        wants=WANTS.decode(message.wants) if message.HasField("wants") else Wants.NOTHING,
    )


def database_to_wire(state: ClusterState, problems: Iterable[str] = ()) -> pb.GetStatusResponse:
    """All that is decided and reported, as operators are shown it; `problems` are the leader's sentences."""
    members = [
        pb.DatabaseMember(host=each.host, status=encode_database_status(each.status), since_index=each.since)
        for each in state.database_members.values()
    ]
    record, owned = state.database, state.owners.get(PRIMARY)
    shown = pb.GetStatusResponse(members=members, problems=problems)
    if owned is not None:
        shown.primary, shown.successor = owned.holder or "", owned.successor or ""
        shown.fencing_term = owned.fencing_term
    if record is None:
        return shown
    shown.spec.CopyFrom(encode_database_spec(record.spec))
    shown.version = record.version
    shown.system_identifier, shown.timeline = record.system_identifier, record.timeline
    shown.bootstrap_host = record.bootstrap_host or ""
    shown.published.CopyFrom(encode_sync_set(record.published))
    shown.published_term = record.published_term
    if loss := record.accepted_loss:
        at = timestamp_of_ns(loss.at_ns)
        shown.accepted_loss.CopyFrom(
            pb.AcceptedLoss(fencing_term=loss.fencing_term, by=loss.by, why=loss.why, at=at)
        )
    return shown


# ---- rows of snapshots ----------------------------------------------------------------


def encode_database_row(record: DatabaseRecord) -> state_pb2.DatabaseRow:
    row = state_pb2.DatabaseRow(
        spec=encode_database_spec(record.spec),
        version=record.version,
        system_identifier=record.system_identifier,
        timeline=record.timeline,
        history=_encode_switches(record.history),
        bootstrap_host=record.bootstrap_host or "",
        published=encode_sync_set(record.published),
        published_term=record.published_term,
        primary=record.primary or "",
        primary_term=record.primary_term,
        timeline_base=record.timeline_base,
    )
    loss = record.accepted_loss
    if loss is not None:
        row.accepted_loss.CopyFrom(
            state_pb2.AcceptedLossRow(
                fencing_term=loss.fencing_term, by=loss.by, why=loss.why, at_ns=loss.at_ns
            )
        )
    return row


def decode_database_row(row: state_pb2.DatabaseRow) -> DatabaseRecord:
    return DatabaseRecord(
        spec=decode_database_spec(row.spec),
        version=row.version,
        system_identifier=row.system_identifier,
        timeline=row.timeline,
        history=_decode_switches(row.history),
        bootstrap_host=_host(row.bootstrap_host),
        published=decode_sync_set(row.published),
        published_term=FencingTerm(row.published_term),
        primary=_host(row.primary),
        primary_term=FencingTerm(row.primary_term),
        accepted_loss=_decode_loss(row.accepted_loss) if row.HasField("accepted_loss") else None,
        timeline_base=row.timeline_base,
    )


def encode_database_member(member: DatabaseMember) -> state_pb2.DatabaseMemberRow:
    return state_pb2.DatabaseMemberRow(
        host=member.host, status=encode_database_status(member.status), since=member.since
    )


def decode_database_member(row: state_pb2.DatabaseMemberRow) -> DatabaseMember:
    return DatabaseMember(HostId(row.host), decode_database_status(row.status), Index(row.since))


def _decode_loss(row: state_pb2.AcceptedLossRow) -> AcceptedLoss:
    return AcceptedLoss(FencingTerm(row.fencing_term), row.by, row.why, row.at_ns)


def _encode_switches(history: Iterable[tuple[int, int]]) -> list[pb.TimelineSwitch]:
    return [pb.TimelineSwitch(timeline=timeline, lsn=lsn) for timeline, lsn in history]


def _decode_switches(switches: Iterable[pb.TimelineSwitch]) -> tuple[tuple[int, int], ...]:
    return tuple((each.timeline, each.lsn) for each in switches)


def _host(name: str) -> HostId | None:
    return HostId(name) if name else None


# ---- commands -------------------------------------------------------------------------


def _encode_declare(command: d.DeclareDatabase) -> command_pb2.DeclareDatabase:
    spec = encode_database_spec(command.spec)
    return command_pb2.DeclareDatabase(spec=spec, expected_version=command.expected_version)


def _decode_declare(message: command_pb2.DeclareDatabase) -> d.DeclareDatabase:
    expected = message.expected_version if message.HasField("expected_version") else None
    return d.DeclareDatabase(decode_database_spec(message.spec), expected)


def _encode_bootstrap(command: d.RecordBootstrap) -> command_pb2.RecordBootstrap:
    return command_pb2.RecordBootstrap(
        host=command.host,
        system_identifier=command.system_identifier,
        timeline=command.timeline,
        fencing_term=command.fencing_term,
        history=_encode_switches(command.history),
    )


def _decode_bootstrap(message: command_pb2.RecordBootstrap) -> d.RecordBootstrap:
    term = FencingTerm(message.fencing_term)
    history = _decode_switches(message.history)
    return d.RecordBootstrap(HostId(message.host), message.system_identifier, message.timeline, term, history)


def _encode_publish(command: d.PublishSyncSet) -> command_pb2.PublishSyncSet:
    return command_pb2.PublishSyncSet(
        host=command.host,
        voters=command.voters,
        quorum=command.quorum,
        expected_version=command.expected_version,
        fencing_term=command.fencing_term,
    )


def _decode_publish(message: command_pb2.PublishSyncSet) -> d.PublishSyncSet:
    return d.PublishSyncSet(
        host=HostId(message.host),
        voters=tuple(HostId(each) for each in message.voters),
        quorum=message.quorum,
        expected_version=message.expected_version,
        fencing_term=FencingTerm(message.fencing_term),
    )


def _encode_promotion(command: d.RecordPromotion) -> command_pb2.RecordPromotion:
    return command_pb2.RecordPromotion(
        host=command.host,
        timeline=command.timeline,
        fencing_term=command.fencing_term,
        history=_encode_switches(command.history),
    )


def _decode_promotion(message: command_pb2.RecordPromotion) -> d.RecordPromotion:
    return d.RecordPromotion(
        HostId(message.host),
        message.timeline,
        FencingTerm(message.fencing_term),
        _decode_switches(message.history),
    )


def _encode_report(command: d.ReportDatabase) -> command_pb2.ReportDatabase:
    status = None if command.status is None else encode_database_status(command.status)
    return command_pb2.ReportDatabase(host=command.host, member=command.member, status=status)


def _decode_report(message: command_pb2.ReportDatabase) -> d.ReportDatabase:
    status = decode_database_status(message.status) if message.HasField("status") else None
    return d.ReportDatabase(HostId(message.host), MemberId(message.member), status)


def _encode_loss(command: d.AcceptDataLoss) -> command_pb2.AcceptDataLoss:
    return command_pb2.AcceptDataLoss(fencing_term=command.fencing_term, by=command.by, why=command.why)


def _decode_accept(message: command_pb2.AcceptDataLoss) -> d.AcceptDataLoss:
    return d.AcceptDataLoss(FencingTerm(message.fencing_term), message.by, message.why)


#: Command, its field in the message, how it is written, how it is read: as in mesh.wire.command.
TABLE: Final[tuple[tuple[type, str, Callable[[Any], Any], Callable[[Any], DatabaseCommand]], ...]] = (
    (d.DeclareDatabase, "declare_database", _encode_declare, _decode_declare),
    (d.RecordBootstrap, "record_bootstrap", _encode_bootstrap, _decode_bootstrap),
    (d.PublishSyncSet, "publish_sync_set", _encode_publish, _decode_publish),
    (d.RecordPromotion, "record_promotion", _encode_promotion, _decode_promotion),
    (d.ReportDatabase, "report_database", _encode_report, _decode_report),
    (d.AcceptDataLoss, "accept_data_loss", _encode_loss, _decode_accept),
)
