"""Clients that insert rows through the local listeners of hosts, and what must be true of what they saw."""

import itertools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from tests.harness.database_cluster import DatabaseCluster
from tests.harness.host import Host
from tests.harness.waiting import NotInTimeError, wait_for

PERIOD_S = 0.02
END_S = 10.0
#: Until nothing acts any more on a host that goes on after it stood still for longer than its lease.
ENDED_S = 2.0


@dataclass(frozen=True, slots=True)
class Session:
    """One connection of a client. `host` and `started` are those of the server."""

    at_ns: int
    host: str
    started: str
    pid: int


@dataclass(frozen=True, slots=True)
class Ack:
    """A row that the client was told to be there."""

    client: str
    number: int
    began_ns: int
    at_ns: int
    session: Session


@dataclass(frozen=True, slots=True)
class Standstill:
    """A host of which no process ran for a while, as when its machine is paused."""

    host: Host
    from_ns: int
    to_ns: int

    def excuses(self, ack: Ack, via: Host, *, is_local: bool) -> bool:
        """What was acknowledged before may arrive after; a commit that waits for nobody, nobody stops."""
        if self.host is not via and self.host.name != ack.session.host:
            return False
        until_ns = self.to_ns + round(ENDED_S * 1e9) if is_local else self.from_ns
        return ack.at_ns > self.from_ns and ack.began_ns <= until_ns


class Client:
    """One client as its program told of itself so far."""

    def __init__(self, name: str, via: Host, pid: int, output: Path, commit: str) -> None:
        self.name, self.via, self.pid, self.commit = name, via, pid, commit
        self._output = output
        self._read_to = 0
        self.sessions: list[Session] = []
        self.acks: list[Ack] = []
        self.unknown: list[tuple[int, str]] = []
        self.refused: list[str] = []

    def look(self) -> None:
        """Read what is new."""
        if not self._output.exists():
            return
        with self._output.open("rb") as lines:
            lines.seek(self._read_to)
            new = lines.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            self._take(line.decode(errors="replace"))

    def trouble(self, since_ns: int) -> str:
        """Why it does not go on, as far as it told; empty when it does."""
        if self.acks and self.acks[-1].began_ns > since_ns:
            return ""
        return (
            f"{self.name}: {self.sessions[-1:]}, {self.acks[-1:]}, {self.unknown[-1:]}, {self.refused[-1:]}"
        )

    def _take(self, line: str) -> None:
        if not line.startswith("["):
            raise AssertionError(f"{self.name} said: {line}")
        kind, *words = json.loads(line)
        match kind:
            case "connected":
                self.sessions.append(Session(*words))
            case "acknowledged":
                number, began, at = words
                self.acks.append(Ack(self.name, number, began, at, self.sessions[-1]))
            case "unknown":
                self.unknown.append((words[0], words[3]))
            case _:
                self.refused.append(words[1])


