"""Operating errors inside streams, where a gRPC status would end the stream.

Fails: nothing; a reason this version does not know becomes the class that the
field of the answer promises (`Refused` or `OutcomeUnknown`).
"""

from trellis.replication.v1.replication_pb2 import Failure

from mesh.errors import OutcomeUnknown, Refused, TrellisError, Unavailable


def to_failure(error: TrellisError) -> Failure:
    """The wire form of *error*."""
    return Failure(reason=error.reason, message=str(error), metadata=dict(error.metadata))


def from_failure(failure: Failure, *, is_certain: bool) -> TrellisError:
    """The error that *failure* names; *is_certain* when nothing was done for certain."""
    fallback: type[TrellisError] = Refused if is_certain else OutcomeUnknown
    kind = _BY_REASON.get(failure.reason, fallback) if is_certain else fallback
    # The metadata's keys may be anything; only names can be keyword arguments.
    metadata = {key: value for key, value in failure.metadata.items() if key != "message"}
    return kind(failure.message, **metadata)


def _kinds(root: type[TrellisError]) -> list[type[TrellisError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _kinds(child))]


_BY_REASON = {kind.reason: kind for root in (Refused, Unavailable) for kind in _kinds(root)}
