"""The replicated state as the rest of a sidecar sees it: read it, change it, follow it.

Joins the consensus driver with the state machine. Everything here runs in the
sidecar's one event loop, so a reader sees the state between two entries.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from mesh import failpoints
from mesh.errors import InvariantBroken, OutcomeUnknown, OutOfRange, QueueFull, Unavailable
from mesh.ids import Index, MemberId, SessionId, Term, host_of
from mesh.limits import SESSION_OUTCOMES_MAX, STATE_HASH_PERIOD, WATCH_BACKLOG_MAX, WATCHERS_MAX
from mesh.state import ClusterState, apply, checkpoint, error_of
from mesh.state.commands import Applied, Command, Rejected, Request
from mesh.state.model import Fence
from mesh.state.watch import ChangeSet
from mesh.wire.command import decode_request, encode_request
from mesh.wire.outcome import decode_outcome, encode_outcome
from mesh.wire.snapshot import decode_snapshot, encode_snapshot

LANES_MAX = 64


class StateMachine:
    """The cluster's state as the consensus driver wants it: bytes in, outcomes out.

    `on_change` is called after each entry that changed something, in the same
    loop iteration; it must not block.
    """

    def __init__(self, on_change: Callable[[ChangeSet], None]) -> None:
        self.state = ClusterState()
        self.hash_index = Index(0)
        self.hash = b""
        self._on_change = on_change

    def apply(self, index: Index, data: bytes) -> Applied | Rejected:
        """Apply one command. Fails: an entry of a newer version stops this host (see mesh.state)."""
        outcome, changes = apply(self.state, index, decode_request(data))
        if index % STATE_HASH_PERIOD == 0:
            self.hash_index, self.hash = index, checkpoint(self.state)
        if changes.changes:
            self._on_change(changes)
        return outcome

    def check(self, data: bytes) -> None:
        """Refuse what this version does not understand. Fails: UnknownCommand."""
        decode_request(data)

    def snapshot(self) -> Callable[[], bytes]:
        """The whole state; encoding the copy takes long with many documents, copying does not."""
        state = self.state.copy()
        return lambda: encode_snapshot(state)

    def restore(self, data: bytes) -> None:
        """Become what `snapshot` described."""
        self.state = decode_snapshot(data)
        self._on_change(ChangeSet(self.state.applied, ()))


class OutcomeCodec:
    """Outcomes of the state machine between hosts."""

    def encode(self, outcome: object) -> bytes:
        """As bytes. Fails: InvariantBroken for anything that is no outcome."""
        if not isinstance(outcome, Applied | Rejected):
            raise InvariantBroken(f"the state machine answered {type(outcome).__name__}")
        return encode_outcome(outcome)

    def decode(self, data: bytes) -> object:
        """The inverse of `encode`."""
        return decode_outcome(data)


class Consensus(Protocol):
    """What the replica needs of the consensus driver."""

    @property
    def applied(self) -> Index: ...
    async def propose_anywhere(
        self, data: bytes, *, timeout_s: float, repeatable: bool
    ) -> tuple[Index, object]: ...
    async def propose_in_term(self, data: bytes, *, term: Term, timeout_s: float) -> tuple[Index, object]: ...
    async def read_barrier(self, *, timeout_s: float) -> Index: ...


class _Lane:
    """One session of this sidecar, with one request under way at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._renewals = 0
        self.session = SessionId(name)
        self.sequence = 0

    def renew(self) -> None:
        """Go on under a session that nobody knows yet."""
        self._renewals += 1
        self.session = SessionId(f"{self._name}.{self._renewals}")
        self.sequence = 1


