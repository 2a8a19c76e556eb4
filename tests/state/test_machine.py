"""Apply: whole or not at all, the same on every host, safe against what it does not know."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from mesh import errors, limits
from mesh.errors import InvariantBroken, TrellisError, UnknownCommand
from mesh.ids import VIP, DocumentName, FencingTerm, Index
from mesh.state import ClusterState, Rejected, Request, apply, checkpoint, error_of, machine
from mesh.state.commands import (
    AssignOwner,
    Batch,
    Command,
    DeleteDocument,
    EventDraft,
    PutDocument,
    RecordEvents,
)
from mesh.state.documents import put_document
from mesh.state.model import Change, ChangeKind
from tests.state.model_state import A, Cluster

NAME = DocumentName("a")


@dataclass(frozen=True, slots=True)
class FromTheFuture:
    """A command of a later version."""


def everything(state: ClusterState) -> dict[str, Any]:
    return {table.kind: dict(table.rows) for table in state.tables} | {
        "bytes": (state.document_bytes, state.history_bytes),
        "history": dict(state.history),
        "tombstones": list(state.tombstones),
    }


def test_an_unknown_command_stops_the_host_and_changes_nothing() -> None:
    """Goal: an old host never skips what it cannot understand.

    Method: one alone and one inside a batch; compare every row.
    """
    cluster = Cluster()
    before, applied = everything(cluster.state), cluster.state.applied
    future = cast(Command, FromTheFuture())
    with pytest.raises(UnknownCommand, match="FromTheFuture"):
        cluster.apply(future)
    with pytest.raises(UnknownCommand):
        cluster.apply(Batch((PutDocument(NAME, b"x"), cast(Any, future))))
    assert everything(cluster.state) == before
    assert cluster.state.applied == applied


def test_a_refused_batch_leaves_every_row_as_it_was() -> None:
    """Goal: all or nothing. Method: a batch whose last part is refused; compare rows, sums and hash."""
    cluster = Cluster()
    for number in range(20):
        cluster.do(PutDocument(NAME, str(number).encode()))
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    before, hashed = everything(cluster.state), checkpoint(cluster.state)
    refusal = cluster.refuse(
        Batch(
            (
                PutDocument(NAME, b"new"),
                PutDocument(DocumentName("b"), b"new"),
                DeleteDocument(NAME),
                AssignOwner(VIP, A, FencingTerm(1)),
                DeleteDocument(DocumentName("nothing")),
            )
        )
    )
    assert refusal.reason == "NOT_FOUND"
    assert everything(cluster.state) == before
    assert checkpoint(cluster.state) == hashed


def test_a_bug_in_one_command_refuses_it_everywhere_and_is_journalled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: a defect costs one request, not the cluster, and is seen.

    Method: a function that fails halfway.
    """

    def fails_halfway(at: Any, command: Any) -> Any:
        put_document(at, PutDocument(NAME, b"half"))
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(machine._FUNCTIONS, DeleteDocument, fails_halfway)
    cluster = Cluster()
    effect = cluster.apply(DeleteDocument(NAME))
    assert isinstance(effect.outcome, Rejected)
    assert effect.outcome.reason == "COMMAND_FAILED"
    assert NAME not in cluster.state.documents
    assert cluster.events("command-failed") == ["DeleteDocument failed by a bug: ZeroDivisionError"]
    assert [each.kind for each in effect.changed.changes] == [ChangeKind.EVENT]


def test_running_out_of_memory_is_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens on one host only, which then must not differ from the others."""

    def starves(at: Any, command: Any) -> Any:
        put_document(at, PutDocument(NAME, b"half"))
        raise MemoryError

    monkeypatch.setitem(machine._FUNCTIONS, DeleteDocument, starves)
    cluster = Cluster()
    before = everything(cluster.state)
    with pytest.raises(MemoryError):
        cluster.apply(DeleteDocument(NAME))
    assert everything(cluster.state) == before


def test_an_index_is_applied_once() -> None:
    """Goal: a driver's slip cannot apply twice. Method: apply the present index again."""
    cluster = Cluster()
    with pytest.raises(InvariantBroken):
        apply(cluster.state, cluster.state.applied, Request(PutDocument(NAME, b"")))


