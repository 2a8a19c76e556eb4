"""What is armed, as it is written: `NAME=ACTION[:COUNT][@SKIP]`, several joined by commas.

ACTION is `crash` (the process ends at once, as by SIGKILL), `error` (the place raises
what it can really raise) or `stall:MS` (it takes so many milliseconds). SKIP hits
pass first; then the action happens COUNT times, without COUNT each time.

    driver.turn.before-save=crash              at the first hit
    log.write.before-commit=stall:2000:1@50    once, for 2 s, at the 51st hit
    beats.before-send=error:3                  at the first three hits
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mesh.errors import Problem
from mesh.failpoints.catalogue import FAILPOINTS, Raises

STALL_MS_MAX: Final = 600_000
EXAMPLE: Final = "driver.turn.before-save=crash"
_FORM: Final = re.compile(
    r"(?P<name>[^=]+)=(?P<action>crash|error|stall:(?P<ms>\d+))(:(?P<count>\d+))?(@(?P<skip>\d+))?", re.ASCII
)


class Action(Enum):
    """What happens at an armed place."""

    CRASH = "crash"
    ERROR = "error"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Arming:
    """One armed place."""

    name: str
    action: Action
    stall_ms: int = 0
    #: How often it happens; None: always.
    count: int | None = None
    #: So many hits pass before the first.
    skip: int = 0

    def __str__(self) -> str:
        action = f"{self.action.value}:{self.stall_ms}" if self.action is Action.STALL else self.action.value
        count = "" if self.count is None else f":{self.count}"
        return f"{self.name}={action}{count}{f'@{self.skip}' if self.skip else ''}"

    def is_due(self, hits: int) -> bool:
        """Whether it happens at the hit of this number, from 1."""
        number = hits - self.skip
        return number > 0 and (self.count is None or number <= self.count)


def words_of(text: str) -> tuple[str, ...]:
    """The items of a comma-separated list, as the environment has it."""
    return tuple(word for item in text.split(",") if (word := item.strip()))


def parse(word: str) -> Arming:
    """One item. Fails: ValueError with what is wrong with it."""
    match = _FORM.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is not NAME=crash, NAME=error or NAME=stall:MS, with :COUNT or @SKIP")
    failpoint = FAILPOINTS.get(match["name"])
    if failpoint is None:
        raise ValueError(f"there is no failpoint {match['name']!r}; see trellis failpoints")
    action = Action(match["action"].partition(":")[0])
    if action is Action.ERROR and failpoint.raises is Raises.NOTHING:
        raise ValueError(f"{failpoint.name} cannot fail, only crash or stall")
    count, stall_ms = match["count"], int(match["ms"] or 0)
    if count == "0":
        raise ValueError(f"{word!r} would never happen: the count is 0")
    if stall_ms > STALL_MS_MAX:
        raise ValueError(f"{word!r} stalls for longer than {STALL_MS_MAX} ms")
    return Arming(failpoint.name, action, stall_ms, int(count) if count else None, int(match["skip"] or 0))


def arming_problems(words: Iterable[str], path: str) -> Iterator[Problem]:
    """Everything that is wrong with a list, each as a problem of *path*."""
    names: set[str] = set()
    for word in words:
        try:
            name = parse(word).name
        except ValueError as error:
            yield Problem(path, str(error), EXAMPLE)
            continue
        if name in names:
            yield Problem(path, f"{name} is armed twice", EXAMPLE)
        names.add(name)


class Armed:
    """The armed places and how often each was hit; may be asked in any thread."""

    def __init__(self, armings: Iterable[Arming]) -> None:
        self.armings = {each.name: each for each in armings}
        # `next` of a counter is one step of the interpreter, so threads count right.
        self._hits = {name: itertools.count(1) for name in self.armings}

    def due(self, name: str) -> Arming | None:
        """Count a hit; what happens at it, if anything."""
        arming = self.armings.get(name)
        return arming if arming is not None and arming.is_due(next(self._hits[name])) else None
