"""A resource outside of the cluster that verifies fencing terms, and judges from outside who acted when.

It speaks the protocol of services/reporter: "TERM INSTANCE SEQUENCE" in, "ok" or
"stale HIGHEST" out. Every attempt is kept, also refused ones.
"""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread


@dataclass(frozen=True, slots=True)
class Act:
    """Somebody acted as the owner."""

    at_ns: int
    term: int
    instance: str
    refused: bool

    @property
    def host(self) -> str:
        """The host whose instance acted."""
        return self.instance.partition("@")[2].partition("#")[0]


class FencedResource:
    """Serves until closed, in threads of its own."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        ip, port = listening.getsockname()[:2]
        self.address = f"{ip}:{port}"
        self._one = Lock()
        self._highest = 0
        self._acts: list[Act] = []
        #: Hosts that stood still whole, from when to when their stale acts are no fault: nothing there could
        #: stop them, which is what the resource verifies terms for.
        self.excused: list[tuple[str, int, int]] = []
        Thread(target=self._accept, name="resource", daemon=True).start()

    def close(self) -> None:
        """Refuse new connections; open ones end with their clients."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def acts(self) -> list[Act]:
        """Every act so far, in the order of arrival."""
        with self._one:
            return list(self._acts)

    def last(self) -> Act | None:
        """The newest act."""
        acts = self.acts()
        return acts[-1] if acts else None

    def acted_since(self, at_ns: int, host: str | None = None) -> Act | None:
        """The first act after a moment, of one host or of any."""
        return next((act for act in self.acts() if act.at_ns > at_ns and host in (None, act.host)), None)

    def check_one_owner(self) -> None:
        """No two hosts ever acted at the same time.

        Method: an owner whose act arrives after a later owner's first act acted beside
        it, and the terms show it: it was refused. One term belongs to one host.
        """
        acts = self.acts()
        refused = [act for act in acts if act.refused and not self._is_excused(act)]
        assert not refused, f"{len(refused)} acts of stale owners arrived, first {refused[0]}"
        hosts: dict[int, str] = {}
        for act in acts:
            if act.refused:
                continue
            assert hosts.setdefault(act.term, act.host) == act.host, f"two hosts acted under term {act.term}"

    def _is_excused(self, act: Act) -> bool:
        return any(host == act.host and begin <= act.at_ns <= end for host, begin, end in self.excused)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            Thread(target=self._serve, args=(connection,), name="resource-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                lines.write(self._take(line) + "\n")
                lines.flush()

    def _take(self, line: str) -> str:
        term, instance, _ = line.split()
        with self._one:
            refused = int(term) < self._highest
            self._highest = max(self._highest, int(term))
            self._acts.append(Act(time.monotonic_ns(), int(term), instance, refused))
            return f"stale {self._highest}" if refused else "ok"
