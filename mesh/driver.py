"""The loop that owns a `RawNode`: disk, network and state machine on one side, callers on the other.

Every input (message, tick, proposal, read) goes into the node at once. What a message makes
ready is taken at once too; after other inputs one turn of the event loop later, so that what
came in together is stored and sent together. Inputs during a write make up the next batch.

Order: as `Ready` says. Nothing that a promise depends on leaves before the
write it depends on is durable; a failed write ends the driver at once.
Absent here: connections (adapters.transport), the write (adapters.sqlite_log), forwarding (consensus.py).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from mesh import failpoints
from mesh.applying import Applier
from mesh.counters import ConsensusCounters
from mesh.errors import Draining, NoLeader, OutcomeUnknown, TrellisError
from mesh.ids import Index, MemberId, Term
from mesh.pacing import DriverSettings as DriverSettings
from mesh.pacing import LeaderHeard, Ticker
from mesh.ports import DriverObserver, LogStore, Network, StateMachine
from mesh.raft import RawNode
from mesh.raft.model import HardState, Membership, Message, RaftSettings, Ready, Role, Standing, Status
from mesh.rounds import RoundClock
from mesh.succession import Succession
from mesh.surroundings import MACHINE, Surroundings
from mesh.tenure import Tenure
from mesh.waiting import (
    Answer,
    Answered,
    Applied,
    AppliedWaiters,
    ConditionWaiters,
    PendingReads,
    in_time,
    not_leader,
)


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
        around: Surroundings = MACHINE,
    ) -> None:
        """Read the store and restore the state machine. Fails: `Corruption`, `StorageFailed`."""
        self.id, self.counters = raft.id, counters or ConsensusCounters()
        self._settings = settings or DriverSettings()
        self._store = store
        self._observers = list(observers)
        restored = store.load()
        self._around, self._now, self.chance = around, around.boottime_ns, around.chance
        self._node = RawNode(raft, restored, around.chance.randint)
        self._applier = Applier(
            node=self._node,
            machine=machine,
            store=store,
            settings=self._settings,
            counters=self.counters,
            observers=self._observers,
        )
        if restored.snapshot:
            self._applier.restore(restored.snapshot)
        self._proposals, self._check = self._applier.proposals, machine.check
        self._ticker = Ticker(
            self._settings.tick_s,
            period=raft.heartbeat_ticks,
            leader_max=raft.election_ticks_max,
            is_leader=lambda: self._node.role is Role.LEADER,
            tick=partial(self._guarded, self._node.tick),
            ticked=self._ticked,
            boottime_ns=self._now,
        )
        self.follow_pace = self._ticker.follow
        self._succession = Succession(self._node, self._settings, around.chance, self._kick)
        self._tenure = Tenure(self._proposals, self.counters, self._settings.lost_grace_s)
        self._late_hard_state: HardState | None = None
        self._is_storing = self._is_scheduled = self._is_running = False
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        self._reads = PendingReads()
        self._applied, self._conditions, self._rounds = AppliedWaiters(), ConditionWaiters(), RoundClock()
        self.leader_heard = LeaderHeard(self._now)

    def add_observer(self, observer: DriverObserver) -> None:
        """Tell *observer* too, after those before it."""
        self._observers.append(observer)

    # ---- life -----------------------------------------------------------------------

    async def run(self, network: Network) -> None:
        """Drive the node until `stop` or a failure.

        Cancellation: as `stop`. Waits at most `stop_grace_s` for the disk.
        """
        self._network = network
        self._writer = self._around.make_writer("log-writer")
        self._bulk_writer = self._around.make_writer("snapshot-writer")
        self._is_running = True
        self._ticker.start()
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
        self._ticker.stop()
        self._succession.stop()
        self._tenure.stop()
        gone = Draining("this sidecar is stopping; ask another host")
        self._proposals.give_up("this sidecar stopped before the command was applied")
        self._reads.refuse_all(gone)
        self._applied.refuse_all(gone)
        self._conditions.refuse_all(gone)
        await failpoints.passing("driver.stopping")
        grace_s = self._settings.stop_grace_s
        is_idle = await self._bulk_writer.close(grace_s=grace_s) & await self._writer.close(grace_s=grace_s)
        if is_idle:
            if self._late_hard_state and self._failure is None:
                self._store.save(Ready(hard_state=self._late_hard_state, must_sync=True))
            self._store.close()

    # ---- input ----------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """Take in a message from the network; what follows from it leaves at once."""
        self._guarded(self._take_in, message)

    def _take_in(self, message: Message) -> None:
        self._node.step(message)
        if message.sender == self._node.leader:
            self.leader_heard.note(message)
        if self._is_running and not self._ended.is_set():
            self._turn()

    def submit(self, data: bytes, answered: Answered) -> None:
        """Append a command and have *answered* called once its fate is known.

        Fails: `NotLeader`, `QueueFull`, `Unavailable`, `UnknownCommand`; then *answered* is never called.
        """
        self._proposals.check_room()
        self._check(data)
        entry = self._node.propose(data)
        failpoints.hit("driver.proposal.appended")
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
            raise OutcomeUnknown(f"no quorum confirmed the command within {timeout_s:.1f} s") from None
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
        return await in_time(read, timeout_s, "no quorum confirmed this leader")

    def lease_read_index(self) -> Index | None:
        """The same without asking, while the leader's lease holds; None: use `read_index`.

        Counts the time that has passed first, so that a process that was stopped does not
        believe in the lease it had before.
        """
        self._ticker.catch_up()
        return self._node.lease_read_index()

    async def wait_applied(self, index: Index, *, timeout_s: float) -> Index:
        """Wait until the state machine here has applied *index*. Fails: `NoLeader`."""
        if self._node.applied >= index:
            return self._node.applied
        return await in_time(self._applied.add(index), timeout_s, f"index {index} was not applied")

    async def wait_until(self, condition: Callable[[Status], bool], *, timeout_s: float) -> None:
        """Wait until *condition* holds for this member. Fails: `NoLeader` after the timeout."""
        if not condition(self._node.status()):
            future = self._conditions.add(condition)
            await in_time(future, timeout_s, "the member did not get there")

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
        failpoints.hit("driver.transfer.begun")
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
        failpoints.hit("driver.crash.reported")
        if led:
            self._succession.leader_died(member)
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
            return self._now()
        return self._rounds.confirmed_at(self._node.term, confirmed)

    # ---- turn -----------------------------------------------------------------------

    def _ticked(self, was_paused: bool) -> None:
        self.counters.stalls += was_paused
        self._kick()

    def _kick(self) -> None:
        """Have a turn in the next iteration of the event loop."""
        if self._is_running and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._guarded, self._turn)

    def _guarded(self, act: Callable[..., None], *given: object) -> None:
        """Do a part of the loop's work, unless the driver has ended. Whatever fails ends it."""
        if not self._ended.is_set():
            try:
                act(*given)
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends the driver
                self._fail(error)

    def _turn(self) -> None:
        self._is_scheduled = False
        self._start_reads()
        if not self._is_storing and self._node.has_ready():
            self._begin(self._node.ready())

    def _start_reads(self) -> None:
        request = self._reads.start_round()
        if request is not None:
            try:
                self._node.read_index(request)
            except TrellisError as error:
                self._reads.refuse(error)

    def _begin(self, ready: Ready) -> None:
        """Send what may leave at once, and store what must be durable."""
        failpoints.hit("driver.turn.before-send")
        if ready.soft_state:
            self._tenure.role_changed(ready.soft_state)
            for observer in self._observers:
                observer.role_changed(ready.soft_state)
        self._send(ready.messages)
        if not ready.must_sync:
            self._late_hard_state = ready.hard_state or self._late_hard_state
            self._finish(ready)
            return
        late, self._late_hard_state = self._late_hard_state, None
        stored = replace(ready, hard_state=late) if late and not ready.hard_state else ready
        save, then = partial(self._store.save, stored), partial(self._stored, ready)
        self._is_storing = True
        failpoints.hit("driver.turn.before-save")
        self._writer.submit(save, then, yields=bool(ready.messages))

    def _send(self, messages: Sequence[Message]) -> None:
        if messages:
            self._rounds.note(messages, self._now())
            self._network.send(messages)

    def _stored(self, ready: Ready, error: BaseException | None) -> None:
        self._is_storing = False
        self.counters.note_fsync(self._store.fsync_s)
        failpoints.hit("driver.turn.after-save")
        if error is not None:
            self._fail(error)
        self._guarded(self._finish, ready)

    def _finish(self, ready: Ready) -> None:
        """All of *ready* is durable: keep its promises, apply, answer."""
        self._send(ready.messages_after_durable)
        failpoints.hit("driver.turn.after-promises")
        if ready.snapshot:
            self._applier.install(ready.snapshot)
        self._applier.apply(ready.committed)
        for read in ready.reads:
            self._reads.confirmed(read.request, read.index)
        if ready.reads_lost:
            self._reads.lost(ready.reads_lost, not_leader(self._node.leader))
        failpoints.hit("driver.turn.before-advance")
        self._node.advance(ready)
        if ready.committed or ready.snapshot:
            self._applied.reached(self._node.applied)
            self._applier.compact_if_due(self._writer, self._bulk_writer, self._fail)
        self._conditions.check(self._node.status)
        failpoints.hit("driver.turn.done")
        if self._node.has_ready():
            self._kick()
