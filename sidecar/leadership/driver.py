"""The leader's loop: observe the hosts, decide, propose. One `LeaderDuty` per leadership.

Everything known here and not replicated (who beat when, what is reported but
not yet committed) dies with the leadership; the next leader starts from the
applied state and the beats that reach it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from enum import Enum
from typing import Protocol

import structlog

from mesh import failpoints
from mesh.errors import InvariantBroken, OutcomeUnknown, TrellisError
from mesh.ids import FencingTerm, HostId, Index, MemberId, OwnedName, Term, host_of
from mesh.lease import hosts as verdicts
from mesh.lease.grantor import LeaseTable
from mesh.lease.model import (
    Assign,
    Decision,
    Election,
    HostStanding,
    OwnershipView,
    Verdict,
    VerdictChange,
    WaitUntil,
)
from mesh.lease.model import Unassign as UnassignDecision
from mesh.lease.ownership import decide_ownerships
from mesh.lease.plan import UNPLANNED, Planner
from mesh.lease.timers import LeaseTimers
from mesh.state import ClusterState
from mesh.state.commands import Applied, AssignOwner, SingleCommand, Unassign
from mesh.state.database_model import DatabaseStatus
from mesh.state.service import InstanceStatus
from mesh.waiting import wake_or_wait
from sidecar.leadership import decide
from sidecar.leadership.reports import Reports

LOG = structlog.get_logger(__name__)

PROPOSE_TIMEOUT_S = 2.0
#: Membership is looked at after every change, and each so many heartbeats: a learner catches up unseen.
MEMBERSHIP_PACES = 4


class Replicated(Protocol):
    """The replicated state and how to change it."""

    @property
    def state(self) -> ClusterState: ...
    @property
    def applied(self) -> Index: ...
    @property
    def term(self) -> Term: ...
    def quorum_confirmed_at(self) -> int | None:
        """When the newest confirmed append-heartbeat round was sent, CLOCK_BOOTTIME ns."""

    async def propose(self, command: SingleCommand, *, timeout_s: float) -> Applied:
        """Have a command applied."""

    async def wait_applied(self, index: Index) -> None:
        """Return once `index` is applied here, or after a while."""


class Own(Protocol):
    """The leader's own host, which does not beat to itself."""

    #: This sidecar is about to end: nothing is to be given to its host.
    leaving: bool

    def instances(self) -> tuple[InstanceStatus, ...]: ...
    def releases(self) -> tuple[tuple[OwnedName, FencingTerm], ...]:
        """What this host has stopped acting for and will not act for again."""


class Fate(Enum):
    """What became of a proposal."""

    DONE = "done"
    #: Certainly not applied, now or later.
    REFUSED = "refused"
    #: It may still be applied.
    OPEN = "open"


