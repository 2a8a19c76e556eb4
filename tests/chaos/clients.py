"""Concurrent clients of documents, in a process of their own: `python -m tests.chaos.clients PLAN`.

PLAN is a JSON file (see `Plan`). Each client has one request under way and writes down what it asked,
when, and what it was told. One client stays with each host; the last one goes from host to host and
repeats what was not answered, under one session, as an operator's command does.

Documents belong to slots of time, so that a history can be judged a slot at a time.
"""

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

import grpc
from trellis.config_sync.v1 import config_sync_pb2 as pb
from trellis.config_sync.v1 import config_sync_pb2_grpc

from tests.chaos.record import Answer, Recorder, answer_of
from tests.sim.history import ABSENT, Kind, Operation, Outcome

ATTEMPT_S = 2.0
ATTEMPTS_MAX = 6
DOCUMENTS = 3
SLOT_NS = 10_000_000_000
KINDS = ("put", "compare-and-set", "delete", "get", "get-stale", "list", "list-stale")
WEIGHTS = (30, 18, 2, 32, 8, 7, 3)

Call = Callable[[config_sync_pb2_grpc.ConfigSyncServiceStub], Answer]


@dataclass(frozen=True, slots=True)
class Door:
    """Where one host takes requests; `name` is what its certificate says, empty without TLS."""

    host: str
    address: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process does."""

    #: Of the process; its clients and calls are named after it.
    tag: str
    doors: tuple[Door, ...]
    record: str
    #: Of the documents' names.
    prefix: str
    seed: str
    pause_s: float
    #: Paths of a key, a certificate and what to trust; empty: no TLS.
    tls: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> "Plan":
        raw = json.loads(path.read_text())
        doors = tuple(Door(**door) for door in raw.pop("doors"))
        return Plan(doors=doors, tls=tuple(raw.pop("tls")), **raw)


def slot_prefix(prefix: str, slot: int) -> str:
    """Of the names of a slot's documents."""
    return f"{prefix}/{slot}/"


