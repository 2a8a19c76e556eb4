"""One member's consensus, put together: driver, connections, and the way to the leader.

What the rest of a sidecar uses: propose and read from any host, without knowing
who leads. Absent here: what the connections are made of (grpc_consensus.py).
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from mesh import failpoints
from mesh.driver import RaftDriver
from mesh.errors import Draining, NoLeader, NotLeader, OutcomeUnknown, QueueFull, TrellisError, Unavailable
from mesh.ids import Index, MemberId, Term
from mesh.ports import LeaderServices, OutcomeCodec, Transport
from mesh.raft.model import Entry, Membership, Role, SoftState
from mesh.waiting import PendingReads

#: What an operator can do when nobody leads.
MAJORITY = "a majority of the voters must run and reach each other (trellis status shows this host's view)"
#: A former leader may still answer for so long after another was heard of.
FORMER_LEADER_GRACE_S = 0.3
#: Drawn pause before an attempt is repeated while a leader is known.
RETRY_PAUSE_S = (0.005, 0.025)
#: One attempt to have a read confirmed by the leader of the moment.
READ_ATTEMPT_S = 1.0

#: Certainly not done, and worth another attempt.
_AGAIN = (NotLeader, QueueFull, Unavailable)


class Consensus:
    """This member's part in the Raft group, and the group's services from here.

    Order: `run` around everything else.
    """

    def __init__(
        self, *, driver: RaftDriver, codec: OutcomeCodec, transport: Transport, client: LeaderServices
    ) -> None:
        self.driver = driver
        #: Called with what ended the driver; `run` then waits to be cancelled.
        self.on_failed: Callable[[Exception], None] | None = None
        #: All other members with an address.
        self.others: tuple[MemberId, ...] = ()
        self._codec = codec
        self._transport = transport
        self._client = client
        self._reads = PendingReads()
        self._reads_wanted = asyncio.Event()
        driver.add_observer(_FormerLeaders(self._client))

    def set_peers(self, addresses: Mapping[MemberId, str]) -> None:
        """All members' mesh addresses, from now on; this member's own is left out."""
        self.others = tuple(sorted(each for each in addresses if each != self.driver.id))
        self._transport.set_peers(addresses)

    async def run(self) -> None:
        """Take part until the driver ends. Fails: as `RaftDriver.run`."""
        try:
            await self._run()
        except BaseExceptionGroup as group:
            raise _first_of(group) from group

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(self._transport.run(), name="transport"),
                tasks.create_task(self._client.run(), name="leader-client"),
                tasks.create_task(self._confirm_reads(), name="reads"),
            ]
            try:
                await self._drive()
            finally:
                for task in others:
                    task.cancel()
                self._reads.refuse_all(Draining("this sidecar is stopping; ask another host"))

    async def _drive(self) -> None:
        """Run the driver; with `on_failed`, its failure is told at once and the connections are left alone.

        The process has better things to do then than to take them down one by one.
        """
        try:
            await self.driver.run(self._transport)
        except Exception as error:
            if self.on_failed is None:
                raise
            self.on_failed(error)
            await asyncio.Event().wait()

    def stop(self) -> None:
        """End `run`."""
        self.driver.stop()

    @property
    def applied(self) -> Index:
        return self.driver.applied

    # ---- propose --------------------------------------------------------------------

    async def propose_anywhere(
        self, data: bytes, *, timeout_s: float, repeatable: bool
    ) -> tuple[Index, object]:
        """Have a command applied, whoever leads; its index and outcome.

        Tried again until the timeout while it was certainly not done; with *repeatable*
        (it carries a session) also when that is unknown.
        Fails: refusals of the log; `NoLeader`, `NotLeader`; `OutcomeUnknown`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        unknown: OutcomeUnknown | None = None
        failure: TrellisError = NoLeader(f"no leader was known for {timeout_s:.1f} s; {MAJORITY}")
        while (left_s := deadline - loop.time()) > 0:
            try:
                return await self._propose_once(data, left_s)
            except OutcomeUnknown as error:
                if not repeatable:
                    raise
                unknown = error
            except _AGAIN as error:
                failure = error
            except TrellisError as error:
                if unknown is None:
                    raise
                # this attempt was refused for certain; what became of an earlier one is not known by that
                raise unknown from error
            try:
                await self._pause(deadline - loop.time())
            except Draining as error:
                raise unknown or error from None
        raise unknown or failure

    async def propose_in_term(self, data: bytes, *, term: Term, timeout_s: float) -> tuple[Index, object]:
        """Have a command appended by this member as the leader of *term*, or not at all.

        For what a leader decided from knowledge of its own term (leases): in another
        term, or on another leader, it may be wrong.
        Fails: `NotLeader`, and as `RaftDriver.propose`.
        """
        if self.driver.role is not Role.LEADER or self.driver.term != term:
            raise NotLeader(
                f"this member does not lead term {term} any more", leader=self.driver.leader or ""
            )
        return await self.driver.propose(data, timeout_s=timeout_s)

    async def _propose_once(self, data: bytes, timeout_s: float) -> tuple[Index, object]:
        if self.driver.role is Role.LEADER:
            return await self.driver.propose(data, timeout_s=timeout_s)
        leader = self.driver.leader
        if leader is None:
            raise NoLeader(f"no leader is known; {MAJORITY}")
        await failpoints.passing("consensus.forward.before")
        index, outcome = await self._client.propose(leader, data, timeout_s=timeout_s)
        await failpoints.passing("consensus.forward.answered")
        return index, self._codec.decode(outcome)

    async def _pause(self, left_s: float) -> None:
        """Until it makes sense to try again: a leader is known, and a moment has passed."""
        if left_s <= 0:
            return
        if self.driver.leader is None:
            try:
                await self.driver.wait_leader(timeout_s=left_s)
            except NoLeader:
                return
        else:
            await asyncio.sleep(min(left_s, self.driver.chance.uniform(*RETRY_PAUSE_S)))

    # ---- read -----------------------------------------------------------------------

    async def read_barrier(self, *, timeout_s: float) -> Index:
        """Wait until this host has applied everything acknowledged before the call.

        Fails: `NoLeader` when no quorum confirmed it in time; `QueueFull`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        read = self._reads.add()
        self._reads_wanted.set()
        try:
            async with asyncio.timeout_at(deadline):
                index = await read
        except TimeoutError:
            leader = self.driver.leader or ""
            raise NoLeader(
                f"no quorum confirmed the read within {timeout_s:.1f} s; {MAJORITY}", leader=leader
            ) from None
        return await self.driver.wait_applied(index, timeout_s=deadline - loop.time())

    async def _confirm_reads(self) -> None:
        """One question to the leader for all reads that came before it."""
        while True:
            await self._reads_wanted.wait()
            self._reads_wanted.clear()
            while (request := self._reads.start_round()) is not None:
                while self._reads.is_asked:
                    try:
                        index = await self._read_once()
                        failpoints.hit("consensus.read.confirmed")
                        self._reads.confirmed(request, index)
                    except _AGAIN:
                        with contextlib.suppress(Draining):  # `run` is about to end
                            await self._pause(READ_ATTEMPT_S)
                self._reads.end_round()

    async def _read_once(self) -> Index:
        if self.driver.role is Role.LEADER:
            return await self.driver.read_index(timeout_s=READ_ATTEMPT_S)
        leader = self.driver.leader
        if leader is None:
            raise NoLeader("no leader is known; try again shortly")
        await failpoints.passing("consensus.read.before-ask")
        return await self._client.read_index(leader, timeout_s=READ_ATTEMPT_S)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error itself: there is rarely more than one, and the first one is the reason."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


class _FormerLeaders:
    """Sees to it that nobody waits for long for the answer of a leader that has been replaced."""

    def __init__(self, client: LeaderServices) -> None:
        self._client = client

    def role_changed(self, soft: SoftState) -> None:
        if soft.leader is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(FORMER_LEADER_GRACE_S, self._client.abandon_all_but, soft.leader)

    def entries_committed(self, entries: Sequence[Entry]) -> None:
        pass

    def membership_changed(self, membership: Membership) -> None:
        pass

    def crash_proven(self, member: MemberId) -> None:
        pass
