"""Requests as payloads of log entries: one table of encoders and decoders by command.

The leader decodes what it is asked to propose before it proposes it, and every
host applies what it decoded from the log, never the object that was proposed:
so all hosts, the proposing one included, apply the same values.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from trellis.replication.v1 import command_pb2 as pb
from trellis.replication.v1 import state_pb2

from mesh.errors import InvalidRequest, UnknownCommand
from mesh.ids import (
    ClusterId,
    DocumentName,
    FencingTerm,
    HostId,
    MemberId,
    OwnedName,
    ServiceName,
    SessionId,
)
from mesh.state import commands as c
from mesh.state.commands import Command, Request
from mesh.state.model import Fence
from mesh.wire import database
from mesh.wire.enums import HOST_STATUS, MEMBER_ROLE
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


def encode_request(request: Request) -> bytes:
    """Canonical bytes: equal requests give equal bytes on every host."""
    command = request.command
    name, encode = _ENCODERS[type(command)]
    message = pb.Command(
        session=request.session,
        sequence=request.sequence,
        at_ns=request.at_ns,
        trace_id=request.trace_id,
        fence=_encode_fence(request.fence),
        **{name: encode(command)},
    )
    return message.SerializeToString(deterministic=True)


def decode_request(data: bytes) -> Request:
    """The inverse of `encode_request`.

    A leader checks what it is asked for and applies it soon after: small ones are decoded once for both.
    Fails: `UnknownCommand` for anything this version does not know, however
    deep: the entry must not be skipped and not be half understood.
    `Corruption` when the bytes are no request at all.
    """
    return _decode_small(data) if len(data) <= SMALL_BYTES_MAX else _decode_request(data)


def _decode_request(data: bytes) -> Request:
    message = parse_strictly(pb.Command, data, "a command")
    return Request(
        command=_decode(message),
        session=SessionId(message.session),
        sequence=message.sequence,
        at_ns=message.at_ns,
        trace_id=message.trace_id,
        fence=_decode_fence(message.fence) if message.HasField("fence") else None,
    )


#: Bound: of the decoded requests that are kept, in number and (with the next) in bytes.
_decode_small: Final = lru_cache(maxsize=256)(_decode_request)
SMALL_BYTES_MAX: Final = 4_096


def _decode(message: pb.Command) -> Command:
    name = message.WhichOneof("command")
    if name is None:
        raise UnknownCommand("an entry holds no command that this version knows; upgrade this host")
    try:
        command: Command = _DECODERS[name](getattr(message, name))
    except (InvalidRequest, ValueError) as error:
        raise UnknownCommand(f"a {name} command cannot be understood: {error}; upgrade this host") from error
    return command


def _encode_fence(fence: Fence | None) -> pb.Fence | None:
    return None if fence is None else pb.Fence(name=fence.name, fencing_term=fence.fencing_term)


def _decode_fence(message: pb.Fence) -> Fence:
    return Fence(OwnedName(message.name), FencingTerm(message.fencing_term))


def _encode_batch(batch: c.Batch) -> pb.Batch:
    encoded = pb.Batch()
    for command in batch.commands:
        name, encode = _ENCODERS[type(command)]
        encoded.commands.append(pb.Command(**{name: encode(command)}))
    return encoded


def _decode_batch(message: pb.Batch) -> c.Batch:
    commands = []
    for each in message.commands:
        command = _decode(each)
        if isinstance(command, c.Batch):
            raise ValueError("a batch in a batch")
        commands.append(command)
    return c.Batch(tuple(commands))


def _expected(message: Any) -> int | None:
    return message.expected_version if message.HasField("expected_version") else None


def _decode_report(message: pb.ReportInstances) -> c.ReportInstances:
    host = HostId(message.host)
    statuses = tuple(decode_instance(each, host) for each in message.instances)
    return c.ReportInstances(host, MemberId(message.member), statuses, message.complete)


def _encode_draft(draft: c.EventDraft) -> state_pb2.EventRow:
    return state_pb2.EventRow(
        kind=draft.kind, subject=draft.subject, message=draft.message, facts=encode_facts(draft.attributes)
    )


def _decode_draft(row: state_pb2.EventRow) -> c.EventDraft:
    return c.EventDraft(row.kind, row.subject, row.message, decode_facts(row.facts))


_Encode = Callable[[Any], Any]
_Decode = Callable[[Any], Command]

#: Command, its field in the message, how it is written, how it is read.
_TABLE: Final[tuple[tuple[type, str, _Encode, _Decode], ...]] = (
    (
        c.InitCluster,
        "init_cluster",
        lambda x: pb.InitCluster(
            cluster_id=x.cluster_id,
            member=encode_member(x.member),
            virtual_address=x.virtual_address,
            ca_pem=x.ca_pem,
        ),
        lambda m: c.InitCluster(
            ClusterId(m.cluster_id), decode_member(m.member), m.virtual_address, m.ca_pem
        ),
    ),
    (
        c.SetVirtualAddress,
        "set_virtual_address",
        lambda x: pb.SetVirtualAddress(virtual_address=x.virtual_address),
        lambda m: c.SetVirtualAddress(m.virtual_address),
    ),
    (
        c.AdmitMember,
        "admit_member",
        lambda x: pb.AdmitMember(member=encode_member(x.member), token_sha256=x.token_sha256),
        lambda m: c.AdmitMember(decode_member(m.member), m.token_sha256),
    ),
    (
        c.UpdateMember,
        "update_member",
        lambda x: pb.UpdateMember(member=encode_member(x.member)),
        lambda m: c.UpdateMember(decode_member(m.member)),
    ),
    (
        c.SetMemberRole,
        "set_member_role",
        lambda x: pb.SetMemberRole(member=x.member, role=MEMBER_ROLE.encode(x.role)),
        lambda m: c.SetMemberRole(MemberId(m.member), MEMBER_ROLE.decode(m.role)),
    ),
    (
        c.RemoveMember,
        "remove_member",
        lambda x: pb.RemoveMember(member=x.member),
        lambda m: c.RemoveMember(MemberId(m.member)),
    ),
    (
        c.SetHostStatus,
        "set_host_status",
        lambda x: pb.SetHostStatus(
            host=x.host, member=x.member, status=HOST_STATUS.encode(x.status), reason=x.reason
        ),
        lambda m: c.SetHostStatus(HostId(m.host), MemberId(m.member), HOST_STATUS.decode(m.status), m.reason),
    ),
    (
        c.DrainHost,
        "drain_host",
        lambda x: pb.DrainHost(host=x.host, draining=x.draining),
        lambda m: c.DrainHost(HostId(m.host), m.draining),
    ),
    (
        c.PutDocument,
        "put_document",
        lambda x: pb.PutDocument(name=x.name, value=x.value, expected_version=x.expected_version),
        lambda m: c.PutDocument(DocumentName(m.name), m.value, _expected(m)),
    ),
    (
        c.DeleteDocument,
        "delete_document",
        lambda x: pb.DeleteDocument(name=x.name, expected_version=x.expected_version),
        lambda m: c.DeleteDocument(DocumentName(m.name), _expected(m)),
    ),
    (
        c.ApplyService,
        "apply_service",
        lambda x: pb.ApplyService(spec=encode_spec(x.spec), expected_version=x.expected_version),
        lambda m: c.ApplyService(decode_spec(m.spec), _expected(m)),
    ),
    (
        c.StopService,
        "stop_service",
        lambda x: pb.StopService(name=x.name, keep=x.keep, expected_version=x.expected_version),
        lambda m: c.StopService(ServiceName(m.name), m.keep, _expected(m)),
    ),
    (
        c.RestartService,
        "restart_service",
        lambda x: pb.RestartService(name=x.name),
        lambda m: c.RestartService(ServiceName(m.name)),
    ),
    (
        c.SetPlacement,
        "set_placement",
        lambda x: pb.SetPlacement(
            service=x.service,
            slots=[encode_slot(each) for each in x.slots],
            expected_version=x.expected_version,
        ),
        lambda m: c.SetPlacement(
            ServiceName(m.service), tuple(decode_slot(each) for each in m.slots), _expected(m)
        ),
    ),
    (
        c.ReportInstances,
        "report_instances",
        lambda x: pb.ReportInstances(
            host=x.host,
            member=x.member,
            instances=[encode_instance(each) for each in x.statuses],
            complete=x.complete,
        ),
        _decode_report,
    ),
    (
        c.AssignOwner,
        "assign_owner",
        lambda x: pb.AssignOwner(
            name=x.name,
            holder=x.holder,
            expected_fencing_term=x.expected_fencing_term,
            expected_sync_version=x.expected_sync_version,
            expected_primary_term=x.expected_primary_term,
        ),
        lambda m: c.AssignOwner(
            OwnedName(m.name),
            HostId(m.holder),
            FencingTerm(m.expected_fencing_term),
            m.expected_sync_version if m.HasField("expected_sync_version") else None,
            FencingTerm(m.expected_primary_term) if m.HasField("expected_primary_term") else None,
        ),
    ),
    (
        c.RequestRelease,
        "request_release",
        lambda x: pb.RequestRelease(
            name=x.name, successor=x.successor or "", expected_fencing_term=x.expected_fencing_term
        ),
        lambda m: c.RequestRelease(
            OwnedName(m.name),
            HostId(m.successor) if m.successor else None,
            FencingTerm(m.expected_fencing_term),
        ),
    ),
    (
        c.Unassign,
        "unassign",
        lambda x: pb.Unassign(name=x.name, expected_fencing_term=x.expected_fencing_term),
        lambda m: c.Unassign(OwnedName(m.name), FencingTerm(m.expected_fencing_term)),
    ),
    (
        c.AddToken,
        "add_token",
        lambda x: pb.AddToken(token=encode_token(x.token)),
        lambda m: c.AddToken(decode_token(m.token)),
    ),
    (
        c.ConsumeToken,
        "consume_token",
        lambda x: pb.ConsumeToken(sha256=x.sha256, host=x.host, key_sha256=x.key_sha256, member=x.member),
        lambda m: c.ConsumeToken(m.sha256, HostId(m.host), m.key_sha256, MemberId(m.member)),
    ),
    (
        c.RevokeCertificate,
        "revoke_certificate",
        lambda x: pb.RevokeCertificate(serial=x.serial, reason=x.reason),
        lambda m: c.RevokeCertificate(m.serial, m.reason),
    ),
    (
        c.SetTrust,
        "set_trust",
        lambda x: pb.SetTrust(ca_pem=x.ca_pem),
        lambda m: c.SetTrust(m.ca_pem),
    ),
    (
        c.PutSecret,
        "put_secret",
        lambda x: pb.PutSecret(name=x.name, sealed=x.sealed),
        lambda m: c.PutSecret(m.name, m.sealed),
    ),
    (
        c.RecordEvents,
        "record_events",
        lambda x: pb.RecordEvents(events=[_encode_draft(each) for each in x.events]),
        lambda m: c.RecordEvents(tuple(_decode_draft(each) for each in m.events)),
    ),
    (c.Batch, "batch", _encode_batch, _decode_batch),
    *database.TABLE,
)
_ENCODERS: Final[dict[type, tuple[str, _Encode]]] = {kind: (name, encode) for kind, name, encode, _ in _TABLE}
_DECODERS: Final[dict[str, _Decode]] = {name: decode for _, name, _, decode in _TABLE}
