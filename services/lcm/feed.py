"""Wakes whoever waits for a newer revision: one listening connection for all watches of an instance.

Bound: `WATCHES_MAX` watches, whoever waits for an operation among them; one more is refused. A watch of
deployments reads the database on each change; all who wait for operations share a read (reading.py).
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import structlog

from mesh.client.database import Database
from mesh.errors import Draining, QueueFull, Unavailable
from services.lcm.revisions import CHANNEL

LOG = structlog.get_logger(__name__)
#: Looked at without a notice, too: one that is lost delays a watch by no more than this.
LOOK_S: Final = 1.0
#: After a failure, before the database is asked again.
PAUSE_S: Final = 0.5
WATCHES_MAX: Final = 200


class Feed:
    """Only wakes. What is new each watch reads itself, from the revision that it has seen.

    Invariant: every wake-up reaches whoever has asked for `next_wake` before it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next: asyncio.Event = asyncio.Event()
        self._watches = 0
        self._ending = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """For as long as a watch, or a wait, lasts. Fails: `QueueFull`."""
        if self._watches >= WATCHES_MAX:
            raise QueueFull(f"{WATCHES_MAX} watches are the most of one instance. Try another one.")
        self._watches += 1
        try:
            yield
        finally:
            self._watches -= 1

    def end(self) -> None:
        """Watches end, so that their callers resume them elsewhere while this instance drains."""
        self._ending = True
        self._wake()

    def next_wake(self) -> asyncio.Event:
        """Take it before looking, and wait for it after having found nothing. Fails: `Draining`."""
        if self._ending:
            raise Draining("This instance ends. Resume at another one, from the revision seen last.")
        return self._next

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async for _ in self._database.notices(CHANNEL, LOOK_S):
                    self._wake()
            except Unavailable as error:
                LOG.warning("no-notices", reason=error.message)
                await asyncio.sleep(PAUSE_S)

    def _wake(self) -> None:
        woken, self._next = self._next, asyncio.Event()
        woken.set()