class Replica:
    """The replicated state of this host, and the way to change it.

    Bound: `LANES_MAX` commands under way from this sidecar, others wait for a
    lane; `WATCHERS_MAX` watchers.
    """

    def __init__(self, member: MemberId, *, nonce: str = "", is_witness: bool = False) -> None:
        """*nonce* tells the sessions of this process from those of all others; drawn when empty.

        *is_witness*: this host votes and is told no commands, so its state says nothing.
        """
        self.member, self.is_witness = member, is_witness
        self.machine = StateMachine(self._changed)
        self._consensus: Consensus | None = None
        self._subscribers: list[Callable[[ChangeSet], None]] = []
        self._watchers: set[_Watcher] = set()
        nonce = nonce or secrets.token_hex(6)
        self._lanes: asyncio.Queue[_Lane] = asyncio.Queue()
        for number in range(LANES_MAX):
            self._lanes.put_nowait(_Lane(f"{member}/{nonce}/{number}"))

    def attach(self, consensus: Consensus) -> None:
        """Give the replica its driver. Order: before anything is proposed."""
        self._consensus = consensus

    @property
    def state(self) -> ClusterState:
        """The applied state; read it, never change it."""
        return self.machine.state

    @property
    def applied(self) -> Index:
        """Index up to which entries are applied."""
        return self._driver.applied

    @property
    def _driver(self) -> Consensus:
        if self._consensus is None:
            raise InvariantBroken("the replica has no consensus driver yet")
        return self._consensus

    # ---- change ---------------------------------------------------------------------

    async def propose(
        self,
        command: Command,
        *,
        timeout_s: float = 5.0,
        at_ns: int = 0,
        trace_id: str = "",
        session: SessionId | None = None,
        sequence: int = 0,
        fence: Fence | None = None,
    ) -> Applied:
        """Have a command applied once, from any host; returns when the leader has applied it.

        Without `session` a session of this sidecar is used, so that a repeated
        attempt inside this call counts once. With `fence` it is applied only while that is the owner.

        Fails: the refusals of the command; `NoLeader` or `NotLeader` when nobody
        took it in time; `OutcomeUnknown` when it may still be applied.
        """
        if session is not None:
            request = Request(command, session, sequence, at_ns, trace_id, fence)
            return await self._apply(request, timeout_s)
        began = asyncio.get_running_loop().time()
        lane = await self._free_lane(timeout_s)
        left_s = timeout_s - (asyncio.get_running_loop().time() - began)
        lane.sequence += 1
        if lane.sequence > SESSION_OUTCOMES_MAX and lane.session not in self.state.sessions.rows:
            lane.renew()  # unused for so long that the cluster has forgotten it
        try:
            request = Request(command, lane.session, lane.sequence, at_ns, trace_id, fence)
            return await self._apply(request, left_s)
        except OutcomeUnknown as error:
            if error.metadata.get("forgotten"):
                lane.renew()
            raise
        finally:
            self._lanes.put_nowait(lane)

    async def _free_lane(self, timeout_s: float) -> _Lane:
        """Fails: `QueueFull` when none is free in time."""
        if not self._lanes.empty():
            return self._lanes.get_nowait()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._lanes.get()
        except TimeoutError:
            raise QueueFull(f"{LANES_MAX} commands of this host are under way; try again shortly") from None

    async def _apply(self, request: Request, timeout_s: float) -> Applied:
        await failpoints.passing("replica.propose.before")
        _, outcome = await self._driver.propose_anywhere(
            encode_request(request), timeout_s=timeout_s, repeatable=bool(request.session)
        )
        await failpoints.passing("replica.propose.answered")
        return _applied(outcome)

    async def propose_leading(
        self, command: Command, *, term: Term, timeout_s: float, at_ns: int, trace_id: str
    ) -> Applied:
        """Have a command applied that is only right while this member leads `term`; tried once.

        Fails: the refusals of the command; `NotLeader` when it certainly was not and will not be
        applied; `OutcomeUnknown` when it may still be.
        """
        data = encode_request(Request(command, SessionId(""), 0, at_ns, trace_id))
        _, outcome = await self._driver.propose_in_term(data, term=term, timeout_s=timeout_s)
        return _applied(outcome)

    # ---- read -----------------------------------------------------------------------

    async def barrier(self, *, timeout_s: float = 5.0) -> Index:
        """Wait until this host has applied everything acknowledged before the call.

        Fails: `NoLeader` when no quorum confirms within the timeout; on a witness, see `check_holds_state`.
        """
        self.check_holds_state()
        return await self._driver.read_barrier(timeout_s=timeout_s)

    def check_holds_state(self) -> None:
        """Before the state is read, an older one too. Fails: `Unavailable` on a witness."""
        if self.is_witness:
            raise Unavailable(
                f"{host_of(self.member)} is a witness: it votes and holds no state; ask another host"
            )

    # ---- follow ---------------------------------------------------------------------

    def subscribe(self, callback: Callable[[ChangeSet], None]) -> None:
        """Call back in the same loop iteration in which a change was applied."""
        self._subscribers.append(callback)

    def _changed(self, changes: ChangeSet) -> None:
        for callback in self._subscribers:
            callback(changes)
        for watcher in self._watchers:
            watcher.offer(changes)

    @asynccontextmanager
    async def watch(self, after: Index) -> AsyncIterator[AsyncIterator[ChangeSet]]:
        """Every change after an index, in order, without a gap.

        Fails: `OutOfRange` when changes are no longer kept, or when the reader
        is `WATCH_BACKLOG_MAX` changes behind; `QueueFull` with too many watchers; on a witness, see
        `check_holds_state`.
        """
        self.check_holds_state()
        if len(self._watchers) >= WATCHERS_MAX:
            raise QueueFull(f"{WATCHERS_MAX} watches are open on this host; close some or use another host")
        watcher = _Watcher(after, self.state.kept.since(after))
        self._watchers.add(watcher)
        try:
            yield watcher.changes()
        finally:
            self._watchers.discard(watcher)


def _applied(outcome: object) -> Applied:
    """What the state machine answered. Fails: the refusals of the command."""
    if isinstance(outcome, Rejected):
        raise error_of(outcome)
    if not isinstance(outcome, Applied):
        raise InvariantBroken(f"the state machine answered {type(outcome).__name__}")
    return outcome


class _Watcher:
    """One reader's backlog. A reader that falls behind is told so instead of skipping."""

    def __init__(self, after: Index, first: Iterable[ChangeSet]) -> None:
        self._after = after
        self._backlog: deque[ChangeSet] = deque(first)
        self._news = asyncio.Event()
        self._lost = False

    def offer(self, changes: ChangeSet) -> None:
        # A restored snapshot has no list of changes: what came between is not known.
        if changes.changes and changes.index <= self._after:
            return  # another host, which is ahead of this one, has told it already
        if not changes.changes or len(self._backlog) >= WATCH_BACKLOG_MAX:
            self._lost = True
        else:
            self._backlog.append(changes)
        self._news.set()

    async def changes(self) -> AsyncIterator[ChangeSet]:
        while True:
            while self._backlog:
                yield self._backlog.popleft()
            if self._lost:
                raise OutOfRange("this watch fell behind; read the present state and watch from its revision")
            await self._news.wait()
            self._news.clear()
