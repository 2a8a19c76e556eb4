"""The leader's part: who is to be primary, whom to seal for that, and when to hand over.

One object for each leadership. What hosts report of their WAL is asked for when it
is needed and dies with the leadership. Decisions are `failover`'s; what is
judged here is only how the present primary stands, over time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

import structlog

from mesh import failpoints
from mesh.errors import TrellisError
from mesh.ids import PRIMARY, FencingTerm, HostId, MemberId
from mesh.lease.model import HostStanding, Target, Verdict
from mesh.lease.plan import NamePlan
from mesh.state import ClusterState
from mesh.state.commands import EventDraft, RecordEvents, RequestRelease, SingleCommand
from mesh.state.database_checks import data_hosts
from mesh.state.database_model import NEVER_PRIMARY, DatabaseRecord, Lag, Wants
from mesh.state.model import Ownership
from sidecar.postgres.account import NS_PER_S, Account
from sidecar.postgres.failover import (
    FailoverStep,
    FailoverView,
    Standing,
    SuccessorView,
    decide_failover,
    target_of,
    why_no_switchover,
)
from sidecar.postgres.model import Lsn, SealReport, Timeline
from sidecar.postgres.telling import is_final
from sidecar.postgres.turns import turn_in

LOG = structlog.get_logger(__name__)

ASK_AGAIN_S: Final = 0.1
#: For so long a missing answer is no reason to tell people that nobody can be promoted.
ANSWER_S: Final = 3.0
#: Between two looks at what changes unseen.
LOOK_S: Final = 0.25

Seal = Callable[[HostId, FencingTerm], Awaitable[SealReport]]


class DatabaseLeading:
    """Plans the primaryship for one leadership. Fails: never; what cannot be had is asked again."""

    def __init__(self, host: HostId, seal: Seal, wake: Callable[[], None]) -> None:
        """*seal* a host; *wake* the loop that plans."""
        self._host = host
        self._seal = seal
        self._wake = wake
        self._account = Account()
        self._reports: dict[HostId, SealReport] = {}
        #: The member of each host when it was asked.
        self._said_by: dict[HostId, MemberId] = {}
        self._members: dict[HostId, MemberId] = {}
        self._to_seal: tuple[HostId, ...] = ()
        #: In a hand-over: the holder, and whom to ask as soon as it has answered, without another plan.
        self._handing: tuple[HostId, tuple[HostId, ...]] | None = None
        self._due = asyncio.Event()
        self._told = ""
        self._first_term: FencingTerm | None = None
        #: Why nobody is primary, or what is under way; empty when all is well.
        self.problem = ""

    # ---- planning -------------------------------------------------------------------

    def plan(
        self,
        state: ClusterState,
        standings: Mapping[HostId, HostStanding],
        leaving: Collection[HostId],
        now: int,
    ) -> NamePlan | None:
        """See Planner."""
        record = state.database
        if record is None:
            return None
        owner = state.owners.get(PRIMARY)
        if owner is None or owner.holder is None:
            return NamePlan(PRIMARY, Target(self._first_host(state, standings, leaving)))
        if self._first_term is None:
            self._first_term = owner.fencing_term
        if not record.is_bootstrapped and not self._is_alive(owner.holder, standings):
            return NamePlan(PRIMARY, Target(self._first_host(state, standings, leaving)))
        self._keep_account(state, owner.fencing_term)
        alive = tuple(host for host in data_hosts(state) if self._is_alive(host, standings))
        view = self._view(state, record, owner, alive, now)
        step = decide_failover(view)
        self._ask_to_seal(view, step, _left_behind(state, view))
        is_quiet = view.standing is Standing.WELL and step.chosen is None
        self.problem = self._account.complaint(owner.holder, now) if is_quiet else step.reason
        commands = (*self._journal(view, step, now), *self._move_away(state, view, leaving))
        is_watched = view.standing is not Standing.WELL or self._account.not_serving_since is not None
        is_watched = is_watched or view.successor is not None
        return NamePlan(
            PRIMARY,
            Target(target_of(view, step), renew=step.chosen == owner.holder),
            record.published.version if record.is_bootstrapped else None,
            record.primary_term if record.is_bootstrapped else None,
            commands,
            now + int(LOOK_S * NS_PER_S) if is_watched else None,
        )

    def _first_host(
        self,
        state: ClusterState,
        standings: Mapping[HostId, HostStanding],
        leaving: Collection[HostId],
    ) -> HostId | None:
        """Who makes the database: a host where data were restored, else one that carries PostgreSQL; the
        leader where it is one of them.
        """
        if state.database is not None and state.database.is_bootstrapped:
            return None
        able = [
            host
            for host in data_hosts(state)
            if host in state.database_members
            and self._is_alive(host, standings)
            and host not in leaving
            and not state.hosts[host].draining
        ]
        restored, left = data_before_bootstrap(state)
        self.problem = ""
        if len(restored) > 1:
            self.problem = (
                f"data were restored on {', '.join(restored)}: move them away on all but one of these hosts,"
                " and start its sidecar anew"
            )
            return None
        if restored:
            able = [host for host in able if host in restored]
            self.problem = "" if able else f"data were restored on {', '.join(restored)}, which is not there"
        elif left:
            self.problem = (
                f"{', '.join(left)} has data from before it joined this cluster: move them away and start its"
                " sidecar anew, or restore on one host"
            )
            return None
        return self._host if self._host in able else min(able, default=None)

    def _is_alive(self, host: HostId, standings: Mapping[HostId, HostStanding]) -> bool:
        if host == self._host:
            return True
        standing = standings.get(host)
        return standing is not None and standing.verdict is not Verdict.LOST and standing.crashed_at is None

    def _keep_account(self, state: ClusterState, term: FencingTerm) -> None:
        self._members = {row.host: row.member for row in state.hosts.values()}
        for host in [*self._reports]:
            if self._members.get(host) != self._said_by.get(host):
                # It was wiped and joined anew: its promise is forgotten there.
                del self._reports[host]
        if self._account.fencing_term != term:
            self._account = self._account.of_the_next(term)
            self._reports = {host: each for host, each in self._reports.items() if each.fencing_term >= term}
            self._to_seal, self._handing = (), None

    def _view(
        self,
        state: ClusterState,
        record: DatabaseRecord,
        owner: Ownership,
        alive: tuple[HostId, ...],
        now: int,
    ) -> FailoverView:
        assert owner.holder is not None
        row = state.database_members.get(owner.holder)
        standing = self._account.judge(record, owner, row.status if row is not None else None, alive, now)
        loss = record.accepted_loss
        return FailoverView(
            leader=self._host,
            data_hosts=data_hosts(state),
            alive=alive,
            holder=owner.holder,
            fencing_term=owner.fencing_term,
            standing=standing,
            system_identifier=record.system_identifier,
            timeline=Timeline(record.timeline),
            primary_term=record.primary_term,
            published=record.published,
            reports=dict(self._reports),
            accepted_loss=loss.fencing_term if loss is not None else NEVER_PRIMARY,
            successor=None if self._account.is_called_off else owner.successor,
        )

    # ---- what follows ---------------------------------------------------------------

    def _journal(self, view: FailoverView, step: FailoverStep, now: int) -> tuple[SingleCommand, ...]:
        """Each decision, and each reason why none can be taken, once."""
        if view.standing is Standing.WELL and step.chosen is None:
            self._told = ""
            return ()
        told = f"{view.fencing_term} {step.chosen} {step.reason}"
        if told == self._told or (step.chosen is None and self._is_waiting(view, now)):
            return ()
        self._told = told
        kind = "database-failover" if step.chosen is not None else "database-failover-refused"
        LOG.warning(kind, reason=step.reason, chosen=step.chosen, fencing_term=view.fencing_term)
        facts = {
            **dict(step.facts),
            "chosen": step.chosen or "",
            "loss_accepted": str(step.loss_accepted).lower(),
        }
        return (RecordEvents((EventDraft(kind, PRIMARY, step.reason, tuple(sorted(facts.items()))),)),)

    def _is_waiting(self, view: FailoverView, now: int) -> bool:
        """Somebody who is asked may still give the answer that decides."""
        asked = [host for host in view.alive if not self._has_answered(host)]
        self._account.asked_since = self._account.asked_since or now
        return bool(asked) and now - self._account.asked_since < ANSWER_S * NS_PER_S

    def _move_away(
        self,
        state: ClusterState,
        view: FailoverView,
        leaving: Collection[HostId],
    ) -> tuple[SingleCommand, ...]:
        """A damaged primary, or one whose host is drained or about to end, hands over when somebody can."""
        record, row = state.hosts.get(view.holder), state.database_members.get(view.holder)
        is_going = view.holder in leaving or (record is not None and record.draining)
        is_damaged = row is not None and row.status.wants is Wants.COPY
        is_going = is_going or (is_damaged and turn_in(state).host == view.holder)
        if not is_going or view.successor is not None or view.standing is not Standing.WELL:
            return ()
        if self._account.moved_to is not None or self._account.not_serving_since is not None:
            return ()
        going = {*leaving, *(row.host for row in state.hosts.values() if row.draining)}
        going |= {row.host for row in state.database_members.values() if row.status.wants is Wants.COPY}
        able = [host for host in view.published.voters if host not in going and host in view.alive]
        able = [host for host in able if not why_not_successor(state, view, host)]
        if not able:
            return ()
        to = self._account.moved_to = self._host if self._host in able else able[0]
        return (RequestRelease(PRIMARY, to, view.fencing_term),)

    def successor(self, state: ClusterState, wanted: HostId | None, now: int) -> tuple[HostId | None, str]:
        """Whom a switchover goes to, and why it cannot be done; *wanted*: None for the best."""
        record, owner = state.database, state.owners.get(PRIMARY)
        if record is None or owner is None or owner.holder is None or not record.is_bootstrapped:
            return None, "there is no primary"
        if owner.successor not in (None, owner.holder):
            return None, f"{owner.holder} hands over to {owner.successor} already"
        alive = tuple(
            row.host for row in state.hosts.values() if row.status.value != "lost" or row.host == self._host
        )
        view = self._view(state, record, owner, alive, now)
        if self._account.not_serving_since is not None:
            return None, f"{owner.holder} does not take writes now"
        if wanted is not None:
            return wanted, why_not_successor(state, view, wanted)
        whys = {
            host: why_not_successor(state, view, host)
            for host in view.published.voters
            if host != view.holder
        }
        able = [host for host, why in whys.items() if not why]
        if able:
            return (self._host if self._host in able else able[0]), ""
        return None, "; ".join(whys.values()) or "no standby holds every commit"

    def moved_here(self, owner: Ownership) -> bool:
        """The primaryship was assigned during this leadership: leadership should follow it."""
        return self._first_term is not None and owner.fencing_term > self._first_term

    # ---- sealing --------------------------------------------------------------------

    def _ask_to_seal(self, view: FailoverView, step: FailoverStep, left_behind: Collection[HostId]) -> None:
        asked = {*step.seal, *left_behind}
        self._handing = None
        if view.successor not in (None, view.holder) and not self._has_answered(view.holder):
            asked.add(view.holder)  # it says so when it has stopped
            self._handing = view.holder, view.alive
        if step.chosen is None and (step.seal or view.standing is not Standing.WELL):
            asked |= {host for host, report in view.reports.items() if not is_final(report)}
        wanted = tuple(sorted(asked & set(view.alive)))
        if wanted != self._to_seal:
            self._to_seal = wanted
            self._due.set()

    async def run(self) -> None:
        """Ask hosts to seal, side by side, as long as that is wanted."""
        async with asyncio.TaskGroup() as group:
            asking: dict[HostId, asyncio.Task[None]] = {}
            while True:
                self._due.clear()
                for host in self._to_seal:
                    is_asked = host in asking and not asking[host].done()
                    if not is_asked and not self._has_answered(host):
                        work = self._seal_host(host, self._account.fencing_term)
                        asking[host] = group.create_task(work, name=f"seal:{host}")
                await self._due.wait()

    def _has_answered(self, host: HostId) -> bool:
        report = self._reports.get(host)
        return report is not None and report.fencing_term >= self._account.fencing_term and is_final(report)

    async def _seal_host(self, host: HostId, term: FencingTerm) -> None:
        """Until it has answered finally, or is not asked any more."""
        failpoints.hit("database.before-seal")
        while host in self._to_seal and term == self._account.fencing_term:
            member = self._members.get(host)
            try:
                report = await self._seal(host, term)
            except TrellisError as error:
                LOG.info("database-seal", host=host, error=str(error))
            else:
                if report.fencing_term < self._account.fencing_term:
                    break  # it is of a primaryship that is over by now
                self._reports[host], self._said_by[host] = report, member or MemberId("")
                LOG.info(
                    "database-sealed", host=host, term=term, flushed=report.flushed, final=is_final(report)
                )
                if is_final(report) and self._handing is not None and self._handing[0] == host:
                    self._to_seal = tuple(sorted({*self._to_seal, *self._handing[1]}))
                    self._due.set()
                self._wake()
                if is_final(report):
                    return
            await asyncio.sleep(ASK_AGAIN_S)
        # It may be asked for another primaryship by now.
        self._due.set()


def data_before_bootstrap(state: ClusterState) -> tuple[list[HostId], list[HostId]]:
    """Hosts where data were restored in this cluster, and hosts where some were left by another one."""
    members = state.database_members
    rows = [(host, members[host].status) for host in data_hosts(state) if host in members]
    # A new one begins with timeline 1, restored ones go on with a later one.
    restored = [host for host, status in rows if status.timeline > 1 and not status.is_leftover]
    return restored, [host for host, status in rows if status.is_leftover]


def why_not_successor(state: ClusterState, view: FailoverView, host: HostId) -> str:
    """Why this host cannot take over from a primary that is well; empty: it can."""
    row = state.database_members.get(host)
    status = row.status if row is not None else None
    is_close = status is not None and status.lag is Lag.CLOSE
    successor = SuccessorView(
        host,
        is_alive=host in view.alive,
        is_streaming=status is not None and status.is_streaming,
        timeline=Timeline(status.timeline if status is not None else 0),
        lag_bytes=Lsn(0) if is_close else Lsn(1),
        damaged="",
    )
    why = why_no_switchover(view, successor, 0)
    return f"{host} is too far behind; wait" if why and "bytes behind" in why else why


def _left_behind(state: ClusterState, view: FailoverView) -> tuple[HostId, ...]:
    """Hosts that an earlier leader has sealed at the number of a primary that is well: they do not follow it.

    Once their word is here, it goes on under a new number (`decide_failover`).
    """
    if view.standing is not Standing.WELL or view.successor is not None:
        return ()
    statuses = {row.host: row.status for row in state.database_members.values()}
    return tuple(
        host
        for host in view.alive
        if host != view.holder
        and (status := statuses.get(host)) is not None
        and status.fencing_term == view.fencing_term
        and not status.is_streaming
    )
