"""What comes with leadership beside ownerships: placement, membership, founding, hand-over."""

import contextlib
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from mesh import failpoints, limits
from mesh.consensus import Consensus
from mesh.errors import Conflict, NotFound, TrellisError
from mesh.ids import PRIMARY, HostId, Index, MemberId, Term, host_of
from mesh.lease.model import Election
from mesh.lease.plan import UNPLANNED, Planner
from mesh.lease.timers import LeaseTimers
from mesh.placement import decide_placement, owners_of, placement_commands, rooms_of
from mesh.raft.model import Membership, PeerStatus, ProgressMode
from mesh.replica import Replica
from mesh.state import ClusterState
from mesh.state.commands import Applied, Command, RecordEvents, SingleCommand
from mesh.state.database_model import DatabaseStatus
from mesh.state.model import HostStatus, Ownership
from mesh.telemetry.traces import trace_id_of_term
from sidecar.leadership import decide
from sidecar.leadership.driver import LeaderDuty, Own
from sidecar.membership.decide import next_membership_change, role_commands, view_of
from sidecar.membership.founding import Founded

LOG = structlog.get_logger(__name__)

CHANGE_TIMEOUT_S = 5.0


class DatabasePlanner(Planner, Protocol):
    """Who is to be the database's primary; see `sidecar.postgres.leading`."""

    #: Why nobody is primary, or what is under way.
    problem: str

    def moved_here(self, owner: Ownership) -> bool:
        """The primaryship was assigned during this leadership."""

    def successor(self, state: ClusterState, wanted: HostId | None, now: int) -> tuple[HostId | None, str]:
        """Whom a switchover goes to, and why it cannot be done."""


