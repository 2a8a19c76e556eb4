"""The whole replicated state as bytes, and back.

Equal states give equal bytes, whatever order their rows came in. The bytes hold
the state hash, and a reader trusts them only when what it read hashes the same.
"""

from trellis.replication.v1 import state_pb2 as pb

from mesh.errors import Corruption, InvalidRequest, UnknownCommand
from mesh.ids import (
    ClusterId,
    DocumentName,
    FencingTerm,
    HostId,
    Index,
    InstanceId,
    MemberId,
    OwnedName,
    ServiceName,
    SessionId,
)
from mesh.state import model
from mesh.state.database_model import MAIN
from mesh.state.hash import checkpoint
from mesh.state.tables import ONLY, ClusterState
from mesh.wire.database import (
    decode_database_member,
    decode_database_row,
    encode_database_member,
    encode_database_row,
)
from mesh.wire.enums import HOST_STATUS
from mesh.wire.outcome import decode_outcome, encode_outcome
from mesh.wire.rows import (
    decode_facts,
    decode_member,
    decode_slot,
    decode_token,
    encode_facts,
    encode_member,
    encode_slot,
    encode_token,
)
from mesh.wire.service import decode_instance, decode_spec, encode_instance, encode_spec
from mesh.wire.strict import parse_strictly

WHERE = "a snapshot of the replicated state"


def encode_snapshot(state: ClusterState) -> bytes:
    """Bytes of the state as of `state.applied`; for a big state, of a `copy` in a thread."""
    message = pb.ClusterStateSnapshot(
        applied=state.applied,
        state_hash=checkpoint(state),
        members=[encode_member(each) for each in state.members.values()],
        documents=[_encode_document(each) for each in state.versions.values()],
        owners=[_encode_ownership(each) for each in state.owners.values()],
        events=[_encode_event(each) for each in state.events.values()],
        tokens=[encode_token(each) for each in state.tokens.values()],
        ca_pem=state.ca_pem,
        secrets=[pb.SecretRow(name=name, sealed=sealed) for name, sealed in state.secrets.items()],
        counters=[pb.CounterRow(name=name, value=value) for name, value in state.counters.items()],
    )
    if state.info is not None:
        message.cluster.cluster_id = state.info.cluster_id
        message.cluster.virtual_address = state.info.virtual_address
        message.cluster.created_ns = state.info.created_ns
    message.hosts.extend(_encode_host(each) for each in state.hosts.values())
    message.services.extend(_encode_service(each) for each in state.services.values())
    message.placements.extend(_encode_placement(each) for each in state.placements.values())
    message.instances.extend(
        pb.InstanceRow(host=each.host, report=encode_instance(each)) for each in state.instances.values()
    )
    message.revoked.extend(
        pb.RevokedRow(serial=each.serial, reason=each.reason, since=each.since)
        for each in state.revoked.values()
    )
    if state.database is not None:
        message.database.CopyFrom(encode_database_row(state.database))
    message.database_members.extend(encode_database_member(each) for each in state.database_members.values())
    message.sessions.extend(_encode_session(state, each) for each in state.sessions.rows.values())
    return message.SerializeToString(deterministic=True)


def decode_snapshot(data: bytes) -> ClusterState:
    """The inverse of `encode_snapshot`.

    Fails: `Corruption` when the bytes are no snapshot or hash differently,
    `UnknownCommand` when they hold what this version does not know.
    """
    message = parse_strictly(pb.ClusterStateSnapshot, data, WHERE)
    state = ClusterState()
    try:
        _fill_cluster(state, message)
        _fill_services(state, message)
        _fill_memory(state, message)
    except (InvalidRequest, ValueError) as error:
        raise UnknownCommand(f"{WHERE} cannot be understood: {error}; upgrade this host") from error
    state.rebuild(Index(message.applied))
    found = checkpoint(state)
    if found != message.state_hash:
        raise Corruption(WHERE, f"its rows hash to {found.hex()}, not {message.state_hash.hex()}")
    return state


def _fill_cluster(state: ClusterState, message: pb.ClusterStateSnapshot) -> None:
    if message.HasField("cluster"):
        info = message.cluster
        state.cluster.put(
            ONLY, model.ClusterInfo(ClusterId(info.cluster_id), info.virtual_address, info.created_ns)
        )
    if message.ca_pem:
        state.trust.put(ONLY, message.ca_pem)
    for row in message.members:
        member = decode_member(row)
        state.members.put(member.member, member)
    for host in message.hosts:
        state.hosts.put(HostId(host.host), _decode_host(host))
    for token in message.tokens:
        state.tokens.put(token.sha256, decode_token(token))
    for each in message.revoked:
        state.revoked.put(each.serial, model.RevokedCertificate(each.serial, each.reason, Index(each.since)))
    for secret in message.secrets:
        state.secrets.put(secret.name, secret.sealed)
    for counter in message.counters:
        state.counters.put(counter.name, counter.value)


