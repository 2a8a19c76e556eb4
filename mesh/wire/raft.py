"""Raft messages to and from the contracts `trellis.election.v1` and `trellis.replication.v1`.

Each message travels on one lane, so that small urgent ones never wait behind
entries or snapshots; an answer goes back on the stream its question came by.

Fails: decoding raises `InvalidRequest` for a message that no encoder would have
made; the receiver drops it and counts it.
"""

from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

from trellis.common.v1.common_pb2 import EntryId as EntryIdProto
from trellis.common.v1.common_pb2 import Membership as MembershipProto
from trellis.common.v1.common_pb2 import MessageHeader
from trellis.election.v1 import election_pb2 as election
from trellis.replication.v1 import replication_pb2 as replication

from mesh.errors import InvalidRequest
from mesh.ids import ClusterId, Index, MemberId, Term
from mesh.raft.model import (
    Append,
    AppendHeartbeat,
    AppendHeartbeatReply,
    AppendReply,
    Entry,
    EntryId,
    EntryKind,
    Membership,
    Message,
    RequestVote,
    RequestVoteReply,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    TimeoutNow,
)

Wire: TypeAlias = (
    election.ElectRequest
    | election.ElectResponse
    | replication.AppendRequest
    | replication.AppendResponse
    | replication.InstallSnapshotRequest
    | replication.InstallSnapshotResponse
)


class Lane(Enum):
    """One kind of stream between two members."""

    ELECTION = "election"
    APPEND = "append"
    SNAPSHOT = "snapshot"


_LANES: dict[type[Message], tuple[Lane, bool]] = {
    RequestVote: (Lane.ELECTION, False),
    AppendHeartbeat: (Lane.ELECTION, False),
    TimeoutNow: (Lane.ELECTION, False),
    RequestVoteReply: (Lane.ELECTION, True),
    AppendHeartbeatReply: (Lane.ELECTION, True),
    Append: (Lane.APPEND, False),
    AppendReply: (Lane.APPEND, True),
    SnapshotChunk: (Lane.SNAPSHOT, False),
    SnapshotReply: (Lane.SNAPSHOT, True),
}

_KIND_TO_WIRE = {
    EntryKind.NOOP: replication.ENTRY_KIND_NOOP,
    EntryKind.COMMAND: replication.ENTRY_KIND_COMMAND,
    EntryKind.MEMBERSHIP: replication.ENTRY_KIND_MEMBERSHIP,
}
_KIND_FROM_WIRE = {wire: kind for kind, wire in _KIND_TO_WIRE.items()}


def lane_of(message: Message) -> tuple[Lane, bool]:
    """The lane of *message*, and whether it is an answer."""
    return _LANES[type(message)]


def encode(message: Message, cluster: ClusterId) -> Wire:
    """The wire form of *message*."""
    header = MessageHeader(cluster_id=cluster, sender=message.sender, to=message.to, term=message.term)
    return _ENCODERS[type(message)](message, header)


def decode(wire: Wire) -> Message:
    """The message in *wire*. Fails: `InvalidRequest`."""
    return _DECODERS[type(wire)](wire)


# ---- election -------------------------------------------------------------------


def _vote(message: RequestVote, header: MessageHeader) -> Wire:
    body = election.RequestVote(
        last_entry=entry_id(message.last), pre_vote=message.pre_vote, transfer=message.transfer
    )
    return election.ElectRequest(header=header, request_vote=body)


def _vote_reply(message: RequestVoteReply, header: MessageHeader) -> Wire:
    body = election.RequestVoteReply(granted=message.granted, pre_vote=message.pre_vote)
    return election.ElectResponse(header=header, request_vote_reply=body)


def _heartbeat(message: AppendHeartbeat, header: MessageHeader) -> Wire:
    body = election.AppendHeartbeat(commit=message.commit, round=message.round)
    return election.ElectRequest(header=header, append_heartbeat=body)


def _heartbeat_reply(message: AppendHeartbeatReply, header: MessageHeader) -> Wire:
    body = election.AppendHeartbeatReply(round=message.round)
    return election.ElectResponse(header=header, append_heartbeat_reply=body)


def _timeout_now(_: TimeoutNow, header: MessageHeader) -> Wire:
    return election.ElectRequest(header=header, timeout_now=election.TimeoutNow())


def _from_elect_request(wire: election.ElectRequest) -> Message:
    sender, to, term = _envelope(wire.header)
    match wire.WhichOneof("message"):
        case "append_heartbeat":
            beat = wire.append_heartbeat
            return AppendHeartbeat(
                sender=sender, to=to, term=term, commit=Index(beat.commit), round=beat.round
            )
        case "request_vote":
            vote = wire.request_vote
            return RequestVote(
                sender=sender,
                to=to,
                term=term,
                last=from_entry_id(vote.last_entry),
                pre_vote=vote.pre_vote,
                transfer=vote.transfer,
            )
        case "timeout_now":
            return TimeoutNow(sender=sender, to=to, term=term)
    raise InvalidRequest("an election message with no content")


def _from_elect_response(wire: election.ElectResponse) -> Message:
    sender, to, term = _envelope(wire.header)
    match wire.WhichOneof("message"):
        case "append_heartbeat_reply":
            return AppendHeartbeatReply(
                sender=sender, to=to, term=term, round=wire.append_heartbeat_reply.round
            )
        case "request_vote_reply":
            reply = wire.request_vote_reply
            return RequestVoteReply(
                sender=sender, to=to, term=term, granted=reply.granted, pre_vote=reply.pre_vote
            )
    raise InvalidRequest("an election answer with no content")