class Leading:
    """Makes leaderships and serves them with what the whole sidecar knows."""

    def __init__(
        self,
        *,
        founded: Founded,
        replica: Replica,
        consensus: Consensus,
        timers: LeaseTimers,
        own: Callable[[], Own],
        own_database: Callable[[], DatabaseStatus | None],
        boottime_ns: Callable[[], int],
        wall_ns: Callable[[], int],
        plan_database: Callable[[], DatabasePlanner] | None = None,
    ) -> None:
        self._founded = founded
        self._replica = replica
        self._consensus = consensus
        self._timers = timers
        self._own = own
        self._own_database = own_database
        self._now = boottime_ns
        self._wall_ns = wall_ns
        self._plan_database = plan_database
        #: Of the present leadership, or the last.
        self.database: DatabasePlanner | None = None
        #: For this state and membership nothing is left to be placed.
        self._settled: tuple[Index, Membership, tuple[HostId, ...]] | None = None
        self._lost_since: dict[HostId, int] = {}
        self._kept_ms: dict[HostId, int] = {}
        #: Since then the database's primary serves on a host to which this leadership is to move.
        self._primary_since: int | None = None
        #: What the journal is to be told of this leadership, once it may propose.
        self._to_record: tuple[RecordEvents, ...] = ()
        #: The term of the leadership that was made last.
        self._term = Term(0)

    # ---- what LeaderDuty needs ------------------------------------------------------

    @property
    def state(self) -> ClusterState:
        """The applied state."""
        return self._replica.state

    @property
    def applied(self) -> Index:
        """Index up to which it is applied."""
        return self._replica.applied

    @property
    def term(self) -> Term:
        """The Raft term."""
        return self._consensus.driver.term

    def quorum_confirmed_at(self) -> int | None:
        """When the newest confirmed append-heartbeat round was sent, CLOCK_BOOTTIME."""
        return self._consensus.driver.quorum_confirmed_at()

    async def propose(self, command: SingleCommand, *, timeout_s: float) -> Applied:
        """Have a command applied within this leadership, or not at all; its events carry the trace of it.

        What was decided from the leases of one term must not enter the log of another leader.
        """
        return await self._propose(command, timeout_s)

    async def _propose(self, command: Command, timeout_s: float) -> Applied:
        info = self.state.info
        trace = trace_id_of_term(info.cluster_id, self._term) if info is not None else ""
        return await self._replica.propose_leading(
            command, term=self._term, timeout_s=timeout_s, at_ns=self._wall_ns(), trace_id=trace
        )

    async def wait_applied(self, index: Index) -> None:
        """Return once `index` is applied here, or after a while."""
        with contextlib.suppress(TrellisError):
            await self._consensus.driver.wait_applied(index, timeout_s=CHANGE_TIMEOUT_S)

    # ---- a leadership ---------------------------------------------------------------

    def make_duty(self, election: Election, serve_from: Index) -> LeaderDuty:
        """The loop of a leadership that has just begun."""
        member = self._replica.member
        self._term = self.term
        self._to_record = (RecordEvents((decide.election_event(host_of(member), self.term, election),)),)
        self.database = self._plan_database() if self._plan_database is not None else None
        return LeaderDuty(
            host=host_of(member),
            member=member,
            election=election,
            timers=self._timers,
            replicated=self,
            own=self._own(),
            own_database=self._own_database,
            serve_from=serve_from,
            extra_commands=self._extra_commands,
            change_membership=self._change_membership,
            boottime_ns=self._now,
            database=self.database or UNPLANNED,
        )

    def _extra_commands(self, state: ClusterState, crashed: Collection[HostId]) -> tuple[SingleCommand, ...]:
        news, self._to_record = self._to_record, ()
        return (*news, *self._placement_commands(state, crashed))

    def _placement_commands(
        self, state: ClusterState, crashed: Collection[HostId]
    ) -> tuple[SingleCommand, ...]:
        membership = self._consensus.driver.status().membership
        expected_back = self._expected_back(state, crashed)
        settled = (state.applied, membership, expected_back)
        if settled == self._settled:
            return ()
        rooms = rooms_of(state, expected_back=expected_back)
        decisions = decide_placement(state.services.values(), rooms, state.placements, owners_of(state))
        commands: tuple[SingleCommand, ...] = (
            *placement_commands(decisions, state.placements),
            *role_commands(state, membership),
        )
        if not commands:
            self._settled = settled
        return commands

    def _expected_back(self, state: ClusterState, crashed: Collection[HostId]) -> tuple[HostId, ...]:
        """Hosts lost so recently that their instances' places are kept for them.

        Of a host in `crashed` only the sidecar died: its instances run on, so there is less of a hurry.
        """
        now = self._now()
        lost = [record.host for record in state.hosts.values() if record.status is HostStatus.LOST]
        if not lost:
            self._lost_since, self._kept_ms = {}, {}
            return ()
        self._lost_since = {host: self._lost_since.get(host, now) for host in lost}
        kept_ms = self._kept_ms  # what was promised once stays when the first beat clears the proof
        self._kept_ms = {
            host: limits.PLACE_KEPT_CRASHED_MS if host in crashed else kept_ms.get(host, limits.PLACE_KEPT_MS)
            for host in lost
        }
        return tuple(host for host in lost if now - self._lost_since[host] < self._kept_ms[host] * 1_000_000)

    async def _change_membership(self) -> None:
        """One step of what the replicated members ask of Raft's membership, and the founding."""
        try:
            await self._found()
            status = self._consensus.driver.status()
            beating = tuple(
                record.host for record in self.state.hosts.values() if record.status is HostStatus.ALIVE
            )
            change = next_membership_change(view_of(status, self.state, beating))
            if change is not None:
                LOG.info("membership-change", reason=change.reason)
                await failpoints.passing("leading.membership.before-change")
                await self._consensus.driver.change_membership(change.target, timeout_s=CHANGE_TIMEOUT_S)
                await failpoints.passing("leading.membership.changed")
            elif self._is_drained() and (fit := self._successors()):
                LOG.info("drained-leader-hands-over", to=fit[0].id)
                await self._consensus.driver.transfer_leadership(fit[0].id, timeout_s=CHANGE_TIMEOUT_S)
            elif (primary := self._primary_elsewhere()) is not None:
                LOG.info("leadership-follows-primary", to=primary)
                await self._consensus.driver.transfer_leadership(primary, timeout_s=CHANGE_TIMEOUT_S)
        except TrellisError as error:
            LOG.info("membership-not-changed", error=str(error))

    async def _found(self) -> None:
        """The first leader of a new cluster gives it its first content, until that is there."""
        if self.state.info is not None:
            return
        command = self._founded.command()
        if command is not None:
            await failpoints.passing("leading.founding.before-propose")
            await self._propose(command, CHANGE_TIMEOUT_S)
            await failpoints.passing("leading.founding.proposed")
            self._founded.forget()

    # ---- hand-over ------------------------------------------------------------------

    def transfer_target(self, to: HostId | None) -> MemberId:
        """The member to hand leadership to. Fails: NotFound, Conflict."""
        if to is not None:
            row = self.state.member_of(to)
            if row is None:
                raise NotFound(f"There is no host {to}; see trellis hosts.", host=to)
            return row.member
        fit = self._successors() or self._able()
        if not fit:
            raise Conflict(
                "No other host can lead now: none is alive, caught up and a voter; see trellis hosts."
            )
        return fit[0].id

    def _able(self) -> list[PeerStatus]:
        """Members that could lead now, the most advanced first."""
        status = self._consensus.driver.status()
        able = [
            peer
            for peer in status.peers
            if peer.recently_active
            and peer.mode is ProgressMode.REPLICATE
            and status.membership.may_lead(peer.id)
        ]
        return sorted(able, key=lambda peer: (peer.matched, peer.id), reverse=True)

    def _successors(self) -> list[PeerStatus]:
        """Those of them that may own as well: what follows the leader goes to no drained host."""
        hosts = self.state.hosts.values()
        fit = {each.host for each in hosts if each.status is HostStatus.ALIVE and not each.draining}
        return [peer for peer in self._able() if host_of(peer.id) in fit]

    def _primary_elsewhere(self) -> MemberId | None:
        """The member whose host has become the database's primary during this leadership, once it serves.

        So leader, primary and virtual IP come together again; a transfer that was asked for is left alone.
        """
        owner = self.state.owners.get(PRIMARY)
        if owner is None or owner.holder is None or self.database is None:
            return None
        row = self.state.database_members.get(owner.holder)
        serves = row is not None and row.status.is_open and row.status.fencing_term == owner.fencing_term
        if not serves or owner.successor is not None or not self.database.moved_here(owner):
            self._primary_since = None
            return None
        now = self._now()
        self._primary_since = self._primary_since or now
        if now - self._primary_since < limits.LEADER_FOLLOWS_MS * 1_000_000:
            return None
        found = [peer.id for peer in self._successors() if host_of(peer.id) == owner.holder]
        return found[0] if found else None

    def _is_drained(self) -> bool:
        own = self.state.hosts.get(host_of(self._replica.member))
        return own is not None and own.draining