def test_watchers_are_told_exactly_what_changed() -> None:
    """Goal: neither a silent nor an invented change. Method: one batch of two kinds; compare all changes."""
    cluster = Cluster()
    effect = cluster.apply(Batch((PutDocument(NAME, b"x"), AssignOwner(VIP, A, FencingTerm(0)))))
    index = str(effect.changed.index)
    assert effect.changed.changes == (
        Change(ChangeKind.DOCUMENT, "a"),
        Change(ChangeKind.OWNERSHIP, "vip"),
        Change(ChangeKind.EVENT, index),
    )
    assert [event.kind for event in effect.changed.events] == ["ownership-assigned"]


def test_the_journal_keeps_the_newest_events_with_time_and_trace() -> None:
    """Goal: a bounded journal that can be followed.

    Method: sorted attributes, then more and longer events than fit.
    """
    cluster = Cluster()
    drafts = tuple(EventDraft("k", "s", f"m{number}", (("b", "2"), ("a", "1"))) for number in range(3))
    effect = cluster.apply(RecordEvents(drafts), at_ns=42)
    first = effect.changed.events[0]
    assert (first.position, first.at_ns, first.trace_id) == (0, 42, "f" * 32)
    assert first.attributes == (("a", "1"), ("b", "2"))
    cluster.do(RecordEvents((EventDraft("k", "s", "x" * 2_000),) * (limits.EVENTS_MAX + 5)))
    assert len(cluster.state.events) == limits.EVENTS_MAX
    assert all(len(each.message) <= limits.EVENT_CHARS_MAX for each in cluster.state.events.values())


REFUSALS = [
    errors.NotLeader,
    errors.StaleTerm,
    errors.VersionConflict,
    errors.QueueFull,
    errors.NotFound,
    errors.Conflict,
    errors.OutOfRange,
    errors.Denied,
    errors.InvalidRequest,
    errors.OutcomeUnknown,
]


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_rejection_becomes_the_error_of_its_reason(kind: type[TrellisError]) -> None:
    """Goal: callers can catch what the log refused. Method: every reason, there and back."""
    problem = errors.Problem("name", "is wrong")
    error = error_of(Rejected(kind.reason, "no", (("fact", "1"),), (problem,)))
    assert type(error) is kind
    assert error.metadata == {"fact": "1"}
    if isinstance(error, errors.InvalidRequest):
        assert error.problems == (problem,)


def test_a_rejection_of_unknown_reason_is_a_plain_refusal() -> None:
    """Goal: a newer host's reason does not crash an older caller. Method: a reason without a class."""
    assert type(error_of(Rejected("COMMAND_FAILED", "no"))) is errors.Refused


def test_rows_that_pile_up_are_counted_into_the_hash_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the next checkpoint never has to count a whole log.

    Method: a small and a huge bound give one hash.
    """
    monkeypatch.setattr(machine, "_DIRTY_MAX", 10)
    eager, lazy = Cluster(), Cluster()
    for number in range(30):
        eager.do(PutDocument(DocumentName(f"d{number}"), b"x"))
    assert eager.state.ledger.dirty_count <= 11
    monkeypatch.setattr(machine, "_DIRTY_MAX", 10_000)
    for number in range(30):
        lazy.do(PutDocument(DocumentName(f"d{number}"), b"x"))
    assert lazy.state.ledger.dirty_count >= 30
    assert checkpoint(eager.state) == checkpoint(lazy.state)


def test_indexes_may_have_gaps_for_entries_that_are_no_commands() -> None:
    """Goal: memberships and no-ops need no command. Method: jump far ahead."""
    cluster = Cluster()
    apply(cluster.state, Index(1_000), Request(PutDocument(NAME, b"")))
    assert cluster.state.applied == 1_000
