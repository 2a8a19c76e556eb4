"""Named places in the production code at which a test may have something go wrong.

`hit` marks a place that blocks or returns at once, `passing` one that awaits. What
happens there is up to the installed handler: in a live sidecar
`mesh.adapters.armed` carries out what was armed, in the simulator the world
decides for the host that is running. With no handler, which is how production
runs, a place costs one comparison with None.

Invariant: each name stands in the catalogue with what the place is and what it can really
raise, and at one place in the code (tests/failpoints checks both).
Absent here: what crash, error and stall do (mesh.adapters.armed), and how they are
written (arming.py).
"""

from typing import Protocol

from mesh.failpoints.catalogue import FAILPOINTS as FAILPOINTS
from mesh.failpoints.catalogue import Failpoint as Failpoint
from mesh.failpoints.catalogue import Raises as Raises


class Handler(Protocol):
    """Decides what happens at a place; returning means that nothing does.

    Either may raise what the place is declared to raise, or end the process.
    """

    def hit(self, name: str) -> None:
        """At a place that does not await; a stall blocks the thread, as the place itself could."""

    async def passing(self, name: str) -> None:
        """At a place that awaits."""


_handler: Handler | None = None


def install(handler: Handler | None) -> Handler | None:
    """Have *handler* asked from now on, None for nobody; returns the one before it."""
    global _handler
    before, _handler = _handler, handler
    return before


def hit(name: str) -> None:
    """Here something may go wrong."""
    if _handler is not None:
        _handler.hit(name)


async def passing(name: str) -> None:
    """Here something may go wrong, in a coroutine."""
    if _handler is not None:
        await _handler.passing(name)
