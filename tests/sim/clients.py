"""Clients that read and write documents at any host, several at once, and write down what they were told.

One client has one request under way. When the host that it asked dies, its outcome stays open and a new
client takes its place, so that nobody ever acts on an answer that did not come.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from mesh.errors import OutcomeUnknown, TrellisError
from mesh.ids import DocumentName
from mesh.state.commands import DeleteDocument, PutDocument
from tests.sim.clock import NS
from tests.sim.trace import Invoke, Return

if TYPE_CHECKING:
    from tests.sim.host import Life
    from tests.sim.world import World

#: How long a client waits for an answer.
PATIENCE_S = 4.0

KINDS = ("put", "cas", "delete", "get", "get-stale", "list", "list-stale")
WEIGHTS = (34, 14, 4, 30, 8, 6, 4)


class Answer(NamedTuple):
    """What a client is told, as `Return` has it."""

    result: str = "ok"
    reason: str = ""
    version: int = 0
    value: bytes = b""
    at_index: int = 0
    names: tuple[tuple[str, int], ...] = ()


class Client:
    """One client. Its name changes whenever an answer stays away."""

    def __init__(self, clients: "Clients", number: int, *, asks_once: bool = False) -> None:
        self._clients = clients
        self._asks_once = asks_once
        self._number = number
        self._renewals = 0
        self._open: int | None = None
        self._versions: dict[str, int] = {}

    @property
    def name(self) -> str:
        return f"c{self._number}.{self._renewals}"

    def step(self) -> None:
        """Ask for something, at a host that runs."""
        clients = self._clients
        if not clients.is_on:
            return
        chance, world = clients.chance, clients.world
        lives = [each for each in world.lives() if not each.is_ending and not each.machine.is_witness]
        if not lives:
            clients.later(self.step)
            return
        life = lives[int(chance.random() * len(lives))]
        if clients.at_leaders and chance.random() < clients.at_leaders:
            leading = [each for each in lives if each.member in world.leaders]
            life = leading[int(chance.random() * len(leading))] if leading else life
        kind = chance.choices(KINDS, clients.weights)[0]
        name = f"d{int(chance.random() * clients.documents)}"
        expected = self._versions.get(name, 0) if kind == "cas" else None
        self.ask(life, kind, name, expected)

    def ask(self, life: "Life", kind: str, name: str, expected: int | None) -> int:
        """Send one request to *life*; its number."""
        clients = self._clients
        operation = self._open = clients.number()
        value = f"{operation}".encode() if kind in ("put", "cas") else b""
        named = "" if kind.startswith("list") else name
        world = clients.world
        world.emit(Invoke(world.now, life.host, self.name, operation, kind, named, value, expected))
        work = partial(_perform, life, clients.patience_s, kind, name, value, expected)
        life.loop.create_task(self._run(life, operation, name, work), name=f"client:{operation}")
        world.scheduler.at(world.now + int((clients.patience_s + 2) * NS), self._give_up, operation)
        return operation

    async def _run(
        self, life: "Life", operation: int, name: str, work: Callable[[], Awaitable[Answer]]
    ) -> None:
        try:
            answer = await work()
        except OutcomeUnknown as error:
            answer = Answer("unknown", error.reason)
        except TrellisError as error:
            answer = Answer("refused", error.reason, int(error.metadata.get("version", 0)))
        except Exception as bug:  # noqa: BLE001 - a request must end in an answer or an operating error
            life.world.bug(bug)
            return
        world = life.world
        if self._open != operation:
            return  # given up; nobody listens any more
        self._open = None
        world.emit(Return(world.now, life.host, self.name, operation, *answer))
        self._clients.answered(operation, answer)
        if answer.result == "unknown":
            self._renewals += 1
        elif answer.result == "ok" and not answer.names:
            self._versions[name] = answer.version
        if not self._asks_once:
            self._clients.later(self.step)

    def _give_up(self, operation: int) -> None:
        if self._open == operation:
            self._open = None
            self._renewals += 1
            self._clients.answered(operation, Answer("unknown", "NO_ANSWER"))
            if not self._asks_once:
                self.step()


class Clients:
    """All of them. `is_on` may be taken back: then each finishes what it has under way."""

    def __init__(self, world: "World", chance: Random, count: int, documents: int, pause_ns: int) -> None:
        self.world = world
        self.chance = chance
        self.documents = documents
        self.is_on = False
        self.patience_s = PATIENCE_S
        #: How likely one asks whoever believes to lead, rather than any host.
        self.at_leaders = 0.0
        #: How often of each of `KINDS`.
        self.weights: Sequence[int] = WEIGHTS
        self._pause_ns = pause_ns
        self._numbers = 0
        self._clients = [Client(self, number) for number in range(count)]
        self._waiting: dict[int, Callable[[Answer], None]] = {}
        #: Requests that ended well.
        self.done = 0

    def start(self) -> None:
        """Begin, each at its own moment."""
        self.is_on = True
        for client in self._clients:
            self.later(client.step)

    def number(self) -> int:
        """Of a new request."""
        self._numbers += 1
        return self._numbers

    def later(self, act: Callable[[], None]) -> None:
        """After a drawn pause."""
        pause = int(self.chance.expovariate(1 / self._pause_ns))
        self.world.scheduler.at(self.world.now + pause, act)

    def probe(self, life: "Life", kind: str, told: Callable[[Answer], None]) -> None:
        """One request by a client of its own, and what comes of it."""
        client = Client(self, 1_000 + self._numbers, asks_once=True)
        operation = client.ask(life, kind, "d0", None)
        self._waiting[operation] = told

    def answered(self, operation: int, answer: Answer) -> None:
        """A request has ended."""
        self.done += answer.result == "ok"
        told = self._waiting.pop(operation, None)
        if told is not None:
            told(answer)


async def _perform(
    life: "Life", patience_s: float, kind: str, name: str, value: bytes, expected: int | None
) -> Answer:
    replica = life.replica
    if kind in ("put", "cas"):
        command = PutDocument(DocumentName(name), value, expected)
        applied = await replica.propose(command, timeout_s=patience_s, at_ns=life.clock.wall_ns())
        return Answer(version=applied.version, at_index=applied.index)
    if kind == "delete":
        gone = DeleteDocument(DocumentName(name))
        applied = await replica.propose(gone, timeout_s=patience_s, at_ns=life.clock.wall_ns())
        return Answer(version=applied.version, at_index=applied.index)
    if not kind.endswith("-stale"):
        await replica.barrier(timeout_s=patience_s)
    else:
        await asyncio.sleep(0)
    state = replica.state
    if kind.startswith("list"):
        names = tuple(
            (str(row.name), row.version)
            for row in sorted(state.documents.rows.values(), key=lambda each: each.name)
            if not row.deleted
        )
        return Answer(at_index=state.applied, names=names)
    row = state.documents.rows.get(DocumentName(name))
    if row is None or row.deleted:
        return Answer(at_index=state.applied)
    return Answer(version=row.version, value=row.value, at_index=state.applied)
