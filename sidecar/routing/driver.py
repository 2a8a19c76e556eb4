"""Drives Envoy and proxyless clients of this host from views of the cluster."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from sidecar.routing import bootstrap
from sidecar.routing.decide import decide
from sidecar.routing.model import NORTHBOUND, NORTHBOUND_VIP, RoutingSettings, RoutingView
from sidecar.routing.process import EnvoyProcess, ProcessHandle
from sidecar.routing.server import AdsServer
from sidecar.routing.stream import Kind, Rejected, Report, Version

OnEvent = Callable[[str, Mapping[str, object]], None]

#: An address that another process still holds is tried again this soon.
BIND_RETRY_S = 0.02


class Routing:
    """Routing of one host: `publish` what is, and Envoy follows within milliseconds.

    Until the first `publish`, Envoy and clients are told nothing and keep what
    they have. Events (name, facts) go to *on_event*: envoy-started, envoy-adopted,
    envoy-replaced, envoy-exited, xds-rejected, view-refused, vip-listening.
    """

    def __init__(self, settings: RoutingSettings, on_event: OnEvent) -> None:
        self._settings = settings
        self._on_event = on_event
        self._server = AdsServer(settings, self._on_report)
        self._envoy = EnvoyProcess(settings, self._on_envoy_event)
        self._view: RoutingView | None = None
        self._pushed: RoutingView | None = None
        self._serial = 0
        self._scheduled = False
        self._listening: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serves until cancelled; Envoy stays behind and keeps routing (see `stop`)."""
        bootstrap.prepare(self._settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.run(), name="ads-server")
            group.create_task(self._envoy.run(), name="envoy")

    # ---- views --------------------------------------------------------------------

    def publish(self, view: RoutingView) -> None:
        """Makes *view* the newest. Several within one turn of the loop cost one push.

        A view of an older revision is refused and reported.
        """
        if self._view is not None and view.revision < self._view.revision:
            facts = {"revision": view.revision, "present": self._view.revision}
            self._on_event("view-refused", facts)
            return
        self._view = view
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._push)

    def _push(self) -> None:
        self._scheduled = False
        view = self._view
        if view is None or view == self._pushed:
            return
        self._pushed = view
        self._serial += 1
        self._server.push(decide(view, self._settings), Version(view.revision, self._serial))

    # ---- what Envoy has in force ---------------------------------------------------

    @property
    def vip_listening(self) -> bool:
        """Envoy has confirmed that it listens on the virtual IP."""
        return NORTHBOUND_VIP in self._listening

    @property
    def northbound_listening(self) -> bool:
        """Envoy has confirmed that it listens on this host's own address."""
        return NORTHBOUND in self._listening

    async def wait_vip_listening(self) -> None:
        """Returns when Envoy listens on the virtual IP; the caller sets the deadline."""
        while not self.vip_listening:
            await self._changed.wait()

    async def wait_northbound_closed(self) -> None:
        """Returns when Envoy takes no new northbound connection, or is not running."""
        while self._listening & {NORTHBOUND, NORTHBOUND_VIP} and self.envoy_handle() is not None:
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

    async def stop(self, *, grace_s: float) -> None:
        """Closes the northbound listeners, then ends Envoy; `run` has to be cancelled by the caller."""
        try:
            async with asyncio.timeout(grace_s):
                await self.close_northbound()
        except TimeoutError:
            self._on_event("drain-overrun", {"grace_s": grace_s})
        await self._envoy.stop(grace_s=grace_s)

    def _on_report(self, node: str, report: Report) -> None:
        is_envoy = node == f"{bootstrap.ENVOY_NODE_PREFIX}{self._settings.host}"
        if isinstance(report, Rejected):
            facts = {"node": node, "kind": report.kind.value, "reason": report.reason}
            self._on_event("xds-rejected", facts)
        if is_envoy and report.kind is Kind.LISTENER:
            reason = report.reason if isinstance(report, Rejected) else ""
            self._set_listening(frozenset(name for name in report.names if name not in reason))
            if "bind" in reason:
                loop = asyncio.get_running_loop()
                loop.call_later(BIND_RETRY_S, self._server.resend_to_envoy, Kind.LISTENER)

    def _on_envoy_event(self, name: str, facts: Mapping[str, object]) -> None:
        if name == "envoy-exited":
            self._set_listening(frozenset())
        self._on_event(name, facts)

    def _set_listening(self, names: frozenset[str]) -> None:
        if names == self._listening:
            return
        was, self._listening = self.vip_listening, names
        if was != self.vip_listening:
            self._on_event("vip-listening", {"listening": self.vip_listening})
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