class LeaderDuty:
    """What this host does because it leads, for one term.

    Order: nothing is granted or decided before an entry of this term is applied
    (`serve_from`), so the state decided from holds all that was committed before.
    """

    def __init__(
        self,
        *,
        host: HostId,
        member: MemberId,
        election: Election,
        timers: LeaseTimers,
        replicated: Replicated,
        own: Own,
        own_database: Callable[[], DatabaseStatus | None],
        serve_from: Index,
        extra_commands: Callable[[ClusterState, Collection[HostId]], tuple[SingleCommand, ...]],
        change_membership: Callable[[], Awaitable[None]],
        boottime_ns: Callable[[], int],
        database: Planner = UNPLANNED,
    ) -> None:
        self._host = host
        self._member = member
        self._timers = timers
        self._replicated = replicated
        self._own = own
        self._own_database = own_database
        self._serve_from = serve_from
        self._extra_commands = extra_commands
        self._change_membership = change_membership
        self._now = boottime_ns
        self._database = database
        self._election = election
        #: When something that is waited for may be decided; None: nothing is waited for.
        self._decide_at: int | None = None
        #: The last round had something to decide or to say, so there may be more.
        self._is_busy = True
        self._own_releases: tuple[tuple[OwnedName, FencingTerm], ...] = ()
        self._leases = LeaseTable(host, election, timers)
        #: The index up to which the lease table knows the ownerships.
        self._looked_at: Index | None = None
        self._standings: dict[HostId, HostStanding] = {}
        self._reports = Reports()
        #: Reports and state that were compared last and agreed: nothing to say until one changes.
        self._agreed: tuple[int, Index] | None = None
        self._wake = asyncio.Event()
        self._paces = 0
        self._membership_due = asyncio.Event()
        self._sources: dict[HostId, int] = {}
        #: Hosts whose sidecar is about to end, by their own word: nothing is given to them.
        self._leaving: set[HostId] = set()
        #: Changes of owner whose fate is open, by the fencing term they expect: while one may
        #: still be applied, the refusal of a repetition opens no grants.
        self._open: dict[OwnedName, FencingTerm] = {}

    # ---- what hosts say -------------------------------------------------------------

    def wake(self) -> None:
        """Something changed: decide now."""
        self._wake.set()
        self._membership_due.set()

    def paced(self) -> None:
        """The time between two heartbeats has passed: decide, if looking shows that there is a reason."""
        if not self._is_settled():
            self._wake.set()
        self._paces += 1
        if self._paces % MEMBERSHIP_PACES == 0:
            self._membership_due.set()

    def beat(
        self,
        member: MemberId,
        *,
        source: int,
        applied: Index,
        statuses: tuple[InstanceStatus, ...],
        complete: bool,
        releases: tuple[tuple[OwnedName, FencingTerm], ...],
        draining: bool = False,
        database: DatabaseStatus | None = None,
    ) -> bool:
        """Take in one beat; True when the host's lease is extended.

        `source` tells streams apart: the first beat of a new stream may be of a
        new process, which promises nothing an earlier one did.
        """
        host, now = host_of(member), self._now()
        row = self._replicated.state.member_of(host)
        if row is None or row.member != member:
            return False
        known = self._sources.get(host, 0)
        if source < known:
            return False  # a late beat of a stream that has been replaced
        if source > known:
            self._sources[host] = source
            self._leaving.discard(host)
            self._leases.process_started(host)
        standing = self._standings.get(host) or verdicts.opened(host, now, self._verdict(host))
        self._standings[host] = verdicts.heard(standing, now, self._timers)
        news = self._reports.take(host, member, statuses, complete=complete, database=database)
        for name, term in releases:
            self._leases.released(host, name, term)
        if draining:
            self._leaving.add(host)
        if news or releases or standing.verdict is not Verdict.ALIVE:
            self._wake.set()
        failpoints.hit("duty.beat.before-grant")
        is_granted = self._ready() and self._leases.grant(
            host, now, quorum_confirmed_at=self._replicated.quorum_confirmed_at(), applied_index=applied
        )
        if is_granted:
            failpoints.hit("duty.beat.granted")
        return is_granted

    def crash_proven(self, member: MemberId, at: int) -> None:
        """The sidecar of `member` was dead at `at`, CLOCK_BOOTTIME; it may have beaten since."""
        host, now = host_of(member), self._now()
        row = self._replicated.state.member_of(host)
        if row is None or row.member != member or host == self._host:
            return
        self._leases.crash_proven(host, at)
        standing = self._standings.get(host) or verdicts.opened(host, now, self._verdict(host))
        if now - at <= self._timers.lease_ns:
            self._standings[host] = verdicts.crashed(standing, at)
        self._wake.set()

    def beat_age_ns(self, host: HostId) -> int | None:
        """How long ago a host last beat; None when it has not beaten to this leadership."""
        standing = self._standings.get(host)
        return None if standing is None else self._now() - standing.last_beat

    # ---- the loop -------------------------------------------------------------------

    async def run(self) -> None:
        """Decide until cancelled, on every news and at least once per heartbeat.

        A change of membership may take long, and ownerships do not wait for it.
        """
        await self._replicated.wait_applied(self._serve_from)
        await failpoints.passing("duty.begun")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._step, self._wake, self._pause_s), name="leader:decide")
            tasks.create_task(
                self._repeat(self._change_membership, self._membership_due, lambda: None),
                name="leader:membership",
            )
            tasks.create_task(self._database.run(), name="leader:database")

    async def _repeat(
        self, act: Callable[[], Awaitable[None]], due: asyncio.Event, pause_s: Callable[[], float | None]
    ) -> None:
        while True:
            due.clear()
            if self._ready():
                await act()
            await wake_or_wait(due, pause_s())

    def _pause_s(self) -> float | None:
        """Until a decision that waits for its moment; none when that came while proposals were under way."""
        return None if self._decide_at is None else max(0, self._decide_at - self._now()) / 1e9

    def _is_settled(self) -> bool:
        """Nothing was left to do, and neither time nor this host brings anything new."""
        now, own = self._now(), self._own
        verdict_at = verdicts.next_verdict_at(self._standings.values(), self._timers)
        return not (
            self._is_busy
            or (verdict_at is not None and now >= verdict_at)
            or (own.leaving and self._host not in self._leaving)
            or own.releases() != self._own_releases
            or self._take_own_report()
            or any(each.verdict is not Verdict.ALIVE for each in self._standings.values())
        )

    def _take_own_report(self) -> bool:
        """Note what this host says of itself; True when it is news."""
        instances, database = self._own.instances(), self._own_database()
        return self._reports.take(self._host, self._member, instances, complete=True, database=database)

    def _ready(self) -> bool:
        applied = self._replicated.applied
        if applied < self._serve_from:
            return False
        if applied != self._looked_at:
            self._looked_at = applied
            views = decide.ownership_views(self._replicated.state.owners.values())
            self._leases.state_applied(views, applied)
        return True

    async def _step(self) -> None:
        now, state = self._now(), self._replicated.state
        self._take_own_report()
        if self._own.leaving:
            self._leaving.add(self._host)
        self._own_releases = self._own.releases()
        for name, term in self._own_releases:
            self._leases.released(self._host, name, term)
        changes = self._judge(now)
        plan = self._database.plan(state, self._standings, self._leaving, now)
        situation = decide.situation(state, self._host, self._standings, self._leaving, plan)
        decisions = decide_ownerships(situation, self._leases, now)
        commands: list[SingleCommand] = [*decide.verdict_commands(state, changes)]
        commands += self._report_commands(state)
        waits = [each.at for each in decisions if isinstance(each, WaitUntil)]
        if plan is not None and plan.look_at is not None:
            waits.append(plan.look_at)
        self._decide_at = min(waits, default=None)
        failpoints.hit("duty.before-reserve")
        reserved = self._reserve(decisions, situation.ownerships, now)
        failpoints.hit("duty.reserved")
        commands += decide.ownership_commands(state, decisions, plan)
        crashed = [each.host for each in self._standings.values() if each.crashed_at is not None]
        commands += self._extra_commands(state, crashed)
        self._is_busy = bool(commands or decisions)
        if commands:
            await self._propose_all(commands, reserved)

    def _judge(self, now: int) -> tuple[VerdictChange, ...]:
        state = self._replicated.state
        for host in state.hosts:
            if host != self._host and host not in self._standings:
                self._standings[host] = decide.first_standing(host, now, self._verdict(host), self._election)
        for host in [host for host in self._standings if host not in state.hosts]:
            del self._standings[host]
            self._reports.forget(host)
        kept, changes = verdicts.decide_hosts(self._standings.values(), now, self._timers)
        self._standings = {standing.host: standing for standing in kept}
        # A verdict whose proposal came to nothing is proposed again.
        told = {change.host for change in changes}
        changes += tuple(
            VerdictChange(each.host, self._verdict(each.host), each.verdict, "as found before")
            for each in kept
            if each.host not in told and each.verdict is not self._verdict(each.host)
        )
        own = state.hosts.get(self._host)
        if own is not None and self._verdict(self._host) is not Verdict.ALIVE:
            changes += (VerdictChange(self._host, self._verdict(self._host), Verdict.ALIVE, "it leads"),)
        return changes

    def _verdict(self, host: HostId) -> Verdict:
        record = self._replicated.state.hosts.get(host)
        return Verdict.ALIVE if record is None else decide.VERDICT_OF[record.status]

    def _report_commands(self, state: ClusterState) -> list[SingleCommand]:
        compared = (self._reports.revision, self._replicated.applied)
        if compared == self._agreed:
            return []
        commands: list[SingleCommand] = []
        for host, report in self._reports.items():
            command = decide.report_command(
                state, host, report.member, report.instances, complete=report.complete
            )
            of_database = decide.database_command(
                state, host, report.member, report.database, complete=report.complete
            )
            commands += [each for each in (command, of_database) if each is not None]
        # What was proposed and came to nothing is found again at the next comparison.
        self._agreed = None if commands else compared
        return commands

    def _reserve(
        self, decisions: tuple[Decision, ...], ownerships: tuple[OwnershipView, ...], now: int
    ) -> list[OwnedName]:
        """Close grants to holders that are about to lose something, before the proposal leaves."""
        present = {view.name: view for view in ownerships}
        reserved = []
        for decision in decisions:
            view = present.get(decision.name)
            if view is None:
                continue
            if isinstance(decision, Assign):
                self._leases.reserve(view, decision.holder, now)
                reserved.append(decision.name)
            elif isinstance(decision, UnassignDecision):
                self._leases.reserve(view, None, now)
                reserved.append(decision.name)
        return reserved

    async def _propose_all(self, commands: list[SingleCommand], reserved: list[OwnedName]) -> None:
        """Propose everything at once: they share one append and one fsync."""
        fates = await asyncio.gather(*(self._propose(command) for command in commands))
        for command, fate in zip(commands, fates, strict=True):
            if not isinstance(command, AssignOwner | Unassign) or command.name not in reserved:
                continue
            term = command.expected_fencing_term
            if fate is Fate.OPEN:
                self._open[command.name] = term
            elif fate is Fate.REFUSED and self._open.get(command.name) != term:
                self._leases.reservation_dropped(command.name)

    async def _propose(self, command: SingleCommand) -> Fate:
        """What became of it; the next round decides again from the new state."""
        try:
            await failpoints.passing("duty.before-propose")
            await self._replicated.propose(command, timeout_s=PROPOSE_TIMEOUT_S)
            await failpoints.passing("duty.proposed")
        except InvariantBroken:
            raise
        except OutcomeUnknown as error:
            LOG.info("proposal-open", command=type(command).__name__, error=str(error))
            return Fate.OPEN
        except TrellisError as error:
            LOG.info("proposal-refused", command=type(command).__name__, error=str(error))
            return Fate.REFUSED
        return Fate.DONE
