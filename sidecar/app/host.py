"""Carries out what the applied state and the lease let this host do.

One loop: whatever changes (an entry applied, the lease, an instance, Envoy, the
fence) wakes it; it asks `decide` what should be and brings it about. It holds
no decision of its own.
"""

import asyncio
from collections.abc import Callable

import structlog

from mesh import failpoints, limits
from mesh.errors import InvariantBroken, TrellisError, Unavailable
from mesh.ids import FencingTerm, HostId, InstanceId, MemberId, OwnedName, ServiceName, host_of
from mesh.lease.holder import HostLease
from mesh.replica import Replica
from mesh.state.service import InstanceState, InstanceStatus
from mesh.waiting import wake_or_wait
from sidecar.app import decide
from sidecar.app.hands import Hands
from sidecar.app.vip_hold import VipHold
from sidecar.fence.client import FenceReport
from sidecar.leadership.beats import Beats
from sidecar.supervisor.model import Assignment, ExclusiveHandle

LOG = structlog.get_logger(__name__)

IDLE_S = 1.0
CATCH_UP_S = 3.0
#: Beyond a service's grace: what giving something up, or one round of the loop, may take.
PATIENCE_S = 15.0


class HostDriver:
    """This host's hands. `wake` after any change; `run` until cancelled.

    Order on losing the lease: exclusive instances killed, virtual IP dropped,
    northbound closed, all within `limits.RELEASE_BOUND_MS`; the fence process
    does the same from the other side, and the two do not share code, on purpose.
    """

    def __init__(
        self,
        *,
        host: HostId,
        replica: Replica,
        lease: HostLease,
        beats: Beats,
        hands: Hands,
        vip: Callable[[], VipHold | None],
        leader: Callable[[], MemberId | None],
        margin_ns: int,
        boottime_ns: Callable[[], int],
    ) -> None:
        self._host = host
        self._replica = replica
        self._lease = lease
        self._beats = beats
        self._supervisor, self._routing, self._fence = hands.instances, hands.routes, hands.fence
        self._database = hands.database
        self._vip = vip
        self._leader = leader
        self._margin_ns = margin_ns
        self._now = boottime_ns
        self._wake = asyncio.Event()
        #: News of exclusive processes that the fence has not been told yet; newer news replaces older.
        self._handles: dict[InstanceId, ExclusiveHandle | None] = {}
        self._handles_wait = asyncio.Event()
        self._stepped = asyncio.Event()
        self._steps = 0
        self._is_stepping = False
        self._assigned: dict[InstanceId, Assignment] = {}
        self._was_live = False
        self._fenced_since: int | None = None
        self._fence_lost = ""
        self.leaving = False

    # ---- what others tell ---------------------------------------------------------

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()
        if self._database is not None:
            self._database.wake()

    def database_changed(self) -> None:
        """This host's database is another than it was: routes first, then the leader."""
        self._publish()
        self._beats.wake()
        self._wake.set()

    def lease_extended(self) -> None:
        """The lease lasts longer: tell the fence, and act if it had run out."""
        self._fence.set_deadline(self._lease.until_ns)
        if not self._was_live:
            self.wake()

    def instance_changed(self) -> None:
        """An instance exited or its readiness changed: routes first, then the leader."""
        if self._assigned:
            self._publish()
        self._beats.wake()
        self._wake.set()

    def exclusive_changed(self, instance: InstanceId, handle: ExclusiveHandle | None) -> None:
        """An exclusive process exists now, or is verified gone."""
        if len(self._handles) >= limits.EXCLUSIVE_NEWS_MAX and instance not in self._handles:
            raise InvariantBroken(f"the fence has not been told of {len(self._handles)} exclusive processes")
        self._handles[instance] = handle
        self._handles_wait.set()

    def fenced(self, report: FenceReport) -> None:
        """The fence process acted: this sidecar was late."""
        LOG.warning("fenced", cleared=report.cleared, left=report.left, took_ms=report.took_ms)
        if self._held is not None:
            self._held.fenced()
        self._wake.set()

    def fence_lost(self, reason: str) -> None:
        """No fence process can be had: this host must not act for anything."""
        LOG.error("fence-lost", reason=reason)
        self._fence_lost = reason
        self._wake.set()

    # ---- what this host is --------------------------------------------------------

    def instances(self) -> tuple[InstanceStatus, ...]:
        """Every instance of this host."""
        return self._supervisor.statuses()

    def releases(self) -> tuple[tuple[OwnedName, FencingTerm], ...]:
        """What this host has given up and the state still names it for."""
        return tuple(self._beats.releases.items())

    def is_live(self) -> bool:
        """The lease has more than its margin left and the fence stands behind it."""
        return not self._fence_lost and self._lease.is_live(self._now(), self._margin_ns)

    def fenced_reason(self) -> str:
        """Why this host does not serve; empty when it does."""
        if self._fence_lost:
            return f"there is no fence process: {self._fence_lost}"
        if self._lease.is_live(self._now()):
            return ""
        return "it has no lease: the leader has not answered its heartbeats, or there is none"

    def _standing(self) -> decide.Standing:
        leader = self._leader()
        since = self._fenced_since
        return decide.Standing(
            host=self._host,
            lease_live=self.is_live(),
            grace_over=since is not None and self._now() - since > limits.FENCED_GRACE_MS * 1_000_000,
            leader=host_of(leader) if leader is not None else None,
            released=self._beats.releases,
        )

    # ---- the loop -----------------------------------------------------------------

    @property
    def _held(self) -> VipHold | None:
        return self._vip()

    async def wait_step(self) -> None:
        """Return after the next round of the loop; the caller sets the deadline."""
        await self._stepped.wait()

    async def run(self) -> None:
        """Keep this host as `decide` says, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._register_exclusive(), name="fence-register")
            group.create_task(self._watch_hands(), name="watch-hands")
            await self._catch_up()
            while True:
                self._wake.clear()
                self._is_stepping = True
                await self._step()
                self._is_stepping = False
                self._steps += 1
                stepped, self._stepped = self._stepped, asyncio.Event()
                stepped.set()
                await wake_or_wait(self._wake, self._pause_s())

    async def _catch_up(self) -> None:
        """Wait until the state here is the cluster's: what is on disk after a start may be older.

        Until then nothing is assigned and no routes are made from it: instances and
        an Envoy that outlived the last sidecar go on as they are. If it takes long,
        there may be no quorum: a host without a lease takes no calls, and after the
        grace it runs nothing.
        """
        self._fenced_since = self._now()
        while True:
            if self._replica.is_witness:  # it has nothing to catch up with, and nothing to do
                await asyncio.Event().wait()
            try:
                await self._replica.barrier(timeout_s=CATCH_UP_S)
            except TrellisError as error:
                LOG.info("not-caught-up", reason=str(error))
                self._publish()
                if self._standing().grace_over:
                    self._supervisor.assign(())
            else:
                await failpoints.passing("host.caught-up")
                return

    async def _watch_hands(self) -> None:
        """End the sidecar when a round, or giving something up, takes too long.

        While its lease runs, others wait for its release. When it has ended, whatever it held is
        cleared by the fence and they wait no longer. Without a lease they do not: a host that has
        not caught up for want of a quorum can tell nobody that it gave something up, and must not
        end for that. Counted in rounds of `IDLE_S` of a process that runs: one that stood still is
        not blamed for it.
        Fails: Unavailable.
        """
        waited: dict[OwnedName, int] = {}
        stuck, before = 0, -1
        while True:
            await asyncio.sleep(IDLE_S)
            stuck = stuck + 1 if self._is_stepping and self._steps == before else 0
            before = self._steps
            if stuck * IDLE_S > PATIENCE_S:
                raise Unavailable(f"this host could not do what it must within {PATIENCE_S:g} s")
            has_lease = self._lease.is_live(self._now())
            owed = decide.owed(self._replica.state, self._host, self._beats.releases) if has_lease else {}
            waited = {name: waited.get(name, 0) + 1 for name in owed}
            for name, grace_ms in owed.items():
                if waited[name] * IDLE_S > PATIENCE_S + grace_ms / 1000:
                    raise Unavailable(f"{name} could not be given up within {PATIENCE_S:g} s of its grace")

    def _pause_s(self) -> float:
        """Until the lease would run out, so that losing it is acted on in time; at once if it has."""
        left = self._lease.ns_left(self._now()) - self._margin_ns
        return min(max(left, 0) / 1e9, IDLE_S) if self._was_live else IDLE_S

    async def _step(self) -> None:
        standing = self._standing()
        if standing.lease_live:
            self._fenced_since = None
        elif self._was_live:
            self._fenced_since = self._now()
            LOG.warning("lease-lost", reason=self.fenced_reason())
            self._was_live = False
            failpoints.hit("host.lease-lost")
            await self.give_way()
            failpoints.hit("host.gave-way")
        self._was_live = standing.lease_live
        wanted = decide.desired(self._replica.state, standing, self._assigned)
        self._assigned = {each.instance: each for each in wanted.assignments}
        assignments = () if self.leaving else wanted.assignments
        self._supervisor.assign(assignments)
        failpoints.hit("host.step.assigned")
        if self._held is not None:
            await self._held.settle(None if self.leaving else wanted.vip_term, self.is_live)
        self._publish()
        failpoints.hit("host.step.published")
        self._report_releases({each.spec.name for each in assignments})

    async def give_way(self) -> None:
        """Stop everything exclusive at once, side by side."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._supervisor.kill_exclusive(), name="give-way:instances")
            if self._held is not None:
                group.create_task(self._held.release(), name="give-way:vip")
            if self._database is not None:
                group.create_task(self._database.give_way(), name="give-way:database")
            self._publish()

    def _publish(self) -> None:
        """Tell routing how things are; costs nothing when nothing changed."""
        if not self._replica.state.applied:
            return
        self._routing.publish(
            decide.routing_view(
                self._replica.state,
                self._standing(),
                revision=self._replica.applied,
                own=self._supervisor.statuses(),
                owns_vip=self._held is not None and self._held.term is not None,
                database=self._database.status if self._database is not None else None,
            )
        )

    def _report_releases(self, assigned: set[ServiceName]) -> None:
        """Tell the leader what has stopped. What is assigned may start at any moment: it has not stopped."""
        running = assigned | {
            status.service
            for status in self._supervisor.statuses()
            if status.state not in (InstanceState.STOPPED, InstanceState.EXITED)
        }
        given = decide.releases(
            self._replica.state,
            self._host,
            running=running,
            vip_held=self._held is not None and not self._held.is_gone(),
            leaving=self.leaving,
            **({} if self._database is None else {"database_given_up": self._database.has_given_up}),
        )
        for name, term in given.items():
            if self._beats.releases.get(name) != term:
                failpoints.hit("host.release.before-report")
                self._beats.released(name, term)
        for name, term in self._beats.releases.items():
            if self._replica.state.fencing_term(name) != term:
                self._beats.release_seen(name)

    async def _register_exclusive(self) -> None:
        """Tell the fence about exclusive processes, in order."""
        while True:
            await self._handles_wait.wait()
            instance = next(iter(self._handles))
            handle = self._handles.pop(instance)
            if not self._handles:
                self._handles_wait.clear()
            try:
                if handle is None:
                    await self._fence.unregister(instance)
                    self._wake.set()
                else:
                    await self._fence.register_tree(
                        instance, handle.pid, handle.start_time_ticks, handle.cgroup or None
                    )
            except TrellisError as error:
                LOG.error("fence-refused", instance=instance, error=str(error))
                await self._supervisor.kill_exclusive()