class Inserts:
    """Clients, one through each of *via*, from `with` to the end of its body; then `check` judges.

    *local*: more of them, whose commits wait for no standby, so that nothing keeps them but their server.
    """

    def __init__(
        self,
        database: DatabaseCluster,
        *via: Host,
        local: Iterable[Host] = (),
        period_s: float = PERIOD_S,
    ) -> None:
        self._database = database
        self._processes = database.cluster.processes
        self._period_s = period_s
        self.standstills: list[Standstill] = []
        self._wanted = [*((host, "on") for host in via), *((host, "local") for host in local)]
        self.clients: list[Client] = []

    def __enter__(self) -> Self:
        run = uuid4().hex[:8]
        for host, commit in self._wanted:
            name = f"{run}-{host.name}-{commit}"
            output = self._database.cluster.directory / f"inserts-{name}.jsonl"
            argv = [*host.inside, sys.executable, "-m", "tests.harness.inserter"]
            argv += [self._database.url(host), name, str(self._period_s), commit]
            self.clients.append(Client(name, host, self._processes.start(argv, output), output, commit))
        self.wait_progress()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            self._processes.signal(client.pid, signal.SIGCONT)
            self._processes.signal(client.pid, signal.SIGTERM)
            self._processes.wait_exit(client.pid, END_S)
            client.look()

    # ---- looking ------------------------------------------------------------------------

    def of(self, via: Host, commit: str = "on") -> Client:
        """The client that goes through this host."""
        found = next(each for each in self.clients if each.via is via and each.commit == commit)
        found.look()
        return found

    def acks(self) -> list[Ack]:
        """Every acknowledgement so far, in the order in which clients got them."""
        for client in self.clients:
            client.look()
        return sorted((ack for client in self.clients for ack in client.acks), key=lambda ack: ack.at_ns)

    def acked_since(self, at_ns: int, by: str | None = None) -> Ack | None:
        """The first acknowledgement of a row begun after a moment, by one host's server or any."""
        return next((a for a in self.acks() if a.began_ns > at_ns and by in (None, a.session.host)), None)

    def wait_progress(self, *through: Host, within_s: float = 20.0) -> None:
        """Every client (through these hosts) has a row acknowledged that was begun from now on."""
        now = time.monotonic_ns()

        asked = [each for each in self.clients if not through or each.via in through]

        def look() -> bool:
            for each in asked:
                each.look()
            return all(each.acks and each.acks[-1].began_ns > now for each in asked)

        try:
            wait_for(look, "every client goes on", within_s)
        except NotInTimeError as error:
            raise NotInTimeError(f"{error}: {[each.trouble(now) for each in asked]}") from error

    def outage_ms(self, since_ns: int) -> float:
        """The longest time without an acknowledgement that ended after a moment."""
        times = [ack.at_ns for ack in self.acks() if ack.session and ack.client.endswith("-on")]
        return max((b - a for a, b in itertools.pairwise(times) if b > since_ns), default=0) / 1e6

    # ---- judging --------------------------------------------------------------------------

    def check(self, since_ns: int = 0) -> None:
        """After the end: every acknowledged row is there once, on every host; no two primaries overlapped.

        *since_ns*: rows begun before may be lost.
        """
        self.check_one_primary()
        acks = [ack for ack in self.acks() if ack.client.endswith("-on") and ack.began_ns > since_ns]
        durable = {(ack.client, ack.number) for ack in acks}
        assert durable, "nothing was acknowledged"
        for host in self._database.cluster.hosts:
            if host.is_running():
                wait_for(
                    partial(self._has_all, host, durable), f"{host.name} has all {len(durable)} rows", 15.0
                )

    def _has_all(self, host: Host, durable: set[tuple[str, int]]) -> bool:
        names = [client.name for client in self.clients]
        query = "SELECT client, number FROM entries WHERE client = ANY(%s)"
        found = Counter((str(name), int(number)) for name, number in self._database.ask(host, query, names))
        twice = [row for row, times in found.items() if times > 1]
        assert not twice, f"on {host.name} more than once: {twice[:10]}"
        missing = sorted(durable - found.keys())
        if missing and self._database.is_primary(host):
            raise AssertionError(f"{len(missing)} acknowledged rows are lost on {host.name}: {missing[:10]}")
        return not missing

    def check_one_primary(self) -> None:
        """No server acknowledges anything after another one has begun to."""
        spans: dict[tuple[str, str], list[int]] = {}
        clients = {client.name: client for client in self.clients}
        for ack in self.acks():
            client = clients[ack.client]
            is_local = client.commit == "local"
            if any(each.excuses(ack, client.via, is_local=is_local) for each in self.standstills):
                continue
            span = spans.setdefault((ack.session.host, ack.session.started), [ack.at_ns, ack.at_ns])
            span[1] = ack.at_ns
        for (old, (_, last)), (new, (first, _)) in itertools.pairwise(spans.items()):
            assert last <= first, f"{old} acknowledged {(last - first) / 1e6:.1f} ms after {new} began to"
