"""The loop that owns a `RawNode`: disk, network and state machine on one side, callers on the other.

Every input (message, tick, proposal, read) goes into the node at once; one turn of
the event loop later `_turn` takes what became ready, so whatever came in
together is stored and sent together. While a write is under way inputs go on
being taken in and make up the next batch.

Order: as `Ready` says. Nothing that a promise depends on leaves before the
write it depends on is durable; a failed write ends the driver at once.
Absent here: connections (adapters.transport), the write itself (adapters.sqlite_log),
proposals from other hosts (consensus.py).
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from mesh import limits
from mesh.adapters.clock import boottime_ns
from mesh.adapters.log_writer import LogWriter
from mesh.counters import ConsensusCounters
from mesh.errors import Draining, NoLeader, OutcomeUnknown, TrellisError
from mesh.ids import Index, MemberId, Term
from mesh.pacing import CATCH_UP_TICKS_MAX, ticks_due
from mesh.ports import DriverObserver, LogStore, Network, StateMachine
from mesh.raft import RawNode
from mesh.raft.model import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    RaftSettings,
    Ready,
    Role,
    Snapshot,
    SoftState,
    Standing,
    Status,
)
from mesh.rounds import RoundClock
from mesh.waiting import (
    Answer,
    Answered,
    Applied,
    AppliedWaiters,
    ConditionWaiters,
    PendingProposals,
    PendingReads,
    not_leader,
)

T = TypeVar("T")

#: Spreads candidates; nothing is decided by it.
CHANCE = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Paces and bounds of one driver."""

    tick_s: float = 0.05
    #: A snapshot is taken after so many entries or bytes.
    snapshot_entries: int = 4_096
    snapshot_bytes: int = 16 * limits.MIB
    #: After a crash proof of the leader: wait per rank, so that followers do not split the vote.
    stagger_s: float = 0.03
    #: Then, until somebody leads: pause between attempts (drawn), and their number.
    recampaign_s: tuple[float, float] = (0.05, 0.15)
    recampaigns_max: int = 8
    #: A member that lost leadership waits so long for its proposals' fate before it calls it unknown.
    lost_grace_s: float = 1.0
    #: How long stopping waits for a write that the disk holds up.
    stop_grace_s: float = 2.0


