"""What a client of `benchmarks.inserts` wrote down, and what follows from it."""

import itertools
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import MS


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One committed row, as its client knows it."""

    at_ns: int
    row: int
    server: str


@dataclass(frozen=True)
class Acknowledgements:
    """In the order in which they came."""

    came: tuple[Acknowledgement, ...]
    #: Inserts whose outcome the client does not know, or that were refused.
    unsure: int = 0

    def since(self, at_ns: int) -> int:
        """How many came after a time."""
        return sum(one.at_ns > at_ns for one in self.came)

    def outage_ms(self, fault_ns: int) -> float | None:
        """The longest time without an acknowledgement that ended after the fault; None: none came."""
        gaps = [
            (after.at_ns - before.at_ns) / MS
            for before, after in itertools.pairwise(self.came)
            if after.at_ns > fault_ns
        ]
        return max(gaps, default=None)

    def server_at(self, at_ns: int) -> str | None:
        """Who acknowledged last before a time."""
        return next((one.server for one in reversed(self.came) if one.at_ns <= at_ns), None)

    def overlap_ms(self, old: str) -> float | None:
        """From the first acknowledgement of a successor to the last of *old*: negative is as it must be.

        None: only one server acknowledged.
        """
        last = max((one.at_ns for one in self.came if one.server == old), default=None)
        first = min((one.at_ns for one in self.came if one.server != old), default=None)
        return None if last is None or first is None else (last - first) / MS

    def lost(self, present: Collection[int]) -> list[int]:
        """Acknowledged rows that are not *present*."""
        held = set(present)
        return sorted(one.row for one in self.came if one.row not in held)


class Reader:
    """Follows what a client writes while it runs."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._offset = 0
        self._came: list[Acknowledgement] = []
        self._unsure = 0

    def read(self) -> Acknowledgements:
        """So far; a line that is still being written counts next time."""
        if self._record.exists():
            with self._record.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                self._take(json.loads(line))
            self._came.sort(key=lambda one: one.at_ns)
        return Acknowledgements(tuple(self._came), self._unsure)

    def _take(self, found: dict[str, Any]) -> None:
        if not found["why"]:
            self._came.append(Acknowledgement(found["at_ns"], found["row"], found["server"]))
        elif found["row"] is not None:
            self._unsure += 1
