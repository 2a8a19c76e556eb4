"""The virtual IP in 127.0.0.0/8: every host may bind it, so the owner's Envoy simply listens.

Nothing is added to an interface and nothing is announced. Routing reads
`is_wanted` and tells with `set_listening` when its Envoy has the port.
"""

import asyncio
from collections.abc import Callable

from mesh.ids import FencingTerm


class ListenerVip:
    """A VipDriver that is carried by a listener alone.

    `on_wanted` is called whenever `is_wanted` changes; fencing it means that the
    Envoy that listens is stopped.
    """

    def __init__(self, on_wanted: Callable[[bool], None]) -> None:
        self._on_wanted = on_wanted
        self._wanted = False
        self._listening = False
        self._due = asyncio.Event()

    @property
    def is_wanted(self) -> bool:
        """This host's Envoy should listen on the address."""
        return self._wanted

    def set_listening(self, listening: bool) -> None:
        """Routing says whether Envoy has the address bound."""
        self._listening = listening

    async def claim(self, fencing_term: FencingTerm, *, probe: bool = True) -> None:
        """Want the listener; there is nobody to ask on loopback."""
        del fencing_term, probe
        self._want(True)

    async def refresh(self) -> None:
        """Nothing lapses on loopback."""

    async def release(self) -> None:
        """Want the listener no more; it is given up when routing says so."""
        self._want(False)

    def is_held(self) -> bool:
        """The listener is wanted and there."""
        return self._wanted and self._listening

    async def wait_due(self) -> None:
        """Never returns: nothing is ever due."""
        await self._due.wait()

    def _want(self, wanted: bool) -> None:
        changed = wanted != self._wanted
        self._wanted = wanted
        if changed:
            self._on_wanted(wanted)
