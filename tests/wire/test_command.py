"""Commands on the wire: there and back for all of them, and nothing unknown slips through."""

import pytest
from hypothesis import given, settings
from trellis.replication.v1 import command_pb2 as pb
from trellis.supervisor.v1 import supervisor_pb2

from mesh.errors import Corruption, UnknownCommand
from mesh.ids import ServiceName, SessionId
from mesh.state.commands import Applied, Outcome, Request, StopService
from mesh.wire.command import decode_request, encode_request
from mesh.wire.outcome import decode_outcome, encode_outcome
from tests.wire import commands

#: A stop of the version before fences and versions of stops.
WITHOUT_FENCE = bytes.fromhex("0a01731003180722026162da01070a037765621001")
#: Field 999, varint 1: what a later version might have added.
LATER_FIELD = b"\xb8\x3e\x01"


@given(commands.requests)
@settings(max_examples=400, deadline=None)
def test_every_request_comes_back_as_it_was(request: Request) -> None:
    """Goal: what is applied is what was proposed, byte for byte on every host.

    Method: random requests of all kinds.
    """
    data = encode_request(request)
    assert decode_request(data) == request
    assert encode_request(decode_request(data)) == data


@given(commands.outcomes)
@settings(max_examples=100, deadline=None)
def test_every_outcome_comes_back_as_it_was(outcome: Outcome) -> None:
    """Goal: a caller at a follower learns what the leader's would. Method: random outcomes."""
    assert decode_outcome(encode_outcome(outcome)) == outcome


def test_an_entry_of_before_there_were_fences_is_read_as_ever() -> None:
    """Goal: a log is read by every later version. Method: bytes that the version before wrote; the same
    come back."""
    request = decode_request(WITHOUT_FENCE)
    assert request == Request(StopService(ServiceName("web"), True), SessionId("s"), 3, 7, "ab")
    assert encode_request(request) == WITHOUT_FENCE


def put() -> pb.Command:
    return pb.Command(put_document=pb.PutDocument(name="a", value=b"x"))


def test_an_unknown_field_at_any_depth_refuses_the_whole_entry() -> None:
    """Goal: an old host never applies half of a newer command.

    Method: a later field outside, inside and in a batch.
    """
    outer = put().SerializeToString() + LATER_FIELD
    inner = pb.Command()
    inner.put_document.MergeFromString(pb.PutDocument(name="a").SerializeToString() + LATER_FIELD)
    deep = pb.Command()
    deep.batch.commands.add().CopyFrom(inner)
    for data in (outer, inner.SerializeToString(), deep.SerializeToString()):
        with pytest.raises(UnknownCommand, match="upgrade this host"):
            decode_request(data)


def test_an_entry_without_a_command_that_is_known_is_refused() -> None:
    """A command of a later version is a field that this one has not."""
    with pytest.raises(UnknownCommand):
        decode_request(pb.Command(session="s").SerializeToString())
    with pytest.raises(UnknownCommand):
        decode_request(b"")
    with pytest.raises(UnknownCommand):
        decode_outcome(b"")


def test_an_unspecified_or_unknown_enum_is_refused() -> None:
    """Goal: no default is guessed. Method: 0 and 99."""
    for number in (0, 99):
        status = pb.SetHostStatus(host="host1", member="host1.1")
        status.status = number  # type: ignore[assignment]
        with pytest.raises(UnknownCommand, match="status"):
            decode_request(pb.Command(set_host_status=status).SerializeToString())
    spec = supervisor_pb2.ServiceSpec(name="echo")
    with pytest.raises(UnknownCommand, match="mode must be set"):
        decode_request(pb.Command(apply_service=pb.ApplyService(spec=spec)).SerializeToString())


def test_a_member_without_incarnation_is_refused() -> None:
    """Goal: two lives of a host stay apart.

    Method: admit by a bare name; removing by one is let through to the state's refusal.
    """
    message = pb.Command(remove_member=pb.RemoveMember(member="host1"))
    decode_request(message.SerializeToString())
    admit = pb.Command()
    admit.admit_member.member.member = "host1"
    with pytest.raises(UnknownCommand, match="admit_member"):
        decode_request(admit.SerializeToString())


def test_a_batch_in_a_batch_is_refused() -> None:
    """Goal: depth is bounded. Method: one inside another."""
    message = pb.Command()
    message.batch.commands.add().batch.commands.add().CopyFrom(put())
    with pytest.raises(UnknownCommand, match="a batch in a batch"):
        decode_request(message.SerializeToString())


def test_bytes_that_are_no_command_are_corruption() -> None:
    """Goal: a damaged entry stops the host instead of being skipped. Method: garbage and a cut message."""
    for data in (b"\xff", put().SerializeToString()[:-1]):
        with pytest.raises(Corruption):
            decode_request(data)


def test_an_outcome_of_a_later_version_is_refused() -> None:
    """Goal: an answer is not half understood. Method: a later field behind an outcome."""
    with pytest.raises(UnknownCommand):
        decode_outcome(encode_outcome(Applied(1)) + LATER_FIELD)  # type: ignore[arg-type]
