"""Waiting for a condition with a deadline, and letting a fault last."""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

Seen = TypeVar("Seen")
POLL_S = 0.02


class NotInTimeError(AssertionError):
    """A condition did not come true before its deadline."""


def wait_for(look: Callable[[], Seen | None], what: str, within_s: float = 15.0) -> Seen:
    """The first thing that *look* returns and that is true.

    Fails: `NotInTimeError` with *what* and what was seen last.
    """
    deadline = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise NotInTimeError(f"not within {within_s:g} s: {what} (seen last: {seen!r})")
        let_pass(POLL_S)


def let_pass(seconds: float) -> None:
    """Let a fault last for as long as it is meant to."""
    Event().wait(seconds)
