"""Northbound calls at a steady rate by a client in a process of its own."""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.demo.calls import Call
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_for


class Calls:
    """Calls echo through the virtual IP, or another target, from `with` to the end of its body."""

    def __init__(
        self, cluster: Cluster, *, rate: float = 50, target: str = "", inside: Sequence[str] = ()
    ) -> None:
        self._processes = cluster.processes
        self._argv = [
            *inside, sys.executable, "-m", "sidecar.demo.load", target or cluster.virtual_address, str(rate)
        ]  # fmt: skip
        self._output = Path(cluster.directory) / f"calls-{id(self)}.jsonl"

    def __enter__(self) -> Self:
        self._pid = self._processes.start(self._argv, self._output)
        wait_for(self.answered, "the first northbound call is answered", 15.0)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._processes.signal(self._pid, signal.SIGTERM)
        self._processes.wait_exit(self._pid, 15.0)

    def all(self) -> list[Call]:
        """Every call that has ended so far."""
        if not self._output.exists():
            return []
        lines = self._output.read_text().splitlines(keepends=True)
        return [Call(*json.loads(line)) for line in lines if line.startswith("[") and line.endswith("]\n")]

    def failed(self, *, idempotent: bool | None = None) -> list[Call]:
        """Calls that failed; only those that are safe to repeat, or only the others."""
        return [call for call in self.all() if not call.ok and idempotent in (None, call.idempotent)]

    def answered(self, after_ns: int = 0) -> list[Call]:
        """Calls begun after a moment and answered."""
        return [call for call in self.all() if call.ok and call.started_ns > after_ns]
