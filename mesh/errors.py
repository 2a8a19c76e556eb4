"""Every operating error of Trellis, each with a reason code and the next step.

An operating error says what was refused, the fact that made it so and what to
do; `reason` and `metadata` travel over gRPC unchanged (see mesh.wire.errors).
A broken invariant is a bug: it is never caught below main.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class TrellisError(Exception):
    """Something an operator or a caller can act on.

    `reason` is UPPER_SNAKE and stable; `metadata` holds the facts as text.
    """

    reason: ClassVar[str] = "TRELLIS_ERROR"

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in metadata.items()}


class Refused(TrellisError):
    """Not done, and the state is as it was before the request."""

    reason = "REFUSED"


class NotLeader(Refused):
    """Only the leader may do this; metadata `leader` names it when known."""

    reason = "NOT_LEADER"


class StaleTerm(Refused):
    """The caller acts on a term or fencing term that has been overtaken."""

    reason = "STALE_TERM"


class VersionConflict(Refused):
    """A compare-and-set found another version; metadata `version` has the present one."""

    reason = "VERSION_CONFLICT"


class QueueFull(Refused):
    """A bound was reached; nothing was queued. Try again after a pause."""

    reason = "QUEUE_FULL"


class NotFound(Refused):
    """The thing named does not exist."""

    reason = "NOT_FOUND"


class Conflict(Refused):
    """The present state does not allow this; the message says what to change first."""

    reason = "CONFLICT"


class OutOfRange(Refused):
    """What is asked for is no longer kept; start again from the present state."""

    reason = "OUT_OF_RANGE"


class Denied(Refused):
    """The caller's identity may not do this."""

    reason = "DENIED"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: where, what, and a correct example."""

    path: str
    problem: str
    example: str = ""

    def __str__(self) -> str:
        hint = f" (for example: {self.example})" if self.example else ""
        return f"{self.path}: {self.problem}{hint}"


class InvalidRequest(Refused):
    """The input itself is wrong; `problems` has every violation with its field."""

    reason = "INVALID_REQUEST"

    def __init__(self, message: str, problems: Sequence[Problem] = (), **metadata: object) -> None:
        super().__init__(message, **metadata)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {problem}" for problem in self.problems)])


class OutcomeUnknown(TrellisError):
    """It may or may not have happened: ask again, or repeat with the same session and sequence."""

    reason = "OUTCOME_UNKNOWN"


class Unavailable(TrellisError):
    """Not possible now; the same call may succeed later."""

    reason = "UNAVAILABLE"


class NoLeader(Unavailable):
    """No leader is known, or this host cannot reach a quorum."""

    reason = "NO_LEADER"


class PeerUnreachable(Unavailable):
    """Another host did not answer."""

    reason = "PEER_UNREACHABLE"


class Draining(Unavailable):
    """This host or instance is finishing its work and takes no more."""

    reason = "DRAINING"


class Fenced(Unavailable):
    """This host has lost its lease and may not act."""

    reason = "FENCED"


class NotInTime(Unavailable):
    """A deadline passed first; metadata `progress` says how far it got. It may still be under way."""

    reason = "NOT_IN_TIME"


class DiskFull(Unavailable):
    """There is no room on a disk; free some or make it larger, then it goes on by itself."""

    reason = "DISK_FULL"


class DatabaseFailed(Unavailable):
    """PostgreSQL, or one of its programs, did not do what was asked; metadata `said` has its words."""

    reason = "DATABASE_FAILED"


class DataDamaged(TrellisError):
    """The database's files here are not what was written: this copy may not lead, and is cloned anew."""

    reason = "DATA_DAMAGED"


class CannotRewind(Refused):
    """This copy of the database cannot be wound back to where it left the primary's history: clone it."""

    reason = "CANNOT_REWIND"


class SettingsError(TrellisError):
    """The settings file cannot be used; `problems` has every problem at once."""

    reason = "SETTINGS"

    def __init__(self, message: str, problems: Sequence[Problem]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {problem}" for problem in self.problems)])


class UnknownCommand(TrellisError):
    """An entry of the log says something this version does not understand.

    Skipping it would make this host differ from the others: it stays out until upgraded.
    """

    reason = "UNKNOWN_COMMAND"


class Corruption(TrellisError):
    """Stored data is not what was written. Never retried: the host stays out until rebuilt."""

    reason = "CORRUPTION"

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(
            f"{where}: {detail}. This host stays out; rebuild it from its peers"
            " (trellis join with an empty data directory).",
            where=where,
            detail=detail,
        )


class StorageFailed(TrellisError):
    """The disk refused to make something durable. Fatal at once: what the disk holds is unknown."""

    reason = "STORAGE_FAILED"


class InvariantBroken(AssertionError):
    """A bug in Trellis. Never caught below main: the process ends and is restarted."""
