"""This host's member of the consensus, and the leadership that comes and goes with it.

Also remembers what a leadership must know of how it came about (mesh.lease
calls it the election): who was heard leading which term, and when each
append-heartbeat round was sent on a clock that runs on while the host sleeps.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from mesh import failpoints
from mesh.driver import RaftDriver
from mesh.ids import HostId, Index, MemberId, Term, host_of
from mesh.lease.model import ElectedBy, Election
from mesh.raft.model import Entry, Membership, Role, SoftState, Standing
from sidecar.app.transitions import Transitions
from sidecar.leadership.driver import LeaderDuty

LOG = structlog.get_logger(__name__)

TERMS_REMEMBERED_MAX: Final = 16
ELECTED_BY: Final = {
    Standing.TIMEOUT: ElectedBy.TIMEOUT,
    Standing.CRASH_PROOF: ElectedBy.CRASH_PROOF,
    Standing.TRANSFER: ElectedBy.TRANSFER,
}


class Node:
    """Observes the driver; makes a `LeaderDuty` for each leadership and ends it with it."""

    def __init__(
        self,
        *,
        member: MemberId,
        driver: RaftDriver,
        make_duty: Callable[[Election, Index], LeaderDuty],
        on_change: Callable[[], None],
        on_elected: Callable[[SoftState, ElectedBy], None],
        transitions: Transitions,
        boottime_ns: Callable[[], int],
    ) -> None:
        self.member = member
        self.driver = driver
        self._make_duty = make_duty
        self._on_change = on_change
        self._on_elected = on_elected
        self._transitions = transitions
        self._now = boottime_ns
        self._leaders: OrderedDict[Term, MemberId] = OrderedDict()
        self._last_term = driver.status().last.term
        self._leading: Term | None = None
        self._serve_from = Index(0)
        self._crashed: OrderedDict[MemberId, int] = OrderedDict()
        self._tasks: asyncio.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None
        self.duty: LeaderDuty | None = None

    async def run(self) -> None:
        """Keep the leadership's loop going while there is one; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._start_duty()
            await asyncio.Event().wait()

    @property
    def leader(self) -> MemberId | None:
        """Who leads, as far as known here."""
        return self.driver.leader

    @property
    def role(self) -> Role:
        """This member's Raft role."""
        return self.driver.role

    @property
    def term(self) -> Term:
        """This member's Raft term."""
        return self.driver.term

    @property
    def applied(self) -> Index:
        """Index applied here."""
        return self.driver.applied

    def leading_host(self) -> HostId | None:
        """The host that leads, as far as known here."""
        return host_of(self.leader) if self.leader is not None else None

    def applied_index(self, host: HostId) -> int:
        """How far a host has the log, as known here: of others the leader knows; 0 when unknown."""
        if host == host_of(self.member):
            return int(self.applied)
        peers = {host_of(peer.id): int(peer.matched) for peer in self.driver.status().peers}
        return peers.get(host, 0)

    def wake_duty(self) -> None:
        """Something of this host changed that a leader decides from."""
        if self.duty is not None:
            self.duty.wake()

    def quorum_confirmed_at(self) -> int | None:
        """On the leader: when the newest round that a quorum confirmed was sent, CLOCK_BOOTTIME.

        None until an entry of this term is applied: before that the applied state may be an
        older one than what was committed, and a lease must not go with it.
        """
        if self.duty is None or self.driver.applied < self._serve_from:
            return None
        return self.driver.quorum_confirmed_at()

    def beat_age_ns(self, host: HostId) -> int | None:
        """As the leader knows it; None elsewhere."""
        return None if self.duty is None else self.duty.beat_age_ns(host)

    # ---- what the driver tells ------------------------------------------------------

    def role_changed(self, soft: SoftState) -> None:
        """Role, leader or term is another."""
        self._transitions.role_changed(soft)
        if soft.leader is not None and soft.leader != self.member:
            self._leaders[soft.term] = soft.leader
            while len(self._leaders) > TERMS_REMEMBERED_MAX:
                self._leaders.popitem(last=False)
        if soft.role is Role.LEADER:
            if self._leading != soft.term:
                self._end_duty()
                self._lead(soft)
        else:
            self._end_duty()
            self._last_term = self.driver.status().last.term
        self._on_change()

    def entries_committed(self, entries: Sequence[Entry]) -> None:
        """Entries are about to be applied. What they change is told by the replica (see Core)."""

    def membership_changed(self, membership: Membership) -> None:
        """A membership was committed."""
        LOG.info("membership", voters=membership.voters, learners=membership.learners)
        if self.duty is not None:
            self.duty.wake()

    def crash_proven(self, member: MemberId) -> None:
        """Another sidecar is certainly dead."""
        LOG.warning("crash-proven", member=member)
        self._transitions.crash_proven(member)
        now = self._now()
        self._crashed[member] = now
        while len(self._crashed) > TERMS_REMEMBERED_MAX:
            self._crashed.popitem(last=False)
        if self.duty is not None:
            self.duty.crash_proven(member, now)

    # ---- leadership -----------------------------------------------------------------

    def _lead(self, soft: SoftState) -> None:
        failpoints.hit("node.leading")
        self._leading = soft.term
        elected_by = ELECTED_BY[self.driver.stood_for]
        heard = self._leaders.get(self._last_term)
        election = Election(
            at=self._now(),
            by=elected_by,
            predecessor=host_of(heard) if heard is not None else None,
            predecessor_heard_at=self.driver.leader_heard.at_ns,
        )
        self._serve_from = self.driver.status().last.index
        self.duty = self._make_duty(election, self._serve_from)
        for crashed, at in self._crashed.items():
            self.duty.crash_proven(crashed, at)
        self._on_elected(soft, elected_by)
        self._start_duty()

    def _start_duty(self) -> None:
        if self._tasks is not None and self.duty is not None and self._task is None:
            self._task = self._tasks.create_task(self.duty.run(), name=f"leader:{self._leading}")

    def _end_duty(self) -> None:
        self._leading = None
        self.duty = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
