"""The one table between errors of Trellis and gRPC statuses (AIP-193).

Every status has exactly one `ErrorInfo` with the reason and metadata of the
error; an `InvalidRequest` has its problems as `BadRequest` field violations as
well. `from_rpc_error` makes the same error of it on the other side; an example
of a correct value has by then become part of the problem's text.

UNAVAILABLE: retry this call. ABORTED: redo the larger operation.
FAILED_PRECONDITION: fix something first.
"""

from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from mesh import errors
from mesh.errors import InvalidRequest, OutcomeUnknown, Problem, SettingsError, TrellisError

DOMAIN: Final = "trellis"

#: Subclasses come before the classes they are made from.
TABLE: Final[tuple[tuple[type[TrellisError], grpc.StatusCode], ...]] = (
    (errors.NotLeader, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.StaleTerm, grpc.StatusCode.ABORTED),
    (errors.VersionConflict, grpc.StatusCode.ABORTED),
    (errors.QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.OutOfRange, grpc.StatusCode.OUT_OF_RANGE),
    (errors.Denied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.CannotRewind, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.OutcomeUnknown, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.NoLeader, grpc.StatusCode.UNAVAILABLE),
    (errors.PeerUnreachable, grpc.StatusCode.UNAVAILABLE),
    (errors.Draining, grpc.StatusCode.UNAVAILABLE),
    (errors.Fenced, grpc.StatusCode.UNAVAILABLE),
    (errors.NotInTime, grpc.StatusCode.UNAVAILABLE),
    (errors.DiskFull, grpc.StatusCode.UNAVAILABLE),
    (errors.DatabaseFailed, grpc.StatusCode.UNAVAILABLE),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.SettingsError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.UnknownCommand, grpc.StatusCode.UNIMPLEMENTED),
    (errors.DataDamaged, grpc.StatusCode.DATA_LOSS),
    (errors.Corruption, grpc.StatusCode.DATA_LOSS),
    (errors.StorageFailed, grpc.StatusCode.INTERNAL),
    (errors.TrellisError, grpc.StatusCode.UNKNOWN),
)
_BY_REASON: Final = {kind.reason: kind for kind, _ in TABLE}
#: What a status without details means: it did not come from a servicer of Trellis.
_BY_CODE: Final[dict[grpc.StatusCode, type[TrellisError]]] = {
    grpc.StatusCode.UNAVAILABLE: errors.PeerUnreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.OutcomeUnknown,
    grpc.StatusCode.CANCELLED: errors.OutcomeUnknown,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.QueueFull,
    grpc.StatusCode.PERMISSION_DENIED: errors.Denied,
    grpc.StatusCode.UNAUTHENTICATED: errors.Denied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.VersionConflict,
    grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: errors.Refused,
}


_HINT: Final = " (for example: "


def code_of(error: TrellisError) -> grpc.StatusCode:
    """The status code of an error's class."""
    return next(code for kind, code in TABLE if isinstance(error, kind))


def to_status(error: TrellisError) -> Any:
    """The `grpc.Status` with which a servicer ends the call: for `context.abort_with_status`."""
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    )
    if isinstance(error, InvalidRequest | SettingsError):
        violations = error_details_pb2.BadRequest()
        for problem in error.problems:
            hint = f"{_HINT}{problem.example})" if problem.example else ""
            violations.field_violations.add(field=problem.path, description=problem.problem + hint)
        status.details.add().Pack(violations)
    return rpc_status.to_status(status)


def from_rpc_error(failure: grpc.RpcError) -> TrellisError:
    """The error that the other side raised, or what the failed call means without one.

    A call that ended without an answer of a servicer may have been carried out
    unless gRPC knows that it was never sent: `PeerUnreachable` says so only for
    UNAVAILABLE, and a caller that writes must treat it as unknown.
    """
    status = _status_of(failure)
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details if status is not None else ():
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(violations.DESCRIPTOR):
            detail.Unpack(violations)
    if status is None or info.domain != DOMAIN:
        return _without_details(failure)
    problems = [_problem_of(each.field, each.description) for each in violations.field_violations]
    kind = _BY_REASON.get(info.reason)
    if kind is None:
        known = _BY_CODE.get(failure.code(), TrellisError)
        return _make(known, status.message, problems, {**info.metadata, "reason": info.reason})
    return _make(kind, status.message, problems, dict(info.metadata))


def _problem_of(path: str, description: str) -> Problem:
    """With the example apart again: for programs of others it stands in the sentence."""
    problem, hint, example = description.rpartition(_HINT)
    if hint and example.endswith(")"):
        return Problem(path, problem, example[:-1])
    return Problem(path, description)


def _make(
    kind: type[TrellisError], message: str, problems: Sequence[Problem], metadata: dict[str, str]
) -> TrellisError:
    if issubclass(kind, InvalidRequest):
        error: TrellisError = kind(message, problems)
    elif issubclass(kind, SettingsError):
        error = kind(message, problems)
    elif issubclass(kind, errors.Corruption):
        error = kind(metadata.get("where", ""), metadata.get("detail", ""))
    else:
        error = kind(message)
    error.message, error.metadata = message, metadata
    return error


def _without_details(failure: grpc.RpcError) -> TrellisError:
    code, details = failure.code(), failure.details() or "no details"
    kind = _BY_CODE.get(code, OutcomeUnknown)
    return _make(kind, f"{code.name}: {details}", (), {"code": code.name})


def _status_of(failure: grpc.RpcError) -> Any:
    """The rich status in the trailing metadata of sync and asyncio calls; None when there is none."""
    trailing: Any = failure.trailing_metadata() or ()
    for key, value in trailing:
        if key == "grpc-status-details-bin":
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None
