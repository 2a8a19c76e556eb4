"""One sidecar: what it is made of, in which order it starts and in which it ends.

Construction only constructs: bad settings, a foreign data directory or a
damaged log end the start before anything was done.

Order of the end, under one deadline: leadership handed over, everything
exclusive given up and reported, northbound closed, instances stopped, consensus
ended, and last the mesh listener: its port refusing means that nothing of this
sidecar acts any more.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import Any

import grpc
import structlog

from mesh import failpoints
from mesh.adapters.clock import boottime_ns, wall_ns
from mesh.driver import RaftDriver
from mesh.errors import InvariantBroken, PeerUnreachable, TrellisError
from mesh.grpc_consensus import GrpcConsensus
from mesh.ids import HostId, Index, MemberId, Term, host_of
from mesh.raft.model import Role
from mesh.replica import OutcomeCodec, Replica
from mesh.settings.model import HostSettings
from mesh.telemetry.metrics import serve_metrics
from mesh.telemetry.traces import configure_traces
from sidecar.app import settings_map
from sidecar.app.core import Clocks, Core
from sidecar.app.database import HostDatabase
from sidecar.app.doors import Doors
from sidecar.app.handover import HandOver, ask_to_transfer
from sidecar.app.hands import Hands
from sidecar.app.listeners import Door
from sidecar.app.membership import Membership, open_identity, open_log
from sidecar.app.metrics import samples
from sidecar.app.northbound_hold import NorthboundHold
from sidecar.app.northbound_watch import NorthboundWatch
from sidecar.app.observed import Observed
from sidecar.app.transitions import Transitions
from sidecar.app.vip_hold import make_vip
from sidecar.fence.client import FenceClient, FenceReport, FenceUnavailable
from sidecar.leadership.beat_stream import GrpcBeatStream
from sidecar.membership.founding import FoundingFile
from sidecar.membership.init import founding_path
from sidecar.membership.issuer import Issuer
from sidecar.membership.version import own_version
from sidecar.routing.driver import Routing
from sidecar.supervisor.driver import Supervisor

LOG = structlog.get_logger(__name__)

STOP_S = 30.0


class Sidecar:
    """The parts, tied together; `run` until told to stop or until something fatal.

    Fails: when made, `SettingsError`, `Conflict`, `Corruption`, `StorageFailed`.
    """

    def __init__(self, settings: HostSettings, end_process: Callable[[BaseException], None]) -> None:
        self.settings = settings
        self.version = own_version()
        self.files, self.credentials = open_identity(settings)
        identity = self.credentials.identity
        self.member, self.cluster, self.host_id = identity.member, identity.cluster_id, identity.host
        self._stopping = asyncio.Event()
        self._fatal: BaseException | None = None
        self._end_process = end_process
        self._gave_way = False
        self.traces = configure_traces(
            endpoint=settings.telemetry.otlp_endpoint,
            host=self.host_id,
            cluster=self.cluster,
            version=self.version,
        )
        self.transitions = Transitions(traces=self.traces, host=self.host_id, wall_ns=wall_ns)
        self._make_consensus()
        self._make_host()
        self.issuer = Issuer(
            self.cluster,
            identity.sealing_key,
            lambda: self.replica.state,
            timedelta(hours=settings.mesh.certificate_hours),
            wall_ns,
        )
        self.membership = Membership(self)
        self.hand_over = HandOver(self.core, self._ask_to_transfer)
        self.doors = Doors(self)

    def _make_consensus(self) -> None:
        # A witness is given no key to the authority, and no commands.
        self.replica = Replica(self.member, is_witness=not self.credentials.identity.sealing_key)
        self.store = open_log(self.settings, self.credentials.identity)
        driver = RaftDriver(
            raft=settings_map.raft_settings(self.settings, self.member),
            store=self.store,
            machine=self.replica.machine,
            settings=settings_map.driver_settings(self.settings),
        )
        self.consensus = GrpcConsensus(
            cluster=self.cluster, identity=self.credentials, driver=driver, codec=OutcomeCodec()
        )
        self.replica.attach(self.consensus)
        self.consensus.on_failed = self.fail
        self.credentials.on_replaced(self.consensus.renew_channels)

    def _make_host(self) -> None:
        settings = self.settings
        self.supervisor = Supervisor(
            settings=settings_map.supervisor_settings(settings, self.cluster, lambda: self.database.url()),
            on_change=lambda _status: self.core.instance_changed(),
            on_exclusive=lambda instance, handle: self.host.exclusive_changed(instance, handle),
            may_act=lambda: self.host.is_live(),
            jitter=random.random,
        )
        self.observed = Observed(
            host=self.host_id,
            data_dir=settings.host.data_dir,
            replica=self.replica,
            supervisor=self.supervisor,
        )
        self.routing = Routing(
            settings_map.routing_settings(settings, self.cluster, self.files), self._routing_event
        )
        self.fence = FenceClient(
            on_lost=self._fence_lost,
            on_fenced=self._fenced,
        )
        self.database = HostDatabase(self)
        self.observed.database_status = self.database.status
        self.northbound_hold = NorthboundHold(routing=self.routing, fence=self.fence)
        timers, transitions = settings_map.lease_timers(settings), self.transitions
        core = self.core = Core(
            replica=self.replica,
            consensus=self.consensus,
            timers=timers,
            margin_ns=settings_map.lease_margin_ns(settings),
            clocks=Clocks(boottime_ns, wall_ns),
            hands=Hands(self.supervisor, self.northbound_hold, self.fence, self.database.driver),
            observed=self.observed,
            founded=FoundingFile(founding_path(settings)),
            open_beats=lambda leader: GrpcBeatStream(self.cluster, self.member, self.channel_to(leader)),
            transitions=transitions,
            surrounding=self,
            plan_database=self.database.plan,
        )
        self.leading, self.node, self.lease = core.leading, core.node, core.lease
        self.beats, self.host = core.beats, core.host
        self.northbound_watch = NorthboundWatch(
            host=self.host_id, replica=self.replica, problems=self.routing.northbound_problems
        )

    def channel_to(self, member: MemberId) -> grpc.aio.Channel:
        """The channel to another member. Fails: PeerUnreachable for a stranger."""
        channel = self.consensus.transport.channel_to(member)
        if channel is None:
            raise PeerUnreachable(f"{host_of(member)} is not known here yet; try again shortly")
        return channel

    async def _ask_to_transfer(self, to: HostId | None, timeout_s: float) -> HostId:
        leader = self.node.leader
        channel = self.consensus.transport.channel_to(leader) if leader is not None else None
        return await ask_to_transfer(channel, to, timeout_s)

    # ---- life -----------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or a fatal error: `StorageFailed`, `Corruption`, a bug.

        After a fatal error everything is given up in order and the process is ended
        without taking connections down call by call: gRPC's core has been seen to abort
        in that, and the kernel closes sockets just as well.
        Fails: `SettingsError` when a listener cannot be opened.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        prometheus = self.settings.telemetry.prometheus
        async with contextlib.AsyncExitStack() as last:
            mesh = await self.doors.open_mesh()
            await failpoints.passing("sidecar.mesh-open")
            last.push_async_callback(mesh.stop, 0)
            await self.fence.start()
            last.push_async_callback(self._close_fence)
            self.core.vip = make_vip(
                self.settings,
                fence=self.fence,
                routing=self.routing,
                may_act=self.host.is_live,
                on_change=self.host.wake,
            )
            doors = await self.doors.open_local()
            for door in doors:
                last.push_async_callback(door.stop, 0)
            metrics = serve_metrics(prometheus.ip, prometheus.port, lambda: samples(self))
            last.callback(metrics.shutdown)
            self.membership.set_peers()
            LOG.info("sidecar-started", member=self.member, cluster=self.cluster, version=self.version)
            running = [loop.create_task(self._guard(work), name=name) for name, work in self._loops().items()]
            try:
                await self._stopping.wait()
            finally:
                await self._end(running, doors)
                if self._fatal is not None:
                    await self._close_fence()
                    self.traces.close()
                    self._end_process(self._fatal)
        self.traces.close()

    def _loops(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        loops: dict[str, Coroutine[Any, Any, None]] = {
            "consensus": self.consensus.run(),
            "node": self.node.run(),
            "supervisor": self.supervisor.run(),
            "routing": self.routing.run(),
            "host": self.host.run(),
            "beats": self.beats.run(),
            "membership": self.membership.run(),
            "northbound-watch": self.northbound_watch.run(),
            "northbound-hold": self.northbound_hold.run(),
        }
        if self.database.driver is not None:
            loops["database"] = self.database.driver.run()
        if self.database.archive is not None:
            loops["database-archive"] = self.database.archive.run()
        if self.core.vip is not None:
            loops["vip"] = self.core.vip.run(self.host.is_live)
        return loops

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """A loop that ends by itself, is cancelled by anybody else or fails ends the sidecar."""
        try:
            await work
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                task = asyncio.current_task()
                self.fail(InvariantBroken(f"{task.get_name() if task else 'a loop'} was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the sidecar must not go on
            self.fail(error)
        else:
            self._stopping.set()

    def fail(self, error: BaseException) -> None:
        """Something fatal happened: give everything up and end."""
        if self._fatal is None:
            self._fatal = error
            # An operating error says what to do; where in the code it came up helps only with a bug.
            bug = None if isinstance(error, TrellisError) else error
            LOG.error("fatal", error=str(error), kind=type(error).__name__, exc_info=bug)
        self._stopping.set()

    async def _end(self, running: list["asyncio.Task[None]"], doors: Iterable[Door]) -> None:
        """Give everything up, in order; what cannot be given up is left to the fence process."""
        self._stopping.set()
        # Also without a hand-over: or the host's loop would start again what is being stopped.
        self.observed.leaving = self.host.leaving = True
        try:
            async with asyncio.timeout(STOP_S):
                if self._fatal is None:
                    await self.hand_over.leave()
                    if self.database.driver is not None:
                        await self.database.driver.stop()
                await self.host.give_way()
                await self.routing.stop(grace_s=2.0)
                await self.supervisor.stop_all()
                for door in doors:
                    await door.stop(0.5)
            self._gave_way = True
            await failpoints.passing("sidecar.gave-way")
        except TimeoutError:
            LOG.error("stop-overrun", open=[task.get_name() for task in running if not task.done()])
        except Exception as error:
            LOG.error("stop-incomplete", error=str(error), exc_info=error)
        if self._fatal is not None:
            return
        self.consensus.stop()
        for task in reversed(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _close_fence(self) -> None:
        """Order: before the mesh listener closes, which tells others that nothing acts here any more."""
        await self.fence.close(clear=not self._gave_way)

    def _fenced(self, report: FenceReport) -> None:
        self.northbound_hold.fenced()
        self.host.fenced(report)

    def _fence_lost(self, reason: str) -> None:
        """Nothing may be owned without it, and whoever leads owns: let others."""
        self.host.fence_lost(reason)
        self.fail(FenceUnavailable(f"There is no fence process: {reason}"))

    # ---- what the parts tell --------------------------------------------------------

    def members_changed(self) -> None:
        """See Surrounding."""
        self.membership.set_peers()

    def certificates_revoked(self) -> None:
        """See Surrounding."""
        self.doors.recheck()

    def membership_due(self) -> None:
        """See Surrounding."""
        self.membership.wake()

    def diverged(self) -> None:
        """See Surrounding."""
        self.fail(self.membership.diverged())

    def _routing_event(self, name: str, facts: Mapping[str, object]) -> None:
        warn = name in ("xds-rejected", "envoy-exited", "view-refused") and not facts.get("wanted")
        (LOG.warning if warn else LOG.info)(name, **facts)
        if name == "vip-listening" and self.core.vip is not None:
            self.core.vip.listening(bool(facts["listening"]))
            self.transitions.vip_listening(bool(facts["listening"]))
        self.northbound_hold.changed()
        self.host.wake()

    # ---- what operators see ---------------------------------------------------------

    @property
    def leader(self) -> MemberId | None:
        """Who leads, as far as known here."""
        return self.node.leader

    @property
    def term(self) -> Term:
        """The Raft term."""
        return self.node.term

    @property
    def commit(self) -> Index:
        """Index known to be committed."""
        return self.node.driver.status().commit

    def lease_ns_left(self) -> int:
        """What is left of this host's lease."""
        return self.lease.ns_left(boottime_ns())

    def fenced_reason(self) -> str:
        """Why this host does not serve; empty when it does."""
        return self.host.fenced_reason()

    def applied_index(self, host: HostId) -> int:
        """How far a host has the log, as known here."""
        return self.node.applied_index(host)

    def beat_age_ns(self, host: HostId) -> int | None:
        """How long ago a host beat, on the leader."""
        return self.node.beat_age_ns(host)

    @property
    def role(self) -> str:
        """Raft role; "learner" while it does not vote."""
        status = self.node.driver.status()
        if self.node.role is not Role.LEADER and self.member in status.membership.learners:
            return "learner"
        return status.role.value

    async def transfer_leadership(self, to: HostId | None, *, timeout_s: float) -> HostId:
        """See HandOver.transfer."""
        return await self.hand_over.transfer(to, timeout_s=timeout_s)
