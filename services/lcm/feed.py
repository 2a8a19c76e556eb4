"""Wakes whoever waits for a newer revision: one listening connection for all watches of an instance."""

import asyncio
from typing import Final

import structlog

from mesh.client.database import Database
from mesh.errors import Unavailable
from services.lcm.store import CHANNEL

LOG = structlog.get_logger(__name__)
#: Looked at without a notice, too: one that is lost delays a watch by no more than this.
LOOK_S: Final = 1.0


class Feed:
    """Only wakes. What is new each watch reads itself, from the revision that it has seen.

    Invariant: every wake-up reaches whoever has asked for `next_wake` before it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next: asyncio.Event = asyncio.Event()

    def next_wake(self) -> asyncio.Event:
        """Take it before looking, and wait for it after having found nothing."""
        return self._next

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async for _ in self._database.notices(CHANNEL, LOOK_S):
                    self._wake()
            except Unavailable as error:
                LOG.warning("no-notices", error=str(error))

    def _wake(self) -> None:
        woken, self._next = self._next, asyncio.Event()
        woken.set()
