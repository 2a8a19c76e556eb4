"""How long each step of becoming primary took, for the journal."""

import asyncio

from mesh.ids import PRIMARY, FencingTerm, HostId
from mesh.state.commands import EventDraft


class Milestones:
    """The account of one host's way to be primary, from `begun`. Must be used from its event loop."""

    def __init__(self, host: HostId) -> None:
        self._host = host
        self._reached: dict[str, float] = {}

    def reached(self, phase: str) -> None:
        """Now; "begun" forgets all before."""
        if phase == "begun":
            self._reached = {}
        self._reached[phase] = asyncio.get_running_loop().time()

    def since_s(self, phase: str) -> float | None:
        """How long ago that was; None: it is not reached."""
        at = self._reached.get(phase)
        return None if at is None else asyncio.get_running_loop().time() - at

    def opened(self, term: FencingTerm) -> EventDraft | None:
        """What the journal is told, once; None when it was told already."""
        begun = self._reached.pop("begun", None)
        if begun is None:
            return None
        took = {f"{name}_ms": str(round((at - begun) * 1e3)) for name, at in self._reached.items()}
        self._reached = {}
        text = f"{self._host} takes writes as primary, {took.get('opened_ms', '?')} ms after it was asked to"
        facts = tuple(sorted({**took, "host": str(self._host), "fencing_term": str(term)}.items()))
        return EventDraft("database-opened", PRIMARY, text, facts)
