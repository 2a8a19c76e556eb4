"""Documents: versions, history, bounds, and watches that skip nothing."""

import pytest

from mesh import limits
from mesh.errors import OutOfRange
from mesh.ids import DocumentName, Index
from mesh.state import documents
from mesh.state.commands import Batch, DeleteDocument, PutDocument
from tests.state.model_state import Cluster

DNS = DocumentName("network/dns")


def test_versions_rise_by_one_and_go_on_after_a_deletion() -> None:
    """Goal: a version never means two values. Method: write, delete, write again from version 0."""
    cluster = Cluster()
    assert cluster.do(PutDocument(DNS, b"1")).version == 1
    assert cluster.do(PutDocument(DNS, b"2")).version == 2
    assert cluster.do(DeleteDocument(DNS)).version == 3
    assert cluster.do(PutDocument(DNS, b"4", expected_version=0)).version == 4
    assert [each.deleted for each in cluster.state.document_history(DNS)] == [False, True, False, False]


def test_a_write_from_another_version_conflicts_and_tells_the_present_one() -> None:
    """Goal: no lost update, and the loser can retry at once. Method: expect a version below and above."""
    cluster = Cluster()
    cluster.do(PutDocument(DNS, b"1", expected_version=0))
    for expected in (0, 2):
        refusal = cluster.refuse(PutDocument(DNS, b"x", expected_version=expected))
        assert refusal.reason == "VERSION_CONFLICT"
        assert dict(refusal.metadata) == {"version": "1", "expected": str(expected)}
    assert cluster.do(PutDocument(DNS, b"2", expected_version=1)).version == 2
    assert cluster.refuse(DeleteDocument(DNS, expected_version=1)).reason == "VERSION_CONFLICT"


def test_deleting_what_is_not_there_is_refused() -> None:
    """Goal: a typing error does not look like success.

    Method: delete the unknown, then the already deleted.
    """
    cluster = Cluster()
    assert cluster.refuse(DeleteDocument(DNS)).reason == "NOT_FOUND"
    cluster.do(PutDocument(DNS, b"1"))
    cluster.do(DeleteDocument(DNS))
    assert cluster.refuse(DeleteDocument(DNS)).reason == "NOT_FOUND"


def test_sixteen_versions_are_kept_newest_first() -> None:
    """Goal: history is bounded and the right end is dropped.

    Method: twenty writes, then ask at both edges.
    """
    cluster = Cluster()
    for number in range(1, 21):
        cluster.do(PutDocument(DNS, str(number).encode()))
    history = cluster.state.document_history(DNS)
    assert [each.version for each in history] == list(range(20, 4, -1))
    assert len(history) == limits.DOCUMENT_HISTORY_MAX
    assert cluster.state.document_version(DNS, 5) == history[-1]
    assert cluster.state.document_version(DNS, 4) is None
    assert cluster.state.document_version(DNS, 20) == history[0]


@pytest.mark.parametrize("name", ["", "/", "a//b", "A", "a/", "a b", "ä", "-a", "a" * 256, "a\n"])
def test_a_name_that_is_no_document_name_is_refused(name: str) -> None:
    """Goal: no name that cannot be a path or URL gets into the log. Method: table of malformed names."""
    refusal = Cluster().refuse(PutDocument(DocumentName(name), b""))
    assert refusal.reason == "INVALID_REQUEST"
    assert refusal.problems[0].path == "name"


def test_a_value_beyond_the_bound_is_refused() -> None:
    """Goal: one document cannot fill the log. Method: exactly the bound, then a byte more."""
    cluster = Cluster()
    cluster.do(PutDocument(DNS, b"x" * limits.DOCUMENT_BYTES_MAX))
    refusal = cluster.refuse(PutDocument(DNS, b"x" * (limits.DOCUMENT_BYTES_MAX + 1)))
    assert refusal.problems[0].path == "value"


