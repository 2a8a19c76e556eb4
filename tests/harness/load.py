"""Writers and readers of documents during faults, and what must be true of what they saw.

Each writer has a document and a session of its own and writes 1, 2, 3, …; a
request without an answer is repeated, unchanged, on the next host until it is
acknowledged. Readers read linearizably, from any host.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Self
from uuid import uuid4

import grpc
from trellis.config_sync.v1 import config_sync_pb2

from tests.harness.host import Host
from tests.harness.waiting import let_pass, wait_for

ATTEMPT_S = 1.0
PAUSE_S = 0.02
#: Refused for now, or not known whether done: the same request may be sent again, to any host.
AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@dataclass(frozen=True, slots=True)
class Write:
    """One value of one document; acknowledged at `acked_ns` (monotonic), or never: 0."""

    value: int
    began_ns: int
    acked_ns: int


@dataclass(frozen=True, slots=True)
class Read:
    """One linearizable read; value 0 means that there was no document."""

    document: str
    host: str
    began_ns: int
    ended_ns: int
    value: int


class Load:
    """Runs from `with` to the end of its body; then `check` judges."""

    def __init__(self, hosts: Sequence[Host], *, writers: int = 2, readers: int = 2) -> None:
        self.hosts = list(hosts)
        self.run = uuid4().hex[:8]
        self.writes: dict[str, list[Write]] = {f"load-{self.run}/{n}": [] for n in range(writers)}
        self.reads: list[Read] = []
        self.failures: list[str] = []
        self._stop = Event()
        self._threads = [
            *(Thread(target=self._write, args=(name, n), daemon=True) for n, name in enumerate(self.writes)),
            *(Thread(target=self._read, args=(n,), daemon=True) for n in range(readers)),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_progress()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10 * ATTEMPT_S)

    # ---- what it does ------------------------------------------------------------------

    def _write(self, name: str, turn: int) -> None:
        value = 0
        session = f"{name}-{turn}"  # one for all its requests, whichever host they go to
        while not self._stop.wait(PAUSE_S):
            value += 1
            request = config_sync_pb2.PutDocumentRequest(
                name=name, value=str(value).encode(), session=session, sequence=value
            )
            began = time.monotonic_ns()
            self.writes[name].append(Write(value, began, 0))
            turn, done = self._put(request, turn)
            if done:
                self.writes[name][-1] = Write(value, began, time.monotonic_ns())

    def _put(self, request: config_sync_pb2.PutDocumentRequest, turn: int) -> tuple[int, bool]:
        while not self._stop.is_set():
            try:
                self.hosts[turn % len(self.hosts)].documents.PutDocument(request, timeout=ATTEMPT_S)
            except grpc.RpcError as error:
                if error.code() not in AGAIN:
                    self.failures.append(f"{request.name}: {error.code()}: {error.details()}")
                    return turn, False
                turn += 1
                let_pass(PAUSE_S)
            else:
                return turn, True
        return turn, False

    def _read(self, turn: int) -> None:
        names = list(self.writes)
        while not self._stop.wait(PAUSE_S):
            turn += 1
            host, name = self.hosts[turn % len(self.hosts)], names[turn % len(names)]
            began = time.monotonic_ns()
            value = read_value(host, name)
            if value is not None:
                self.reads.append(Read(name, host.name, began, time.monotonic_ns(), value))

    # ---- what came of it ----------------------------------------------------------------

    def acknowledged(self, after_ns: int = 0) -> int:
        """Number of writes acknowledged, after a moment."""
        return sum(write.acked_ns > after_ns for writes in self.writes.values() for write in writes)

    def wait_progress(self, within_s: float = 10.0) -> float:
        """Wait until every writer has been acknowledged a write begun from now on; seconds it took."""
        now = time.monotonic_ns()

        def look() -> bool:
            return all(any(w.acked_ns and w.began_ns > now for w in ws) for ws in self.writes.values())

        wait_for(look, "every writer makes progress", within_s)
        return (time.monotonic_ns() - now) / 1e9

    def check(self) -> None:
        """After the end: nothing acknowledged is lost, nothing was done twice, no read was stale."""
        assert not self.failures, self.failures
        self._check_reads()
        for name, writes in self.writes.items():
            acked = max((write.value for write in writes if write.acked_ns), default=0)
            begun = max((write.value for write in writes), default=0)
            for host in self.hosts:
                document = host.documents.GetDocument(
                    config_sync_pb2.GetDocumentRequest(name=name), timeout=10.0
                ).document
                value = int(document.value)
                assert acked <= value <= begun, f"{name} on {host.name}: {value}, acknowledged was {acked}"
                assert document.version == value, f"{name}: {value} values made {document.version} versions"

    def _check_reads(self) -> None:
        for name, writes in self.writes.items():
            reads = sorted((read for read in self.reads if read.document == name), key=lambda r: r.ended_ns)
            for number, read in enumerate(reads):
                # Values are 1, 2, 3, … in order, so the newest write of a kind is the largest.
                before = max((w.value for w in writes if 0 < w.acked_ns <= read.began_ns), default=0)
                assert read.value >= before, f"stale: {read}, but {before} was acknowledged before"
                began = max((w.value for w in writes if w.began_ns <= read.ended_ns), default=0)
                assert read.value <= began, f"from nowhere: {read}"
                earlier = [
                    r.value for r in reads[max(0, number - 20) : number] if r.ended_ns <= read.began_ns
                ]
                assert read.value >= max(earlier, default=0), f"back in time: {read}"


def read_value(host: Host, name: str, *, timeout_s: float = 2 * ATTEMPT_S) -> int | None:
    """A linearizable read: the value, 0 for no document, None for no answer."""
    try:
        answer = host.documents.GetDocument(config_sync_pb2.GetDocumentRequest(name=name), timeout=timeout_s)
    except grpc.RpcError as error:
        return 0 if error.code() is grpc.StatusCode.NOT_FOUND else None
    return int(answer.document.value)
