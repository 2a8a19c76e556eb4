"""Raft messages survive the wire unchanged, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trellis.common.v1.common_pb2 import MessageHeader
from trellis.election.v1 import election_pb2 as election
from trellis.replication.v1 import replication_pb2 as replication

from mesh.errors import InvalidRequest, NotLeader, OutcomeUnknown, QueueFull, Refused, Unavailable
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
from mesh.wire.failure import from_failure, to_failure
from mesh.wire.raft import Lane, Wire, decode, encode, lane_of

CLUSTER = ClusterId("c" * 32)

numbers = st.integers(0, 2**63 - 1)
flags = st.booleans()
entry_ids = st.builds(EntryId, numbers, numbers)
members = st.sampled_from(["host1.1", "host2.1", "host3.7", "a-long-name.12"])
memberships = st.builds(
    Membership, *([st.lists(members, max_size=3).map(lambda each: tuple(sorted(set(each))))] * 5)
)
metas = st.builds(SnapshotMeta, entry_ids, memberships, numbers, st.binary(min_size=32, max_size=32))
envelope = {"sender": members, "to": members, "term": numbers}


@st.composite
def appends(draw: st.DrawFn) -> Append:
    previous = draw(st.builds(EntryId, numbers, st.integers(0, 2**40)))
    bodies = draw(
        st.lists(st.tuples(numbers, st.sampled_from(EntryKind), st.binary(max_size=50)), max_size=4)
    )
    return Append(
        sender=MemberId(draw(members)),
        to=MemberId(draw(members)),
        term=Term(draw(numbers)),
        previous=previous,
        entries=tuple(
            Entry(Index(previous.index + 1 + n), Term(term), kind, data)
            for n, (term, kind, data) in enumerate(bodies)
        ),
        commit=Index(draw(numbers)),
    )


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(RequestVote, last=entry_ids, pre_vote=flags, transfer=flags, **envelope),
    st.builds(RequestVoteReply, granted=flags, pre_vote=flags, **envelope),
    appends(),
    st.builds(AppendReply, matched=numbers, rejected=flags, refused=numbers, hint=entry_ids, **envelope),
    st.builds(AppendHeartbeat, commit=numbers, round=numbers, **envelope),
    st.builds(AppendHeartbeatReply, round=numbers, **envelope),
    st.builds(SnapshotChunk, meta=metas, offset=numbers, data=st.binary(max_size=50), **envelope),
    st.builds(SnapshotReply, last=entry_ids, next_offset=numbers, installed=flags, **envelope),
    st.builds(TimeoutNow, **envelope),
)


@given(messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    """Goal: no field of consensus is lost or rounded. Method: random messages of all kinds through bytes."""
    wire = encode(message, CLUSTER)
    again = type(wire).FromString(wire.SerializeToString())
    assert again.header.cluster_id == CLUSTER
    assert decode(again) == message


@given(messages)
def test_an_answer_leaves_by_the_stream_type_that_its_question_came_by(message: Message) -> None:
    """Goal: votes do not wait behind snapshots. Method: lane and direction of every kind."""
    lane, is_answer = lane_of(message)
    expected: dict[tuple[Lane, bool], type[Wire]] = {
        (Lane.ELECTION, False): election.ElectRequest,
        (Lane.ELECTION, True): election.ElectResponse,
        (Lane.APPEND, False): replication.AppendRequest,
        (Lane.APPEND, True): replication.AppendResponse,
        (Lane.SNAPSHOT, False): replication.InstallSnapshotRequest,
        (Lane.SNAPSHOT, True): replication.InstallSnapshotResponse,
    }
    assert type(encode(message, CLUSTER)) is expected[lane, is_answer]


HEADER = MessageHeader(cluster_id=CLUSTER, sender="host1.1", to="host2.1", term=3)


@pytest.mark.parametrize(
    "wire",
    [
        election.ElectRequest(header=HEADER),
        election.ElectResponse(header=HEADER),
        replication.AppendRequest(header=HEADER, entries=[replication.Entry(term=1)]),
    ],
)
def test_a_message_that_no_member_would_send_is_refused(wire: Wire) -> None:
    """Goal: the core sees only whole messages. Method: header without body, entry without kind."""
    with pytest.raises(InvalidRequest):
        decode(wire)


@pytest.mark.parametrize("error", [NotLeader("ask b", leader="b"), QueueFull("full"), Unavailable("no")])
def test_a_refusal_keeps_its_kind_inside_a_stream(error: Refused | Unavailable) -> None:
    """Goal: a forwarded caller learns what a direct one would. Method: three kinds there and back."""
    again = from_failure(to_failure(error), is_certain=True)
    assert (type(again), again.message, again.metadata) == (type(error), error.message, error.metadata)


def test_an_unknown_outcome_stays_unknown_whatever_its_reason() -> None:
    """Goal: a may-be is never told as a no. Method: a refusal marked as uncertain."""
    assert type(from_failure(to_failure(NotLeader("ask b")), is_certain=False)) is OutcomeUnknown


def test_a_reason_of_a_later_version_is_a_plain_refusal() -> None:
    """Goal: certainty survives a version.

    Method: an invented reason, and a fact that clashes with an argument.
    """
    failure = to_failure(NotLeader("x"))
    failure.reason = "NOT_YET_INVENTED"
    failure.metadata["message"] = "a fact that happens to be called message"
    assert type(from_failure(failure, is_certain=True)) is Refused
