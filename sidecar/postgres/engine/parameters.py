"""Which of the declared parameters a server uses: the last that one came up with, until others proved good.

A reload checks names and values; what comes into force with a start only is known to be good when a
server came up with it. So what worked is kept on disk, and a start that fails with anything else falls
back to it.
"""

from pathlib import Path
from typing import Final

from sidecar.postgres.engine.config import Parameters
from sidecar.postgres.engine.layout import Layout

_NOTE: Final = "parameters.json"


class Proven:
    """The account of one host. Fails: `DiskFull`, OSError when what works cannot be noted."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.root / _NOTE
        #: With what a server came up last; None: none ever did here.
        self.good = _read(layout, self._path)
        #: What was refused, by a reload or by a start, and how.
        self.refused: tuple[Parameters, str] | None = None
        self._started_with: Parameters | None = None

    def for_start(self, loaded: Parameters, wanted: Parameters | None) -> Parameters:
        """What to start with: what a reload has taken, else what worked, else what is wanted."""
        for choice in (loaded or None, self.good, wanted, ()):
            if choice is not None and (self.refused is None or choice != self.refused[0]):
                self._started_with = choice
                return choice
        return ()

    def came_up(self) -> None:
        """The server that was started is up."""
        if self._started_with is not None and self._started_with != self.good:
            self._layout.note(self._path, parameters=[list(pair) for pair in self._started_with])
            self.good = self._started_with
        self._started_with = None

    def ended_early(self, why: str) -> bool:
        """It ended before it was up: whether other parameters are to be tried."""
        tried, self._started_with = self._started_with, None
        if tried is None or self.good is None or tried == self.good:
            return False
        self.refused = (tried, why)
        return True

    def is_refused(self, parameters: Parameters) -> bool:
        """They were tried, and are not tried again."""
        return self.refused is not None and self.refused[0] == parameters


def _read(layout: Layout, path: Path) -> Parameters | None:
    note = layout.read_note(path)
    found = note.get("parameters") if note is not None else None
    if not isinstance(found, list):
        return None
    return tuple((str(name), str(value)) for name, value in found)
