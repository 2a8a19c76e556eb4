"""Outcomes of commands on the wire and in snapshots."""

from trellis.replication.v1 import command_pb2 as pb

from mesh.errors import Problem, UnknownCommand
from mesh.ids import FencingTerm, Index, MemberId
from mesh.state.commands import Applied, Outcome, Rejected
from mesh.wire.rows import decode_facts, encode_facts
from mesh.wire.strict import parse_strictly


def encode_outcome(outcome: Outcome) -> bytes:
    """Canonical bytes: equal outcomes give equal bytes."""
    if isinstance(outcome, Applied):
        message = pb.Outcome(applied=_encode_applied(outcome))
    else:
        message = pb.Outcome(rejected=_encode_rejected(outcome))
    return message.SerializeToString(deterministic=True)


def decode_outcome(data: bytes) -> Outcome:
    """Fails: `Corruption`, or `UnknownCommand` for an outcome of a later version."""
    message = parse_strictly(pb.Outcome, data, "the outcome of a command")
    kind = message.WhichOneof("outcome")
    if kind == "applied":
        return _decode_applied(message.applied)
    if kind == "rejected":
        return _decode_rejected(message.rejected)
    raise UnknownCommand("the outcome of a command is neither applied nor rejected; upgrade this host")


def _encode_applied(applied: Applied) -> pb.Applied:
    return pb.Applied(
        index=applied.index,
        version=applied.version,
        fencing_term=applied.fencing_term,
        member=applied.member or "",
        unchanged=applied.unchanged,
        parts=[_encode_applied(each) for each in applied.parts],
    )


def _decode_applied(message: pb.Applied) -> Applied:
    return Applied(
        index=Index(message.index),
        version=message.version,
        fencing_term=FencingTerm(message.fencing_term),
        member=MemberId(message.member) if message.member else None,
        unchanged=message.unchanged,
        parts=tuple(_decode_applied(each) for each in message.parts),
    )


def _encode_rejected(rejected: Rejected) -> pb.Rejected:
    return pb.Rejected(
        reason=rejected.reason,
        message=rejected.message,
        facts=encode_facts(rejected.metadata),
        problems=[
            pb.FieldProblem(path=each.path, problem=each.problem, example=each.example)
            for each in rejected.problems
        ],
    )


def _decode_rejected(message: pb.Rejected) -> Rejected:
    return Rejected(
        reason=message.reason,
        message=message.message,
        metadata=decode_facts(message.facts),
        problems=tuple(Problem(each.path, each.problem, each.example) for each in message.problems),
    )
