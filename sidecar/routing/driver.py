"""Drives Envoy and proxyless clients of this host from views of the cluster."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from mesh import failpoints
from sidecar.routing import bootstrap
from sidecar.routing.admin import calls_in_hand
from sidecar.routing.closed import northbound_problems
from sidecar.routing.decide import decide
from sidecar.routing.in_force import InForce
from sidecar.routing.model import (
    NORTHBOUND,
    NORTHBOUND_VIP,
    RoutingSettings,
    RoutingView,
)
from sidecar.routing.process import EnvoyProcess, ProcessHandle
from sidecar.routing.pulse import Pulses
from sidecar.routing.server import STREAMS_MAX, AdsServer
from sidecar.routing.stream import Kind, Rejected, Report, Version

OnEvent = Callable[[str, Mapping[str, object]], None]

#: An address that another process still holds is tried again this soon,
BIND_RETRY_S: Final = 0.02
#: this often; after that it is not a matter of moments and is tried less often.
BIND_RETRIES_QUICK: Final = 250
BIND_RETRY_S_MAX: Final = 0.25
DRAIN_POLL_S: Final = 0.02
#: Routes follow their listener within a millisecond or two.
ROUTES_S: Final = 0.1
#: Envoy ends at once when asked; this is for one that does not hear.
ENVOY_EXIT_S: Final = 1.0


class Routing:
    """Routing of one host: `publish` what is, and Envoy follows within milliseconds.

    Until the first `publish`, Envoy and clients are told nothing and keep what
    they have. Events (name, facts) go to *on_event*: envoy-started, envoy-adopted,
    envoy-replaced, envoy-frozen, envoy-exited, xds-rejected, snapshot-held, view-refused,
    northbound-listening, vip-listening, drain-overrun.
    """

    def __init__(self, settings: RoutingSettings, on_event: OnEvent) -> None:
        self._settings = settings
        self._on_event = on_event
        self._server = AdsServer(settings, self._on_report, self._on_held)
        self._envoy = EnvoyProcess(settings, self._on_envoy_event)
        self._view: RoutingView | None = None
        self._pushed: RoutingView | None = None
        self._serial = 0
        self._published = asyncio.Event()
        self._in_force = InForce()
        self._pulses = Pulses()
        self._bind_refusals = 0
        self._is_stopping = False
        #: The last refusal reported of each node and kind, so that repeats are silent.
        self._refusals: dict[tuple[str, Kind], str] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serves until cancelled; Envoy stays behind and keeps routing (see `stop`).

        Fails: SettingsError when the address for xDS is taken.
        """
        bootstrap.prepare(self._settings)
        listening = self._server.bind()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name="routing-views")
                group.create_task(self._server.run(listening), name="ads-server")
                group.create_task(self._envoy.run(), name="envoy")
        finally:
            self._pulses.close()

    # ---- views --------------------------------------------------------------------

    def publish(self, view: RoutingView) -> None:
        """Makes *view* the newest. Several within one turn of the loop cost one push.

        A view of an older revision is refused and reported; once `stop` was called, any is one of a drain.
        """
        if self._view is not None and view.revision < self._view.revision:
            facts = {"revision": view.revision, "present": self._view.revision}
            self._on_event("view-refused", facts)
            return
        self._view = replace(view, draining=True, owns_vip=False) if self._is_stopping else view
        self._published.set()

    async def _follow(self) -> None:
        """Pushes the newest view whenever there is a newer one."""
        while True:
            await self._published.wait()
            self._published.clear()
            self._push()

    def _push(self) -> None:
        view = self._view
        if view is None or view == self._pushed:
            return
        before, self._pushed = self._pushed, view
        if before is not None and replace(before, revision=view.revision) == view:
            self._server.advance(Version(view.revision, self._serial))
            return
        self._serial += 1
        if view.northbound_open and not (before and before.northbound_open):
            self._in_force.on_opened(self._serial)
        failpoints.hit("xds.before-push")
        places = self._pulses.lead_to(view.database_primary)
        self._server.push(decide(view, self._settings, places), Version(view.revision, self._serial))
        failpoints.hit("xds.pushed")

    # ---- what Envoy has in force ---------------------------------------------------

    @property
    def vip_listening(self) -> bool:
        """Envoy has confirmed that it listens on the virtual IP."""
        return NORTHBOUND_VIP in self._in_force.listening

    @property
    def northbound_listening(self) -> bool:
        """Envoy has confirmed that it listens on this host's own address."""
        return NORTHBOUND in self._in_force.listening

    def northbound_problems(self) -> tuple[str, ...]:
        """Why Envoy does not take calls where it should, with what to do; empty when it does."""
        node = f"{bootstrap.ENVOY_NODE_PREFIX}{self._settings.host}"
        return northbound_problems(
            self._view,
            self._settings,
            self._in_force.listening,
            envoy_runs=self.envoy_handle() is not None,
            refusal=self._refusals.get((node, Kind.LISTENER), ""),
        )

    async def wait_vip_listening(self) -> None:
        """Returns when Envoy listens on the virtual IP; the caller sets the deadline."""
        while not self.vip_listening:
            await self._changed.wait()

    async def wait_northbound_closed(self) -> None:
        """Returns when Envoy takes no new northbound connection, or is not running."""
        while self._in_force.listening & {NORTHBOUND, NORTHBOUND_VIP} and self.envoy_handle() is not None:
            await self._changed.wait()

    def envoy_handle(self) -> ProcessHandle | None:
        """The running Envoy, for the fence process; None while there is none."""
        return self._envoy.handle()

    async def close_northbound(self) -> None:
        """Fencing: closes the northbound listeners; calls on open connections get UNAVAILABLE.

        Views published later must say `northbound_open=False` until it may open again.
        """
        if self._view is not None:
            self.publish(replace(self._view, northbound_open=False, owns_vip=False))
            await self.wait_northbound_closed()
            # without a listener Envoy may have let go of the routes, and then never confirms them
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUTES_S):
                    while not self._in_force.has_routes_of(self._serial):
                        await self._changed.wait()

    async def stop(self, *, grace_s: float) -> None:
        """Takes no new connection, finishes the calls in hand within *grace_s*, ends Envoy.

        `run` has to be cancelled by the caller.
        """
        try:
            async with asyncio.timeout(grace_s):
                await self._drain()
        except TimeoutError:
            self._on_event("drain-overrun", {"grace_s": grace_s})
        await self._envoy.stop(grace_s=ENVOY_EXIT_S)

    async def _drain(self) -> None:
        self._is_stopping = True
        if self._view is None:
            return
        self.publish(self._view)
        await self.wait_northbound_closed()
        while await calls_in_hand(self._settings):  # noqa: ASYNC110 - Envoy knows, and must be asked
            await asyncio.sleep(DRAIN_POLL_S)

    def _on_report(self, node: str, report: Report) -> None:
        reason = report.reason if isinstance(report, Rejected) else ""
        self._report_refusal(node, report.kind, reason)
        if node != f"{bootstrap.ENVOY_NODE_PREFIX}{self._settings.host}":
            return
        with self._watching():
            self._in_force.on_report(report)
        if report.kind is Kind.LISTENER:
            self._retry_bind(reason)

    def _on_held(self, node: str, version: Version) -> None:
        """Nothing is sent until this sidecar has applied what its predecessor had."""
        self._on_event("snapshot-held", {"node": node, "version": str(version)})

    def _report_refusal(self, node: str, kind: Kind, reason: str) -> None:
        if not reason:
            self._refusals.pop((node, kind), None)
        elif self._refusals.get((node, kind)) != reason and len(self._refusals) < STREAMS_MAX:
            self._refusals[node, kind] = reason
            self._on_event("xds-rejected", {"node": node, "kind": kind.value, "reason": reason})

    def _retry_bind(self, reason: str) -> None:
        """Pushes the listeners again when an address was taken; at once, then with patience."""
        if "bind" not in reason:
            self._bind_refusals = 0
            return
        self._bind_refusals += 1
        delay_s = BIND_RETRY_S if self._bind_refusals < BIND_RETRIES_QUICK else BIND_RETRY_S_MAX
        asyncio.get_running_loop().call_later(delay_s, self._server.resend_to_envoy, Kind.LISTENER)

    def _on_envoy_event(self, name: str, facts: Mapping[str, object]) -> None:
        if name == "envoy-exited":
            with self._watching():
                self._in_force.on_exit()
        self._on_event(name, facts)

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Wakes those who wait for something to be in force."""
        vip_before, own_before = self.vip_listening, self.northbound_listening
        yield
        if own_before != self.northbound_listening:
            self._on_event("northbound-listening", {"listening": self.northbound_listening})
        if vip_before != self.vip_listening:
            self._on_event("vip-listening", {"listening": self.vip_listening})
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
