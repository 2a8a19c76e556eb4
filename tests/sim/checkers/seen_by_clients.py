"""The least that a read must still see, because it was acknowledged or shown to somebody before.

Not a checker: `acknowledged_writes` and `no_stale_read` keep one each. What it holds: the log index, and
of each document the version, that were told before a read was asked for.
"""

from typing import NamedTuple

from tests.sim.trace import Invoke, Return

WRITES = ("put", "cas", "delete")
READS = ("get", "list")


class Floor(NamedTuple):
    """What must be seen by a read: entries up to `at_index`, and of each document at least this version."""

    at_index: int
    versions: dict[str, int]


class Told:
    """What clients were told so far, and what each read under way must therefore see.

    Order: each Invoke and Return is told to `invoked` and `returned` before anything else is asked about it.
    """

    def __init__(self) -> None:
        self._index = 0
        self._versions: dict[str, int] = {}
        self._reads: dict[int, Floor] = {}
        #: Deletes that may have happened: under way, of unknown outcome, or done at a version.
        self._open_deletes: dict[int, str] = {}
        self._maybe_deleted: dict[str, int] = {}
        self._deleted: dict[str, int] = {}

    def invoked(self, event: Invoke) -> None:
        if event.kind == "get":
            self._reads[event.operation] = Floor(self._index, {event.name: self._versions.get(event.name, 0)})
        elif event.kind == "list":
            versions = {name: seen for name, seen in self._versions.items() if name.startswith(event.name)}
            self._reads[event.operation] = Floor(self._index, versions)
        elif event.kind == "delete":
            self._open_deletes[event.operation] = event.name
            self._maybe_deleted[event.name] = self._maybe_deleted.get(event.name, 0) + 1

    def floor(self, event: Return) -> Floor | None:
        """What the read that returns had to see; None for anything else."""
        return self._reads.pop(event.operation, None)

    def delete_returned(self, event: Return) -> None:
        """A delete that has an outcome is no longer open."""
        if event.result != "unknown" and (name := self._open_deletes.pop(event.operation, None)):
            self._maybe_deleted[name] -= 1
            if event.result == "ok":
                self._deleted[name] = max(self._deleted.get(name, 0), event.version)

    def may_be_absent(self, name: str, version: int) -> bool:
        """A delete after *version* may have taken effect."""
        return self._maybe_deleted.get(name, 0) > 0 or self._deleted.get(name, 0) >= version

    def show(self, index: int, name: str | None = None, version: int = 0) -> None:
        """From now on every read sees at least this."""
        self._index = max(self._index, index)
        if name is not None and version > self._versions.get(name, 0):
            self._versions[name] = version

    def missed(self, event: Return, kind: str, floor: Floor) -> str | None:
        """What the read should have seen and did not; None when all is well."""
        if event.at_index < floor.at_index:
            return f"it saw the log up to {event.at_index}, but {floor.at_index} was told before it began"
        seen = dict(event.names) if kind == "list" else dict.fromkeys(floor.versions, event.version)
        for name, version in floor.versions.items():
            found = seen.get(name, 0)
            if found < version and (found or not self.may_be_absent(name, version)):
                return f"it saw {name} at version {found}, but {version} was told before it began"
        return None
