"""From single answers of a probe to a verdict that does not flap.

`rise` good answers in a row make it well, `fall` bad ones unwell; between the
two the verdict stays. Also when to ask again.
"""

import math
from dataclasses import dataclass
from typing import Final

from mesh.state.service import Probe, ProbeKind, Probes

#: While nothing has answered yet, the first questions follow one another quickly,
#: because a start is waited for; then the declared interval rules.
FIRST_PAUSE_MS: Final = 15
PAUSE_GROWTH: Final = 1.5
#: exec probes cost a process each, so they begin slower.
FIRST_EXEC_PAUSE_MS: Final = 100
#: Parts of the interval at whose borders questions are put: those of many instances
#: that fall into one part share one wake-up of the loop.
PARTS: Final = 16
#: Share of the interval by which a question may come early.
SPREAD: Final = 0.1


@dataclass(frozen=True, slots=True)
class Standing:
    """The verdict so far, and how many answers in a row speak against it."""

    well: bool
    against: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. Probes that ask the same share one question."""

    kind: ProbeKind
    target: str
    command: tuple[str, ...]
    interval_ms: int
    timeout_ms: int


def judge(standing: Standing, probe: Probe, *, ok: bool) -> Standing:
    """The verdict after one more answer."""
    if ok == standing.well:
        return Standing(standing.well) if standing.against else standing
    needed = probe.rise if ok else probe.fall
    if standing.against + 1 >= needed:
        return Standing(well=ok)
    return Standing(standing.well, standing.against + 1)


def question_of(probe: Probe) -> Question:
    """What a probe asks, without what it makes of the answers."""
    return Question(probe.kind, probe.target, probe.command, probe.interval_ms, probe.timeout_ms)


def steady_questions(probes: Probes) -> tuple[Question, ...]:
    """The distinct questions asked while RUNNING."""
    asked = [question_of(p) for p in (probes.readiness, probes.liveness) if p is not None]
    return tuple(dict.fromkeys(asked))


def pause_ms(question: Question, *, tries: int, answered: bool, jitter: float) -> float:
    """How long to wait after the *tries*-th question.

    `answered`: a good answer has been seen since the start. `jitter` is in [0, 1).
    """
    spread = question.interval_ms * (1 - SPREAD * jitter)
    if answered or question.kind is ProbeKind.PUSH:
        return spread
    first = FIRST_EXEC_PAUSE_MS if question.kind is ProbeKind.EXEC else FIRST_PAUSE_MS
    return min(spread, first * PAUSE_GROWTH ** min(tries - 1, 40))


def align_s(when_s: float, interval_ms: int) -> float:
    """The border between parts of the interval that follows *when_s*."""
    part_s = interval_ms / 1000 / PARTS
    return math.ceil(when_s / part_s) * part_s