# ---- entries --------------------------------------------------------------------


def _append(message: Append, header: MessageHeader) -> Wire:
    return replication.AppendRequest(
        header=header,
        previous=entry_id(message.previous),
        entries=[
            replication.Entry(term=entry.term, kind=_KIND_TO_WIRE[entry.kind], data=entry.data)
            for entry in message.entries
        ],
        commit=message.commit,
    )


def _append_reply(message: AppendReply, header: MessageHeader) -> Wire:
    return replication.AppendResponse(
        header=header,
        matched=message.matched,
        rejected=message.rejected,
        refused=message.refused,
        hint=entry_id(message.hint),
    )


def _from_append_request(wire: replication.AppendRequest) -> Message:
    sender, to, term = _envelope(wire.header)
    first = wire.previous.index + 1
    try:
        entries = tuple(
            Entry(Index(index), Term(each.term), _KIND_FROM_WIRE[each.kind], each.data)
            for index, each in enumerate(wire.entries, first)
        )
    except KeyError as error:
        raise InvalidRequest(f"an entry of unknown kind {error}") from error
    return Append(
        sender=sender,
        to=to,
        term=term,
        previous=from_entry_id(wire.previous),
        entries=entries,
        commit=Index(wire.commit),
    )


def _from_append_response(wire: replication.AppendResponse) -> Message:
    sender, to, term = _envelope(wire.header)
    return AppendReply(
        sender=sender,
        to=to,
        term=term,
        matched=Index(wire.matched),
        rejected=wire.rejected,
        refused=Index(wire.refused),
        hint=from_entry_id(wire.hint),
    )


# ---- snapshots ------------------------------------------------------------------


def _chunk(message: SnapshotChunk, header: MessageHeader) -> Wire:
    return replication.InstallSnapshotRequest(
        header=header, meta=snapshot_meta(message.meta), offset=message.offset, data=message.data
    )


def _snapshot_reply(message: SnapshotReply, header: MessageHeader) -> Wire:
    return replication.InstallSnapshotResponse(
        header=header,
        last=entry_id(message.last),
        next_offset=message.next_offset,
        installed=message.installed,
    )


def _from_snapshot_request(wire: replication.InstallSnapshotRequest) -> Message:
    sender, to, term = _envelope(wire.header)
    return SnapshotChunk(
        sender=sender,
        to=to,
        term=term,
        meta=from_snapshot_meta(wire.meta),
        offset=wire.offset,
        data=wire.data,
    )


def _from_snapshot_response(wire: replication.InstallSnapshotResponse) -> Message:
    sender, to, term = _envelope(wire.header)
    return SnapshotReply(
        sender=sender,
        to=to,
        term=term,
        last=from_entry_id(wire.last),
        next_offset=wire.next_offset,
        installed=wire.installed,
    )


# ---- parts ----------------------------------------------------------------------


def _envelope(header: MessageHeader) -> tuple[MemberId, MemberId, Term]:
    return MemberId(header.sender), MemberId(header.to), Term(header.term)


def entry_id(value: EntryId) -> EntryIdProto:
    """The wire form of an entry's id."""
    return EntryIdProto(term=value.term, index=value.index)


def from_entry_id(wire: EntryIdProto) -> EntryId:
    """The inverse of `entry_id`."""
    return EntryId(Term(wire.term), Index(wire.index))


def membership(value: Membership) -> MembershipProto:
    """The wire form of a membership."""
    return MembershipProto(
        voters=value.voters,
        outgoing=value.outgoing,
        learners=value.learners,
        witnesses=value.witnesses,
        demoting=value.demoting,
    )


def from_membership(wire: MembershipProto) -> Membership:
    """The inverse of `membership`."""
    return Membership(
        voters=tuple(map(MemberId, wire.voters)),
        outgoing=tuple(map(MemberId, wire.outgoing)),
        learners=tuple(map(MemberId, wire.learners)),
        witnesses=tuple(map(MemberId, wire.witnesses)),
        demoting=tuple(map(MemberId, wire.demoting)),
    )


def snapshot_meta(value: SnapshotMeta) -> replication.SnapshotMeta:
    """The wire form of a snapshot's description."""
    return replication.SnapshotMeta(
        last=entry_id(value.last),
        membership=membership(value.membership),
        size_bytes=value.size_bytes,
        sha256=value.sha256,
    )


def from_snapshot_meta(wire: replication.SnapshotMeta) -> SnapshotMeta:
    """The inverse of `snapshot_meta`."""
    return SnapshotMeta(
        last=from_entry_id(wire.last),
        membership=from_membership(wire.membership),
        size_bytes=wire.size_bytes,
        sha256=wire.sha256,
    )


_ENCODERS: dict[type[Message], Callable[..., Wire]] = {
    RequestVote: _vote,
    RequestVoteReply: _vote_reply,
    AppendHeartbeat: _heartbeat,
    AppendHeartbeatReply: _heartbeat_reply,
    TimeoutNow: _timeout_now,
    Append: _append,
    AppendReply: _append_reply,
    SnapshotChunk: _chunk,
    SnapshotReply: _snapshot_reply,
}

_DECODERS: dict[type[Wire], Callable[..., Message]] = {
    election.ElectRequest: _from_elect_request,
    election.ElectResponse: _from_elect_response,
    replication.AppendRequest: _from_append_request,
    replication.AppendResponse: _from_append_response,
    replication.InstallSnapshotRequest: _from_snapshot_request,
    replication.InstallSnapshotResponse: _from_snapshot_response,
}
