"""The part of a sidecar that decides and acts: consensus, lease, leadership, and this host's loop.

What connects them is here and nowhere else: who is woken by what. The machine below (network, disk,
clocks, processes) comes in by ports, so that a simulated host runs this very object.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from mesh.consensus import Consensus
from mesh.ids import MemberId, host_of
from mesh.lease.holder import HostLease
from mesh.lease.model import ElectedBy
from mesh.lease.timers import LeaseTimers
from mesh.raft.model import SoftState
from mesh.replica import Replica
from mesh.state.model import ChangeKind
from mesh.state.watch import ChangeSet
from sidecar.app.hands import Hands
from sidecar.app.host import HostDriver
from sidecar.app.leading import DatabasePlanner, Leading
from sidecar.app.node import Node
from sidecar.app.transitions import Transitions
from sidecar.app.vip_hold import VipHold
from sidecar.leadership.answers import BeatAnswers
from sidecar.leadership.beat import BeatStream
from sidecar.leadership.beats import Beats, Observed
from sidecar.membership.founding import Founded

LOG = structlog.get_logger(__name__)

ALL_KINDS = frozenset(ChangeKind)
MEMBERSHIP_KINDS = frozenset({ChangeKind.CLUSTER, ChangeKind.MEMBER, ChangeKind.TRUST})
#: Tables that hosts and the leader decide from.
DECIDED_FROM = MEMBERSHIP_KINDS | {
    ChangeKind.HOST,
    ChangeKind.SERVICE,
    ChangeKind.PLACEMENT,
    ChangeKind.OWNERSHIP,
    ChangeKind.INSTANCE,
    ChangeKind.DATABASE,
    ChangeKind.DATABASE_MEMBER,
}


class Surrounding(Protocol):
    """The rest of the sidecar, as the core tells it."""

    def members_changed(self) -> None:
        """Other members, or other addresses, are in the applied state."""

    def certificates_revoked(self) -> None:
        """Calls that are open may no longer be."""

    def membership_due(self) -> None:
        """What this host says of itself, or whom it trusts, may be another."""

    def diverged(self) -> None:
        """The leader found that this host's state is not what it should be."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """CLOCK_BOOTTIME, which decisions rest on, and the wall clock, for people."""

    boottime_ns: Callable[[], int]
    wall_ns: Callable[[], int]


class Core:
    """Made once for each life of a sidecar; whoever makes it runs `consensus`, `node`, `host` and `beats`.

    Order: made after the replica has its consensus, and before that runs.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        consensus: Consensus,
        timers: LeaseTimers,
        margin_ns: int,
        clocks: Clocks,
        hands: Hands,
        observed: Observed,
        founded: Founded,
        open_beats: Callable[[MemberId], BeatStream],
        transitions: Transitions,
        surrounding: Surrounding,
        plan_database: Callable[[Callable[[], None]], DatabasePlanner] | None = None,
    ) -> None:
        """*plan_database* makes the planner of a leadership from what wakes it; None: no database."""
        self.member, self.host_id = replica.member, host_of(replica.member)
        self.replica, self.consensus = replica, consensus
        self._surrounding = surrounding
        self._transitions = transitions
        #: Set once the virtual IP of this host is made.
        self.vip: VipHold | None = None
        driver, boottime_ns = consensus.driver, clocks.boottime_ns
        self.leading = Leading(
            founded=founded,
            replica=replica,
            consensus=consensus,
            timers=timers,
            own=lambda: self.host,
            own_database=observed.database,
            boottime_ns=boottime_ns,
            wall_ns=clocks.wall_ns,
            plan_database=None if plan_database is None else lambda: plan_database(self.node.wake_duty),
        )
        self.node = Node(
            member=self.member,
            driver=driver,
            make_duty=self.leading.make_duty,
            on_change=self._role_changed,
            on_elected=self._elected,
            transitions=transitions,
            boottime_ns=boottime_ns,
        )
        driver.add_observer(self.node)
        driver.follow_pace(self._paced)
        driver.leader_heard.follow(lambda: self.beats.leader_heard())
        self.lease = HostLease(driver.term)
        self.beats = Beats(
            member=self.member,
            timers=timers,
            lease=self.lease,
            consensus=self.node,
            observed=observed,
            open_stream=open_beats,
            others=lambda: consensus.others,
            on_lease=lambda: self.host.lease_extended(),
            on_diverged=surrounding.diverged,
            boottime_ns=boottime_ns,
        )
        self.answers = BeatAnswers(
            timers=timers,
            duty=lambda: self.node.duty,
            term=lambda: self.node.term,
            state_hash=observed.state_hash,
        )
        self.host = HostDriver(
            host=self.host_id,
            replica=replica,
            lease=self.lease,
            beats=self.beats,
            hands=hands,
            vip=lambda: self.vip,
            leader=lambda: self.node.leader,
            margin_ns=margin_ns,
            boottime_ns=boottime_ns,
        )
        replica.subscribe(self._state_changed)

    # ---- what the parts tell --------------------------------------------------------

    def _paced(self) -> None:
        self.beats.paced()
        if self.node.duty is not None:
            self.node.duty.paced()

    def instance_changed(self) -> None:
        """An instance of this host is another than it was."""
        self.host.instance_changed()
        self.node.wake_duty()

    def database_changed(self) -> None:
        """This host's database is another than it was."""
        self.host.database_changed()
        self.node.wake_duty()

    def _state_changed(self, changes: ChangeSet) -> None:
        kinds = {change.kind for change in changes.changes} or ALL_KINDS  # none: a snapshot came
        if ChangeKind.MEMBER in kinds:
            self._surrounding.members_changed()
        if ChangeKind.REVOKED in kinds:
            self._surrounding.certificates_revoked()
        if ChangeKind.OWNERSHIP in kinds:
            self._transitions.ownerships_applied(self.replica.state.owners.values())
        if kinds & MEMBERSHIP_KINDS:
            self._surrounding.membership_due()
        if kinds & DECIDED_FROM:  # documents, tokens and the like change nothing that is decided
            self.host.wake()
            self.node.wake_duty()

    def _role_changed(self) -> None:
        self.lease.term_seen(self.node.term)
        self.beats.wake()
        self._surrounding.membership_due()
        self.host.wake()

    def _elected(self, soft: SoftState, by: ElectedBy) -> None:
        LOG.info("elected", term=soft.term, by=by.value)
