"""Looks all the time who holds the virtual IP, and remembers when it were two."""

import time
from threading import Event, Thread
from types import TracebackType
from typing import Self

from tests.harness.cluster import Cluster
from tests.harness.host import VIRTUAL_PORT
from tests.harness.waiting import wait_for

EACH_S = 0.01


class Sight:
    """Runs from `with` to the end of its body, which fails when two ever held it at once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = Event()
        self._thread = Thread(target=self._look, daemon=True, name="sight")
        #: When the holders changed, and to whom.
        self.changes: list[tuple[int, tuple[str, ...]]] = []
        self.looks = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.check()

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()
        wait_for(lambda: self.looks, "the first look at the virtual IP")

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Never two, and it was looked."""
        two = [change for change in self.changes if len(change[1]) > 1]
        assert not two, f"the virtual IP had two holders: {two}"
        assert self.looks

    def gap_ms(self, after_ns: int) -> float:
        """From a moment until somebody else held it."""
        before = [held for at, held in self.changes if at <= after_ns][-1]
        for at, held in self.changes:
            if at > after_ns and held and held != before:
                return (at - after_ns) / 1e6
        return float("inf")

    def _look(self) -> None:
        while not self._stop.wait(EACH_S):
            held = tuple(self._cluster.network.holders(VIRTUAL_PORT))
            if not self.changes or self.changes[-1][1] != held:
                self.changes.append((time.monotonic_ns(), held))
            self.looks += 1