class RaftDriver:
    """One member of the Raft group, live.

    Order: everything is called from one event loop; what comes before `run` waits for it.
    Fails: `run` raises what ended it: `StorageFailed`, `Corruption`, a bug.
    """

    def __init__(
        self,
        *,
        raft: RaftSettings,
        store: LogStore,
        machine: StateMachine,
        observers: Iterable[DriverObserver] = (),
        settings: DriverSettings | None = None,
        counters: ConsensusCounters | None = None,
        jitter: Callable[[int, int], int] = CHANCE.randint,
    ) -> None:
        """Read the store and restore the state machine. Fails: `Corruption`, `StorageFailed`."""
        self.id = raft.id
        self.counters = counters or ConsensusCounters()
        self._raft = raft
        self._settings = settings or DriverSettings()
        self._store = store
        self._machine = machine
        self._observers = list(observers)
        restored = store.load()
        self._node = RawNode(raft, restored, jitter)
        self._snapshot_index = Index(0)
        if restored.snapshot:
            machine.restore(restored.snapshot.data)
            self._snapshot_index = restored.snapshot.meta.last.index
        self._bytes_since_snapshot = 0
        self._late_hard_state: HardState | None = None
        self._is_storing = self._is_compacting = self._is_scheduled = self._is_running = False
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        self._proposals = PendingProposals()
        self._reads = PendingReads()
        self._applied = AppliedWaiters()
        self._conditions = ConditionWaiters()
        #: The term this member leads; None when it does not.
        self._led_term: Term | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._rounds = RoundClock()
        #: When the newest message of a leader was taken in, CLOCK_BOOTTIME ns; 0: never.
        self.leader_heard_at = 0

    def add_observer(self, observer: DriverObserver) -> None:
        """Tell *observer* too, after those before it."""
        self._observers.append(observer)

    # ---- life -----------------------------------------------------------------------

    async def run(self, network: Network) -> None:
        """Drive the node until `stop` or a failure.

        Cancellation: as `stop`. Waits at most `stop_grace_s` for the disk.
        """
        loop = asyncio.get_running_loop()
        self._network = network
        self._writer = LogWriter(loop, "log-writer")
        self._bulk_writer = LogWriter(loop, "snapshot-writer")
        self._is_running = True
        self._ticked_ns = boottime_ns()
        self._arm_tick()
        if self._node.is_alone:  # nobody else can lead, so there is nothing to wait for
            self._node.campaign()
        self._kick()
        try:
            await self._ended.wait()
        finally:
            self._ended.set()
            await self._close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End `run` after the present turn, or as soon as it begins."""
        self._ended.set()

    def _fail(self, error: BaseException) -> None:
        if not self._ended.is_set():
            self._failure = error
            self._ended.set()

    async def _close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        gone = Draining("this sidecar is stopping; ask another host")
        self._proposals.give_up("this sidecar stopped before the command was applied")
        self._reads.refuse_all(gone)
        self._applied.refuse_all(gone)
        self._conditions.refuse_all(gone)
        grace_s = self._settings.stop_grace_s
        is_idle = await self._bulk_writer.close(grace_s=grace_s) & await self._writer.close(grace_s=grace_s)
        if is_idle:
            if self._late_hard_state and self._failure is None:
                self._store.save(Ready(hard_state=self._late_hard_state, must_sync=True))
            self._store.close()

    # ---- input ----------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """Take in a message from the network."""
        try:
            self._node.step(message)
            if message.sender == self._node.leader:
                self.leader_heard_at = boottime_ns()
        except Exception as error:  # noqa: BLE001 - a bug in the core ends the driver, not the stream
            self._fail(error)
        self._kick()

    def submit(self, data: bytes, answered: Answered) -> None:
        """Append a command and have *answered* called once its fate is known.

        Fails: `NotLeader`, `QueueFull`, `Unavailable`; then *answered* is never called.
        """
        self._proposals.check_room()
        entry = self._node.propose(data)
        self.counters.proposals += 1
        self._proposals.add(entry, answered)
        self._kick()

    async def propose(self, data: bytes, *, timeout_s: float) -> tuple[Index, object]:
        """Append a command on this leader; its index and outcome once applied.

        Cancellation: the command may still be applied.
        Fails: a `Refused` for certain; `OutcomeUnknown` when it may still be applied.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.submit(data, lambda each: None if answer.done() else answer.set_result(each))
        try:
            async with asyncio.timeout(timeout_s):
                end = await answer
        except TimeoutError:
            raise OutcomeUnknown(f"no quorum confirmed the command within {timeout_s} s") from None
        if isinstance(end, Applied):
            return end.index, end.outcome
        raise end

    async def read_index(self, *, timeout_s: float) -> Index:
        """An index that includes everything acknowledged before the call, confirmed by a quorum.

        Fails: `NotLeader`, `QueueFull`, `NoLeader` when no quorum answers.
        """
        if self._node.role is not Role.LEADER:
            raise not_leader(self._node.leader)
        self.counters.reads += 1
        read = self._reads.add()
        self._kick()
        return await self._in_time(read, timeout_s, "no quorum confirmed this leader")

    def lease_read_index(self) -> Index | None:
        """The same without asking, while the leader's lease holds; None: use `read_index`."""
        is_on_time = boottime_ns() - self._ticked_ns < 2 * self._tick_ns
        return self._node.lease_read_index() if is_on_time else None

    async def wait_applied(self, index: Index, *, timeout_s: float) -> Index:
        """Wait until the state machine here has applied *index*. Fails: `NoLeader`."""
        if self._node.applied >= index:
            return self._node.applied
        return await self._in_time(self._applied.add(index), timeout_s, f"index {index} was not applied")

    async def wait_until(self, condition: Callable[[Status], bool], *, timeout_s: float) -> None:
        """Wait until *condition* holds for this member. Fails: `NoLeader` after the timeout."""
        if not condition(self._node.status()):
            future = self._conditions.add(lambda: condition(self._node.status()))
            await self._in_time(future, timeout_s, "the member did not get there")

    async def wait_leader(self, *, timeout_s: float) -> MemberId:
        """Wait until somebody leads. Fails: `NoLeader`."""
        await self.wait_until(lambda status: status.leader is not None, timeout_s=timeout_s)
        leader = self._node.leader
        if leader is None:
            raise NoLeader("the leader was lost again; try again shortly")
        return leader

    async def change_membership(self, target: Membership, *, timeout_s: float) -> None:
        """Move to *target* and wait until it is committed.

        Fails: as `RawNode.propose_membership`; `NoLeader` when it took longer: it may still happen.
        """
        self._node.propose_membership(target)
        self._kick()
        await self.wait_until(
            lambda status: status.membership == target and status.commit >= status.last.index,
            timeout_s=timeout_s,
        )

    async def transfer_leadership(self, to: MemberId, *, timeout_s: float) -> None:
        """Hand leadership to *to* and wait until it leads.

        Fails: as `RawNode.transfer_leadership`; `NoLeader` when it did not take over in time.
        """
        self._node.transfer_leadership(to)
        self._kick()
        await self.wait_until(lambda status: status.leader == to, timeout_s=timeout_s)

    def report_unreachable(self, member: MemberId) -> None:
        """A stream to or from *member* broke."""
        self._node.report_unreachable(member)
        self._kick()

    def report_crash(self, member: MemberId) -> None:
        """*member* is certainly dead. If it led, stand for election, in rank order."""
        self.counters.crashes_proven += 1
        for observer in self._observers:
            observer.crash_proven(member)
        led = self._node.leader == member
        self._node.report_crash(member)
        rank = self._node.stagger(member)
        if led and rank is not None:
            attempts = self._settings.recampaigns_max
            self._arm("campaign", rank * self._settings.stagger_s, partial(self._campaign, attempts))
        self._kick()

    # ---- looking --------------------------------------------------------------------

    def status(self) -> Status:
        """Everything worth showing; not for hot paths."""
        return self._node.status()

    @property
    def applied(self) -> Index:
        return self._node.applied

    @property
    def leader(self) -> MemberId | None:
        return self._node.leader

    @property
    def role(self) -> Role:
        return self._node.role

    @property
    def term(self) -> Term:
        return self._node.term

    @property
    def stood_for(self) -> Standing:
        """On a leader: how it came to lead."""
        return self._node.stood_for

    def quorum_confirmed_at(self) -> int | None:
        """On the leader: when the newest round that a quorum confirmed was sent, CLOCK_BOOTTIME ns.

        None on others, and before the first confirmation. A group of one is its own quorum.
        """
        confirmed = self._node.confirmed_round
        if confirmed is None:
            return None
        if self._node.is_alone:
            return boottime_ns()
        return self._rounds.confirmed_at(self._node.term, confirmed)

    # ---- time -----------------------------------------------------------------------

    @property
    def _tick_ns(self) -> int:
        return int(self._settings.tick_s * 1e9)

    def _arm(self, name: str, delay_s: float, action: Callable[[], None]) -> None:
        if before := self._timers.get(name):
            before.cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, action)

    def _arm_tick(self) -> None:
        self._arm("tick", self._settings.tick_s, self._tick)

    def _tick(self) -> None:
        now_ns = boottime_ns()
        ticks, was_paused = ticks_due(
            now_ns - self._ticked_ns,
            self._tick_ns,
            is_leader=self._node.role is Role.LEADER,
            leader_max=self._raft.election_ticks_max + CATCH_UP_TICKS_MAX,
        )
        if was_paused:
            self.counters.stalls += 1
            self._ticked_ns = now_ns
        else:
            self._ticked_ns += ticks * self._tick_ns
        for _ in range(ticks):
            self._node.tick()
        self._arm_tick()
        self._kick()

    def _campaign(self, attempts_left: int) -> None:
        if self._node.leader is not None:
            return
        self.counters.elections += 1
        self._node.campaign(after_crash=True)
        if attempts_left:
            pause_s = CHANCE.uniform(*self._settings.recampaign_s)
            self._arm("campaign", pause_s, partial(self._campaign, attempts_left - 1))
        self._kick()

    async def _in_time(self, future: "asyncio.Future[T]", timeout_s: float, what: str) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise NoLeader(
                f"{what} within {timeout_s} s; try again", leader=self._node.leader or ""
            ) from None

    # ---- turn -----------------------------------------------------------------------

    def _kick(self) -> None:
        """Have a turn in the next iteration of the event loop."""
        if self._is_running and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        if self._ended.is_set():
            return
        try:
            self._start_reads()
            if not self._is_storing and self._node.has_ready():
                self._begin(self._node.ready())
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the driver
            self._fail(error)

    def _start_reads(self) -> None:
        request = self._reads.start_round()
        if request is not None:
            try:
                self._node.read_index(request)
            except TrellisError as error:
                self._reads.refuse(error)

    def _begin(self, ready: Ready) -> None:
        """Send what may leave at once, and store what must be durable."""
        if ready.soft_state:
            self._note_role(ready.soft_state)
        self._send(ready.messages)
        if not ready.must_sync:
            self._late_hard_state = ready.hard_state or self._late_hard_state
            self._finish(ready)
            return
        stored = ready if ready.hard_state else replace(ready, hard_state=self._late_hard_state)
        self._late_hard_state = None
        self._is_storing = True
        self._writer.submit(partial(self._store.save, stored), partial(self._stored, ready))

    def _send(self, messages: Sequence[Message]) -> None:
        if messages:
            self._rounds.note(messages, boottime_ns())
            self._network.send(messages)

    def _stored(self, ready: Ready, error: BaseException | None) -> None:
        if self._ended.is_set():
            return
        if error is not None:
            self._fail(error)
            return
        self._is_storing = False
        self.counters.note_fsync(self._store.fsync_s)
        try:
            self._finish(ready)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it ends the driver
            self._fail(raised)

    def _finish(self, ready: Ready) -> None:
        """All of *ready* is durable: keep its promises, apply, answer."""
        self._send(ready.messages_after_durable)
        if ready.snapshot:
            self._install(ready.snapshot)
        for entry in ready.committed:
            self._apply(entry)
        for read in ready.reads:
            self._reads.confirmed(read.request, read.index)
        if ready.reads_lost:
            self._reads.lost(ready.reads_lost, not_leader(self._node.leader))
        self._node.advance(ready)
        if ready.committed or ready.snapshot:
            self._applied.reached(self._node.applied)
            self._compact_if_due()
        self._conditions.check()
        self._kick()

    def _note_role(self, soft: SoftState) -> None:
        counters = self.counters
        if soft.role is Role.CANDIDATE:
            counters.elections += 1
        if soft.leader is not None:
            counters.leader_changes += 1
        if soft.role is Role.LEADER:
            self._led_term = soft.term
        elif self._led_term is not None:
            reason = f"{self.id} no longer leads and did not learn the command's fate"
            lost = partial(self._proposals.give_up, reason, to_term=self._led_term)
            self._arm("lost", self._settings.lost_grace_s, lambda: self._count_unknown(lost()))
            self._led_term = None
        for observer in self._observers:
            observer.role_changed(soft)

    def _count_unknown(self, count: int) -> None:
        self.counters.proposals_unknown += count

    # ---- state machine --------------------------------------------------------------

    def _apply(self, entry: Entry) -> None:
        outcome: object = None
        if entry.kind is EntryKind.COMMAND:
            if self.id not in self._node.membership.witnesses:
                outcome = self._machine.apply(entry.index, entry.data)
                for observer in self._observers:
                    observer.command_applied(entry.index, outcome)
        elif entry.kind is EntryKind.MEMBERSHIP:
            for observer in self._observers:
                observer.membership_changed(Membership.decode(entry.data))
        self._bytes_since_snapshot += len(entry.data)
        self.counters.entries_applied += 1
        self._proposals.applied(entry.id, outcome)

    def _install(self, snapshot: Snapshot) -> None:
        last = snapshot.meta.last.index
        self._machine.restore(snapshot.data)
        self._snapshot_index, self._bytes_since_snapshot = last, 0
        self.counters.snapshots_installed += 1
        self._count_unknown(self._proposals.give_up("a snapshot replaced the log", to_index=last))
        for observer in self._observers:
            observer.membership_changed(snapshot.meta.membership)

    def _compact_if_due(self) -> None:
        """Take a snapshot when the log has grown enough; its bytes are written beside the log's thread."""
        settings, applied = self._settings, self._node.applied
        is_due = (
            applied - self._snapshot_index >= settings.snapshot_entries
            or self._bytes_since_snapshot >= settings.snapshot_bytes
        )
        if not is_due or self._is_compacting:
            return
        snapshot = self._node.compact(applied, self._machine.snapshot())
        self._is_compacting = True
        self._snapshot_index, self._bytes_since_snapshot = applied, 0
        self._bulk_writer.submit(
            partial(self._store.stage_snapshot, snapshot), partial(self._staged, snapshot)
        )

    def _staged(self, snapshot: Snapshot, error: BaseException | None) -> None:
        if self._ended.is_set():
            return
        if error is not None:
            self._fail(error)
            return
        self._writer.submit(partial(self._store.save_snapshot, snapshot), self._compacted)

    def _compacted(self, error: BaseException | None) -> None:
        self._is_compacting = False
        self.counters.snapshots_taken += 1
        if error is not None:
            self._fail(error)
