"""What clients did, as lines of a file: one when a call begins, one when it ends.

A line is written before its request leaves, so a file that ends early never lacks a write that
somebody may have seen. Times are CLOCK_MONOTONIC in nanoseconds, equal for all processes of a machine.

    ["b", CALL, CLIENT, KIND, NAME, VALUE, EXPECTED, STALE, AT]
    ["e", CALL, OUTCOME, AT, VERSION, VALUE, [[NAME, VERSION], …]]
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import grpc

from mesh.errors import NotFound, QueueFull, Refused, Unavailable, VersionConflict
from mesh.wire.errors import from_rpc_error
from tests.sim.history import ABSENT, NEVER, Kind, Operation, Outcome, Seen


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    outcome: Outcome
    version: int = ABSENT
    value: bytes = b""
    rows: tuple[tuple[str, int], ...] = ()


def answer_of(failure: grpc.RpcError, kind: Kind) -> Answer:
    """What a failed call says of the document, and of whether it was carried out.

    Invariant: REFUSED and CONFLICT only when a servicer said so in its own words, or the request
    never left (as the CLI has it); everything else may still happen.
    """
    error = from_rpc_error(failure)
    if "code" in error.metadata:  # no servicer of Trellis answered
        never_sent = error.metadata["code"] == "UNAVAILABLE" and "failed to connect" in error.message
        return Answer(Outcome.REFUSED if never_sent else Outcome.UNKNOWN)
    if isinstance(error, VersionConflict):
        return Answer(Outcome.CONFLICT, int(error.metadata["version"]))
    if isinstance(error, NotFound):
        return Answer(Outcome.OK if kind is Kind.GET else Outcome.CONFLICT)
    is_certain = isinstance(error, Refused | Unavailable | QueueFull)
    return Answer(Outcome.REFUSED if is_certain else Outcome.UNKNOWN)


class Recorder:
    """Writes the lines of one process, from any thread."""

    def __init__(self, path: Path, tag: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._tag = tag
        self._calls = 0
        self._one = Lock()

    def begin(self, operation: Operation) -> str:
        """Before the request leaves; the call to end."""
        with self._one:
            self._calls += 1
            call = f"{self._tag}{self._calls}"
            self._write([
                "b", call, operation.client, operation.kind.value, operation.name,
                operation.value.decode(), operation.expected, operation.stale, operation.invoked,
            ])  # fmt: skip
        return call

    def end(self, call: str, answer: Answer, at_ns: int) -> None:
        """After the answer has come."""
        with self._one:
            value = answer.value.decode()
            self._write(["e", call, answer.outcome.value, at_ns, answer.version, value, answer.rows])

    def _write(self, line: list[object]) -> None:
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


@dataclass(slots=True)
class Records:
    """Follows the files of several processes."""

    paths: list[Path]
    #: By call; what has no end yet is of unknown outcome.
    operations: dict[str, Operation] = field(default_factory=dict)
    _offsets: dict[Path, int] = field(default_factory=dict)

    def follow(self) -> None:
        """Take what has been written since. A line that is only half there is left for the next time."""
        for path in self.paths:
            for line in self._new_lines(path):
                self._take(json.loads(line))

    def take_away(self, prefix: str) -> list[Operation]:
        """The operations on documents of a prefix, which are then forgotten."""
        calls = [call for call, each in self.operations.items() if each.name.startswith(prefix)]
        return [self.operations.pop(call) for call in calls]

    def _new_lines(self, path: Path) -> Iterator[bytes]:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offsets[path] = self._offsets.get(path, 0) + len(line)
                yield line

    def _take(self, line: list[object]) -> None:
        match line:
            case [
                "b",
                str(call),
                str(client),
                str(kind),
                str(name),
                str(value),
                expected,
                bool(stale),
                int(at),
            ]:
                assert expected is None or isinstance(expected, int)
                self.operations[call] = Operation(
                    client, Kind(kind), name, at, value=value.encode(), expected=expected, stale=stale
                )
            case ["e", str(call), str(outcome), int(at), int(version), str(value), list(rows)]:
                begun = self.operations.get(call)
                if begun is not None:  # judged already, and counted as unknown there
                    self.operations[call] = ended(begun, Outcome(outcome), at, version, value.encode(), rows)
            case _:
                raise AssertionError(f"not a record: {line}")


def ended(
    begun: Operation, outcome: Outcome, at: int, version: int, value: bytes, rows: list[list[object]]
) -> Operation:
    """The whole operation."""
    seen = tuple(Seen(str(name), int(str(made))) for name, made in rows)
    return replace(
        begun,
        returned=NEVER if outcome is Outcome.UNKNOWN else at,
        outcome=outcome,
        version=version,
        value=value if begun.kind is Kind.GET else begun.value,
        rows=seen,
    )