def test_the_number_of_documents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bounded, yet what exists can change and deletions make room.

    Method: a bound of two, each kind of write.
    """
    monkeypatch.setattr(documents, "DOCUMENTS_MAX", 2)
    cluster = Cluster()
    cluster.do(PutDocument(DocumentName("a"), b""))
    cluster.do(PutDocument(DocumentName("b"), b""))
    assert cluster.refuse(PutDocument(DocumentName("c"), b"")).reason == "QUEUE_FULL"
    cluster.do(PutDocument(DocumentName("b"), b"again"))
    cluster.do(DeleteDocument(DocumentName("a")))
    cluster.do(PutDocument(DocumentName("c"), b""))
    assert cluster.refuse(PutDocument(DocumentName("a"), b"")).reason == "QUEUE_FULL"


def test_bytes_of_all_documents_are_bounded_and_history_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: memory is bounded and old versions go first. Method: small bounds, then recount the sums."""
    monkeypatch.setattr(documents, "DOCUMENTS_BYTES_MAX", 10)
    monkeypatch.setattr(documents, "HISTORY_BYTES_MAX", 8)
    cluster = Cluster()
    for value in (b"aaaa", b"bbbb", b"cccc", b"dddd"):
        cluster.do(PutDocument(DNS, value))
    assert [each.value for each in cluster.state.document_history(DNS)] == [b"dddd", b"cccc", b"bbbb"]
    assert cluster.refuse(PutDocument(DocumentName("big"), b"x" * 7)).reason == "QUEUE_FULL"
    cluster.do(PutDocument(DNS, b"x" * 10))
    cluster.do(PutDocument(DNS, b""))
    assert cluster.state.document_bytes == 0
    assert cluster.state.history_bytes <= 8
    every = sum(len(each.value) for each in cluster.state.versions.values())
    assert every == cluster.state.history_bytes + cluster.state.document_bytes


def test_forgotten_tombstones_never_let_a_version_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that a reader may still expect must not mean something new."""
    monkeypatch.setattr(documents, "TOMBSTONES_MAX", 2)
    cluster = Cluster()
    first = DocumentName("d0")
    cluster.do(PutDocument(first, b"x"))
    cluster.do(DeleteDocument(first))
    for number in (1, 2):
        cluster.do(PutDocument(DocumentName(f"d{number}"), b""))
        cluster.do(DeleteDocument(DocumentName(f"d{number}")))
    assert first not in cluster.state.documents
    assert cluster.state.document_history(first) == ()
    assert cluster.state.history_bytes == 0
    assert cluster.do(PutDocument(first, b"y")).version == 3
    lower = DocumentName("d1")
    cluster.do(DeleteDocument(first))
    assert lower not in cluster.state.documents
    assert cluster.do(PutDocument(lower, b"y")).version == 3, "the highest forgotten version counts"


def test_a_watch_sees_every_version_once_in_order_even_beyond_the_history() -> None:
    """Goal: a watcher skips nothing. Method: 40 writes of one document, read from before them."""
    cluster = Cluster()
    start = cluster.state.applied
    for number in range(40):
        cluster.do(PutDocument(DNS, str(number).encode()))
    seen = [each.value for changes in cluster.state.kept.since(start) for each in changes.documents]
    assert seen == [str(number).encode() for number in range(40)]
    assert cluster.state.kept.since(cluster.state.applied) == ()
    assert len(cluster.state.kept.since(Index(start + 39))) == 1


def test_a_watch_from_a_revision_that_is_no_longer_kept_is_refused() -> None:
    """Goal: a gap is told, not hidden. Method: write more bytes than are kept; ask from before and inside."""
    cluster = Cluster()
    value = b"x" * limits.DOCUMENT_BYTES_MAX
    start = cluster.state.applied
    for _ in range(limits.CHANGES_KEPT_BYTES_MAX // limits.DOCUMENT_BYTES_MAX + 1):
        cluster.do(PutDocument(DNS, value))
    with pytest.raises(OutOfRange, match="read the present state"):
        cluster.state.kept.since(start)
    assert cluster.state.kept.since(Index(start + 1))


def test_the_number_of_kept_changes_is_bounded() -> None:
    """Goal: many tiny changes cannot grow the memory either. Method: one more than the bound."""
    cluster = Cluster()
    start = cluster.state.applied
    for _ in range(limits.CHANGES_KEPT_MAX + 1):
        cluster.do(PutDocument(DNS, b""))
    with pytest.raises(OutOfRange):
        cluster.state.kept.since(start)


def test_a_document_written_twice_in_one_batch_gets_two_versions() -> None:
    """Goal: a batch hides no version from watchers. Method: the second write expects the first."""
    cluster = Cluster()
    outcome = cluster.do(Batch((PutDocument(DNS, b"1"), PutDocument(DNS, b"2", expected_version=1))))
    assert [part.version for part in outcome.parts] == [1, 2]
    assert [each.value for each in cluster.state.kept.since(Index(outcome.index - 1))[0].documents] == [
        b"1",
        b"2",
    ]
