"""Tells the journal when this host takes no northbound calls although it should, and when it does again."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from mesh.adapters.clock import wall_ns
from mesh.errors import TrellisError
from mesh.ids import HostId
from mesh.replica import Replica
from mesh.state.commands import EventDraft, RecordEvents

LOG = structlog.get_logger(__name__)

#: What lasts from one look to the next is worth a row: an address is often taken for a moment only.
LOOK_S: Final = 5.0


class NorthboundWatch:
    """Bound: one event in each look, and only when it differs from the one before."""

    def __init__(
        self,
        *,
        host: HostId,
        replica: Replica,
        problems: Callable[[], tuple[str, ...]],
        look_s: float = LOOK_S,
    ) -> None:
        self._host = host
        self._replica = replica
        self._problems = problems
        self._look_s = look_s
        #: What the journal says of this host now.
        self._told: tuple[str, ...] = ()

    async def run(self) -> None:
        """Look again and again, until cancelled. What cannot be recorded now is recorded at a later look."""
        before: tuple[str, ...] = ()
        while True:
            await asyncio.sleep(self._look_s)
            seen = self._problems()
            if seen == before and seen != self._told:
                await self._tell(seen)
            before = seen

    async def _tell(self, problems: tuple[str, ...]) -> None:
        draft = northbound_event(self._host, problems)
        (LOG.error if problems else LOG.info)(draft.kind, reason=draft.message)
        try:
            await self._replica.propose(RecordEvents((draft,)), timeout_s=self._look_s, at_ns=wall_ns())
        except TrellisError as error:
            LOG.info("event-not-recorded", kind=draft.kind, reason=str(error))
        else:
            self._told = problems


def northbound_event(host: HostId, problems: tuple[str, ...]) -> EventDraft:
    """The journal's row: closed, with the reasons, or open again."""
    if problems:
        return EventDraft(
            "northbound-closed", host, f"{host} takes no northbound calls: {'; '.join(problems)}"
        )
    return EventDraft("northbound-open", host, f"{host} takes northbound calls again")
