"""The live check can fail: planted violations are reported, and nothing else is."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.errors import NoLeader, NotFound, OutcomeUnknown, TrellisError, VersionConflict
from mesh.wire.errors import to_status
from tests.chaos.clients import SLOT_NS, slot_prefix
from tests.chaos.record import Answer, Recorder, Records, answer_of
from tests.chaos.stage import is_operating
from tests.chaos.verdict import Judge, longest_gap_s, owners_of, violations_of
from tests.harness.resource import FencedResource
from tests.sim.history import Kind, Operation, Outcome

PREFIX = "chaos"
NAME = f"{slot_prefix(PREFIX, 0)}d0"


def put(value: str, begin: int, answer: Answer, end: int) -> tuple[Operation, Answer, int]:
    """A write."""
    return Operation("w", Kind.PUT, NAME, begin, value=value.encode()), answer, end


def read(begin: int, answer: Answer, end: int, *, stale: bool = False) -> tuple[Operation, Answer, int]:
    """A read."""
    return Operation("r", Kind.GET, NAME, begin, stale=stale), answer, end


def ok(version: int, value: str = "") -> Answer:
    return Answer(Outcome.OK, version, value.encode())


FINE = (
    put("a", 1, ok(1), 2),
    put("b", 3, Answer(Outcome.UNKNOWN), 9),
    read(4, ok(2, "b"), 5),
    read(6, ok(1, "a"), 7, stale=True),
    put("c", 10, Answer(Outcome.REFUSED), 11),
    put("d", 12, Answer(Outcome.CONFLICT, 2), 13),
)
PLANTED = {
    "lost write": ([put("e", 14, ok(3), 15), read(16, ok(2, "b"), 17)], "not linearizable"),
    "write told twice": ([put("e", 14, ok(3), 15), put("f", 16, ok(3), 17)], "not linearizable"),
    "refused and yet done": ([read(14, ok(3, "c"), 15)], "not linearizable"),
    "stale read of another's value": ([read(14, ok(1, "z"), 15, stale=True)], "stale read from nowhere"),
    "stale read of the future": (
        [read(14, ok(3, "g"), 15, stale=True), put("g", 16, ok(3), 17)],
        "stale read from nowhere",
    ),
}


def judged(path: Path, told: object) -> list[str]:
    """Write a record as the clients do, and judge it as the campaign does."""
    recorder = Recorder(path, "x")
    assert isinstance(told, list)
    for operation, answer, end in told:
        recorder.end(recorder.begin(operation), answer, end)
    recorder.close()
    return Judge(Records([path]), PREFIX).judge_until(100 * SLOT_NS)


def test_what_may_happen_is_no_violation(tmp_path: Path) -> None:
    """Goal: no false alarm. Method: unknown, refused and stale answers that one order explains."""
    writes = [each for each in FINE if each[1].outcome is not Outcome.CONFLICT]
    assert judged(tmp_path / "s.jsonl", writes) == []


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_violation_is_reported(tmp_path: Path, what: str) -> None:
    """Goal: the check is able to fail. Method: a fine record with one thing more, through files."""
    more, told = PLANTED[what]
    writes = [each for each in FINE if each[1].outcome is not Outcome.CONFLICT]
    found = judged(tmp_path / "s.jsonl", [*writes, *more])
    assert found
    assert told in found[0]


def test_a_call_without_an_end_may_still_happen(tmp_path: Path) -> None:
    """Goal: clients that die take no evidence with them. Method: begin without end, then half a line."""
    recorder = Recorder(tmp_path / "s.jsonl", "x")
    recorder.begin(Operation("w", Kind.PUT, NAME, 1, value=b"a"))
    recorder.end(recorder.begin(Operation("r", Kind.GET, NAME, 5)), ok(1, "a"), 6)
    recorder.close()
    with (tmp_path / "s.jsonl").open("a") as file:
        file.write('["b","x9"')
    records = Records([tmp_path / "s.jsonl"])
    records.follow()
    operations = records.take_away(slot_prefix(PREFIX, 0))
    assert [each.outcome for each in operations] == [Outcome.UNKNOWN, Outcome.OK]
    assert violations_of(operations) == []


class Failed(grpc.RpcError):
    """As grpc raises it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Any = ()) -> None:
        super().__init__(details)
        self._said = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._said[0]

    def details(self) -> str:
        return self._said[1]

    def trailing_metadata(self) -> Any:
        return self._said[2]


def told(error: TrellisError) -> Failed:
    """What a servicer's error becomes on the wire."""
    status = to_status(error)
    return Failed(status.code, status.details, status.trailing_metadata)


UNKNOWN, REFUSED = Outcome.UNKNOWN, Outcome.REFUSED
ANSWERS = [
    (Failed(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"), Answer(REFUSED)),
    (Failed(grpc.StatusCode.UNAVAILABLE, "Socket closed"), Answer(UNKNOWN)),
    (Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), Answer(UNKNOWN)),
    (Failed(grpc.StatusCode.ABORTED, "by a proxy"), Answer(UNKNOWN)),
    (told(NoLeader("nobody leads")), Answer(REFUSED)),
    (told(OutcomeUnknown("who knows")), Answer(UNKNOWN)),
    (told(VersionConflict("another", version=7)), Answer(Outcome.CONFLICT, 7)),
    (told(NotFound("none")), Answer(Outcome.CONFLICT)),
]


@pytest.mark.parametrize(("failure", "answer"), ANSWERS, ids=lambda each: str(each)[:40])
def test_only_what_is_certain_is_called_refused(failure: Failed, answer: Answer) -> None:
    """Goal: a write that may happen is never left out. Method: errors as they come off the wire."""
    assert answer_of(failure, Kind.PUT) == answer


@pytest.fixture
def resource() -> Iterator[FencedResource]:
    """One on loopback."""
    made = FencedResource(socket.create_server(("127.0.0.1", 0)))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("acts", "is_fine"),
    [
        (["3 reporter@host1#1 1", "4 reporter@host2#1 1"], True),
        (["3 reporter@host1#1 1", "3 reporter@host2#1 1"], False),
        (["3 reporter@host1#1 1", "4 reporter@host2#1 1", "3 reporter@host1#1 2"], False),
    ],
)
def test_two_owners_are_reported(resource: FencedResource, acts: list[str], is_fine: bool) -> None:
    """Goal: the oracle of owners is able to fail. Method: acts over the wire, as the reporter does them."""
    address, _, port = resource.address.rpartition(":")
    with socket.create_connection((address, int(port))) as connection:
        for line in acts:
            connection.sendall(f"{line}\n".encode())
            assert connection.recv(100)
    assert (owners_of(resource) == []) is is_fine


def test_the_longest_time_without_an_answer_counts_its_edges() -> None:
    """Goal: an outage that has no end within the span is seen. Method: moments by hand."""
    moments = [1_000_000_000, 2_000_000_000, 9_000_000_000]
    assert longest_gap_s(moments, 0, 3_000_000_000) == 1.0
    assert longest_gap_s(moments, 2_000_000_000, 8_000_000_000) == 6.0


def test_a_bug_is_told_from_an_error_of_operation() -> None:
    """Goal: a sidecar that ends for its disk is no finding, one that ends for a bug is."""
    assert is_operating({"kind": "StorageFailed"})
    assert not is_operating({"kind": "InvariantBroken"})
    assert not is_operating({"kind": "ExceptionGroup"})
