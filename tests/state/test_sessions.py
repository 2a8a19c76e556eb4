"""Exactly once: a repeated request counts once, and what is forgotten is never applied again."""

import pytest

from mesh.ids import DocumentName, Index, SessionId
from mesh.limits import SESSION_OUTCOMES_MAX
from mesh.state import Applied, Rejected, Request, apply, checkpoint, error_of, sessions
from mesh.state.commands import Outcome, PutDocument
from tests.state.model_state import Cluster

NAME = DocumentName("a")


def put(cluster: Cluster, session: str, sequence: int, value: bytes = b"x") -> Outcome:
    return cluster.apply(PutDocument(NAME, value), session, sequence).outcome


def test_a_repeated_request_gives_the_first_outcome_and_changes_nothing() -> None:
    """Goal: a retry after a lost answer counts once. Method: the same number with other content."""
    cluster = Cluster()
    first = put(cluster, "s", 1)
    before = checkpoint(cluster.state)
    effect = cluster.apply(PutDocument(NAME, b"other"), "s", 1)
    assert effect.outcome == first
    assert effect.changed.changes == ()
    assert checkpoint(cluster.state) == before
    assert cluster.state.documents[NAME].value == b"x"


def test_a_refusal_is_remembered_as_well() -> None:
    """Goal: what was refused does not happen later behind the caller's back.

    Method: make it possible, then repeat it.
    """
    cluster = Cluster()
    command = PutDocument(NAME, b"x", expected_version=3)
    first = cluster.apply(command, "s", 1).outcome
    assert isinstance(first, Rejected)
    for _ in range(3):
        cluster.do(PutDocument(NAME, b"x"))
    assert cluster.apply(command, "s", 1).outcome == first


def test_requests_may_overtake_each_other_within_the_window() -> None:
    """Goal: concurrent calls of a session all count. Method: numbers 3, 1, 2."""
    cluster = Cluster()
    assert isinstance(put(cluster, "s", 3), Applied)
    assert isinstance(put(cluster, "s", 1), Applied)
    assert isinstance(put(cluster, "s", 2), Applied)
    assert cluster.state.documents[NAME].version == 3


def test_a_sequence_below_the_window_is_answered_with_outcome_unknown() -> None:
    """Goal: never apply twice what may have been applied.

    Method: fill the window, then repeat from both sides of it.
    """
    cluster = Cluster()
    for sequence in range(1, SESSION_OUTCOMES_MAX + 3):
        put(cluster, "s", sequence)
    for sequence in (1, 2):
        outcome = put(cluster, "s", sequence)
        assert isinstance(outcome, Rejected)
        assert outcome.reason == error_of(outcome).reason == "OUTCOME_UNKNOWN"
    assert isinstance(put(cluster, "s", 3), Applied)
    assert cluster.state.documents[NAME].version == SESSION_OUTCOMES_MAX + 2
    assert len(cluster.state.outcomes) == SESSION_OUTCOMES_MAX


def test_a_forgotten_session_is_not_taken_up_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: forgetting a session never lets an old request count again.

    Method: a bound of two, least recently used goes.
    """
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    cluster = Cluster()
    for sequence in range(1, SESSION_OUTCOMES_MAX + 2):
        put(cluster, "old", sequence)
    put(cluster, "b", 1)
    put(cluster, "old", SESSION_OUTCOMES_MAX + 2)
    put(cluster, "c", 1)
    assert sorted(cluster.state.sessions) == ["c", "old"], "the one used longest ago is forgotten"
    put(cluster, "d", 1)
    put(cluster, "e", 1)
    assert sorted(cluster.state.outcomes) == [("d", 1), ("e", 1)]
    outcome = put(cluster, "old", SESSION_OUTCOMES_MAX + 3)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "OUTCOME_UNKNOWN"
    assert dict(outcome.metadata)["forgotten"] == "session"


def test_without_a_session_every_request_counts() -> None:
    """Goal: callers without retries are not throttled into one.

    Method: the same number twice without a session.
    """
    cluster = Cluster()
    put(cluster, "", 1)
    put(cluster, "", 1)
    assert cluster.state.documents[NAME].version == 2


@pytest.mark.parametrize("sequence", [0, -1])
def test_sequences_count_from_one(sequence: int) -> None:
    """Goal: an unset number is not taken for a request's. Method: 0 and -1."""
    cluster = Cluster()
    request = Request(PutDocument(NAME, b""), SessionId("s"), sequence)
    outcome = apply(cluster.state, Index(99), request).outcome
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "INVALID_REQUEST"


def test_the_name_of_a_session_is_bounded() -> None:
    """Goal: a caller's name cannot fill the state. Method: one character too many."""
    outcome = put(Cluster(), "s" * 129, 1)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "INVALID_REQUEST"
