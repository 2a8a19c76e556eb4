"""Hysteresis and rhythm of probes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.state.service import Probe, ProbeKind, Probes
from sidecar.supervisor.verdict import (
    FIRST_PAUSE_MS,
    Question,
    Standing,
    judge,
    pause_ms,
    question_of,
    steady_questions,
)

PROBE = Probe(ProbeKind.TCP, rise=2, fall=3)


def verdicts(answers: str, *, well: bool) -> str:
    """ "+" and "-" in, the verdict after each out."""
    standing, seen = Standing(well), ""
    for answer in answers:
        standing = judge(standing, PROBE, ok=answer == "+")
        seen += "+" if standing.well else "-"
    return seen


@pytest.mark.parametrize(
    ("answers", "well", "expected"),
    [
        ("+", False, "-"),
        ("++", False, "-+"),
        ("+-+", False, "---"),
        ("---", True, "++-"),
        ("--+--", True, "+++++"),
        ("-+-+-+", True, "++++++"),
    ],
)
def test_only_answers_in_a_row_change_the_verdict(answers: str, well: bool, expected: str) -> None:
    """Goal: one odd answer neither opens nor closes traffic. Method: rows of answers drawn as signs."""
    assert verdicts(answers, well=well) == expected


@given(st.text("+-", max_size=40), st.booleans())
def test_the_verdict_agrees_with_a_naive_twin(answers: str, well: bool) -> None:
    """Goal: the counter has no corner. Method: random answers against a look at the end of the string."""
    twin, state = "", well
    for end in range(1, len(answers) + 1):
        since = answers[:end]
        if not state and since.endswith("++"):
            state = True
        elif state and since.endswith("---"):
            state = False
        twin += "+" if state else "-"
    assert verdicts(answers, well=well) == twin


def test_probes_that_ask_the_same_share_a_question() -> None:
    """Goal: an instance is not asked twice for one fact. Method: equal, different and no probes."""
    readiness, liveness = Probe(ProbeKind.GRPC, fall=1), Probe(ProbeKind.GRPC, fall=5)
    assert len(steady_questions(Probes(None, readiness, liveness))) == 1
    assert len(steady_questions(Probes(None, readiness, Probe(ProbeKind.TCP)))) == 2
    assert steady_questions(Probes()) == ()


def question(kind: ProbeKind = ProbeKind.TCP, interval_ms: int = 1_000) -> Question:
    return question_of(Probe(kind, interval_ms=interval_ms))


def test_before_the_first_good_answer_questions_follow_quickly_then_slower() -> None:
    """Goal: a quick start is seen quickly, a slow one not hammered. Method: pauses by try."""
    pauses = [pause_ms(question(), tries=n, answered=False, jitter=0.0) for n in (1, 2, 3, 50)]
    assert pauses == [FIRST_PAUSE_MS, FIRST_PAUSE_MS * 1.5, FIRST_PAUSE_MS * 1.5**2, 1_000]


def test_afterwards_the_interval_rules_with_some_spread() -> None:
    """Goal: probes of many instances do not march in step. Method: jitter at none and at half."""
    assert pause_ms(question(), tries=1, answered=True, jitter=0.0) == 1_000
    assert pause_ms(question(), tries=1, answered=True, jitter=0.5) == 950


def test_heartbeats_are_awaited_at_their_interval_from_the_start() -> None:
    """Goal: a pushing instance is not judged sooner than it promised.

    Method: the first pause of a push probe.
    """
    assert pause_ms(question(ProbeKind.PUSH), tries=1, answered=False, jitter=0.0) == 1_000


def test_commands_begin_slower() -> None:
    """Goal: starting processes for probes does not load a starting host.

    Method: the first pause of an exec probe.
    """
    assert pause_ms(question(ProbeKind.EXEC), tries=1, answered=False, jitter=0.0) == 100