def _fill_services(state: ClusterState, message: pb.ClusterStateSnapshot) -> None:
    for row in message.documents:
        state.versions.put((DocumentName(row.name), row.version), _decode_document(row))
    for service in message.services:
        declared = _decode_service(service)
        state.services.put(declared.spec.name, declared)
    for placement in message.placements:
        state.placements.put(ServiceName(placement.service), _decode_placement(placement))
    for owner in message.owners:
        state.owners.put(OwnedName(owner.name), _decode_ownership(owner))
    if message.HasField("database"):
        state.databases.put(MAIN, decode_database_row(message.database))
    for member in message.database_members:
        state.database_members.put(HostId(member.host), decode_database_member(member))
    for instance in message.instances:
        status = decode_instance(instance.report, HostId(instance.host))
        state.instances.put(InstanceId(status.instance), status)


def _fill_memory(state: ClusterState, message: pb.ClusterStateSnapshot) -> None:
    for event in message.events:
        state.events.put((event.index, event.position), _decode_event(event))
    for row in message.sessions:
        session = SessionId(row.session)
        state.sessions.put(session, model.Session(session, Index(row.last_index), row.floor))
        for kept in row.outcomes:
            state.outcomes.put((session, kept.sequence), decode_outcome(kept.outcome))


def _encode_host(record: model.HostRecord) -> pb.HostRow:
    return pb.HostRow(
        host=record.host,
        member=record.member,
        status=HOST_STATUS.encode(record.status),
        draining=record.draining,
        since=record.since,
        reason=record.reason,
    )


def _decode_host(row: pb.HostRow) -> model.HostRecord:
    return model.HostRecord(
        host=HostId(row.host),
        member=MemberId(row.member),
        status=HOST_STATUS.decode(row.status),
        draining=row.draining,
        since=Index(row.since),
        reason=row.reason,
    )


def _encode_document(document: model.Document) -> pb.DocumentRow:
    return pb.DocumentRow(
        name=document.name,
        version=document.version,
        value=document.value,
        revision=document.revision,
        written_ns=document.written_ns,
        deleted=document.deleted,
    )


def _decode_document(row: pb.DocumentRow) -> model.Document:
    return model.Document(
        name=DocumentName(row.name),
        version=row.version,
        value=row.value,
        revision=Index(row.revision),
        written_ns=row.written_ns,
        deleted=row.deleted,
    )


def _encode_service(declared: model.DeclaredService) -> pb.ServiceRow:
    return pb.ServiceRow(
        spec=encode_spec(declared.spec),
        version=declared.version,
        stopped=declared.stopped,
        restart_nonce=declared.restart_nonce,
    )


def _decode_service(row: pb.ServiceRow) -> model.DeclaredService:
    return model.DeclaredService(decode_spec(row.spec), row.version, row.stopped, row.restart_nonce)


def _encode_placement(placement: model.Placement) -> pb.PlacementRow:
    slots = [encode_slot(each) for each in placement.slots]
    return pb.PlacementRow(service=placement.service, slots=slots, version=placement.version)


def _decode_placement(row: pb.PlacementRow) -> model.Placement:
    slots = tuple(decode_slot(each) for each in row.slots)
    return model.Placement(ServiceName(row.service), slots, row.version)


def _encode_ownership(owned: model.Ownership) -> pb.OwnershipRow:
    return pb.OwnershipRow(
        name=owned.name,
        holder=owned.holder or "",
        fencing_term=owned.fencing_term,
        since=owned.since,
        successor=owned.successor or "",
    )


def _decode_ownership(row: pb.OwnershipRow) -> model.Ownership:
    return model.Ownership(
        name=OwnedName(row.name),
        holder=HostId(row.holder) if row.holder else None,
        fencing_term=FencingTerm(row.fencing_term),
        since=Index(row.since),
        successor=HostId(row.successor) if row.successor else None,
    )


def _encode_event(event: model.Event) -> pb.EventRow:
    return pb.EventRow(
        index=event.index,
        position=event.position,
        at_ns=event.at_ns,
        kind=event.kind,
        subject=event.subject,
        message=event.message,
        facts=encode_facts(event.attributes),
        trace_id=event.trace_id,
    )


def _decode_event(row: pb.EventRow) -> model.Event:
    return model.Event(
        index=Index(row.index),
        position=row.position,
        at_ns=row.at_ns,
        kind=row.kind,
        subject=row.subject,
        message=row.message,
        attributes=decode_facts(row.facts),
        trace_id=row.trace_id,
    )


def _encode_session(state: ClusterState, session: model.Session) -> pb.SessionRow:
    outcomes = [
        pb.KeptOutcome(sequence=sequence, outcome=encode_outcome(state.outcomes[session.session, sequence]))
        for sequence in state.sequences[session.session]
    ]
    return pb.SessionRow(
        session=session.session,
        last_index=session.last_index,
        floor=session.floor,
        outcomes=outcomes,
    )