def open_channel(door: Door, tls: tuple[str, ...]) -> grpc.Channel:
    """Reconnects by itself, quickly."""
    options: list[tuple[str, int | str]] = [
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.keepalive_time_ms", 1_000),
        ("grpc.keepalive_timeout_ms", 1_000),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    if not tls:
        return grpc.insecure_channel(door.address, options=options)
    key, certificate, trusted = (Path(path).read_bytes() for path in tls)
    options += [("grpc.ssl_target_name_override", door.name), ("grpc.default_authority", door.name)]
    return grpc.secure_channel(
        door.address, grpc.ssl_channel_credentials(trusted, key, certificate), options=options
    )


class Client:
    """One client; `run` until it is told to stop."""

    def __init__(
        self, name: str, stubs: list[config_sync_pb2_grpc.ConfigSyncServiceStub], plan: Plan,
        recorder: Recorder, stop: Event,
    ) -> None:  # fmt: skip
        self._name = name
        self._stubs = stubs
        self._plan = plan
        self._recorder = recorder
        self._stop = stop
        self._chance = random.Random(f"{plan.seed}/{name}")
        self._versions: dict[str, int] = {}
        self._made = 0

    @property
    def _roams(self) -> bool:
        return len(self._stubs) > 1

    def run(self) -> None:
        while not self._stop.wait(self._chance.expovariate(1 / self._plan.pause_s)):
            self._step(self._chance.choices(KINDS, WEIGHTS)[0])

    def _step(self, what: str) -> None:
        self._made += 1
        prefix = slot_prefix(self._plan.prefix, time.monotonic_ns() // SLOT_NS)
        name = f"{prefix}d{self._chance.randrange(DOCUMENTS)}"
        # A session per request, as the CLI has it; without one a host must not repeat it by itself.
        has_session = self._roams or self._chance.random() < 0.5
        session = f"{self._plan.prefix}-{self._name}-{self._made}" if has_session else ""
        value = f"{self._name}.{self._made}"
        match what:
            case "put" | "compare-and-set":
                expected = self._versions.get(name, ABSENT) if what == "compare-and-set" else None
                request = pb.PutDocumentRequest(
                    name=name, value=value.encode(), expected_version=expected,
                    session=session, sequence=int(has_session),
                )  # fmt: skip
                self._perform(Kind.PUT, name, lambda stub: put(stub, request), request.value, expected)
            case "delete":
                gone = pb.DeleteDocumentRequest(name=name, session=session, sequence=int(has_session))
                self._perform(Kind.DELETE, name, lambda stub: delete(stub, gone))
            case "get" | "get-stale":
                stale = what == "get-stale"
                asked = pb.GetDocumentRequest(name=name, stale_ok=stale)
                self._perform(Kind.GET, name, lambda stub: get(stub, asked), stale=stale)
            case _:
                stale = what == "list-stale"
                wanted = pb.ListDocumentsRequest(prefix=prefix, stale_ok=stale)
                self._perform(Kind.LIST, prefix, lambda stub: listed(stub, wanted), stale=stale)

    def _perform(
        self, kind: Kind, name: str, call: Call, value: bytes = b"", expected: int | None = None,
        *, stale: bool = False,
    ) -> None:  # fmt: skip
        operation = Operation(
            self._name, kind, name, time.monotonic_ns(), value=value, expected=expected, stale=stale
        )
        number = self._recorder.begin(operation)
        answer = self._repeat(call, kind) if self._roams else attempt(self._stubs[0], call, kind)
        self._recorder.end(number, answer, time.monotonic_ns())
        if answer.outcome in (Outcome.OK, Outcome.CONFLICT) and not stale:
            self._versions[name] = answer.version

    def _repeat(self, call: Call, kind: Kind) -> Answer:
        """At one host after the other. Once an attempt's fate is open, only an answer closes it."""
        is_open = False
        first = self._chance.randrange(len(self._stubs))
        for number in range(ATTEMPTS_MAX):
            answer = attempt(self._stubs[(first + number) % len(self._stubs)], call, kind)
            if answer.outcome in (Outcome.OK, Outcome.CONFLICT):
                return answer
            is_open |= answer.outcome is Outcome.UNKNOWN
            if self._stop.wait(0.05 * (number + 1)):
                break
        return Answer(Outcome.UNKNOWN if is_open else Outcome.REFUSED)


def attempt(stub: config_sync_pb2_grpc.ConfigSyncServiceStub, call: Call, kind: Kind) -> Answer:
    """One request."""
    try:
        return call(stub)
    except grpc.RpcError as failure:
        return answer_of(failure, kind)


def put(stub: config_sync_pb2_grpc.ConfigSyncServiceStub, request: pb.PutDocumentRequest) -> Answer:
    """Fails: as gRPC does."""
    return Answer(Outcome.OK, stub.PutDocument(request, timeout=ATTEMPT_S).document.version)


def delete(stub: config_sync_pb2_grpc.ConfigSyncServiceStub, request: pb.DeleteDocumentRequest) -> Answer:
    """Fails: as gRPC does."""
    return Answer(Outcome.OK, stub.DeleteDocument(request, timeout=ATTEMPT_S).document.version)


def get(stub: config_sync_pb2_grpc.ConfigSyncServiceStub, request: pb.GetDocumentRequest) -> Answer:
    """Fails: as gRPC does."""
    document = stub.GetDocument(request, timeout=ATTEMPT_S).document
    return Answer(Outcome.OK, document.version, document.value)


def listed(stub: config_sync_pb2_grpc.ConfigSyncServiceStub, request: pb.ListDocumentsRequest) -> Answer:
    """Fails: as gRPC does."""
    documents = stub.ListDocuments(request, timeout=ATTEMPT_S).documents
    return Answer(Outcome.OK, rows=tuple((each.name, each.version) for each in documents))


def main() -> None:
    """Until SIGTERM; then requests under way come to their ends."""
    plan = Plan.read(Path(sys.argv[1]))
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    recorder = Recorder(Path(plan.record), plan.tag)
    channels = [open_channel(door, plan.tls) for door in plan.doors]
    stubs = [config_sync_pb2_grpc.ConfigSyncServiceStub(channel) for channel in channels]
    of_clients = [*([stub] for stub in stubs), stubs]
    threads = [
        Thread(target=Client(f"{plan.tag}{number}", those, plan, recorder, stop).run)
        for number, those in enumerate(of_clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # in pieces, so that the signal is seen
    for channel in channels:
        channel.close()
    recorder.close()


if __name__ == "__main__":
    main()
