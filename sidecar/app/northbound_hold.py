"""Opens the northbound side only while the fence can close it.

A sidecar that has lost its lease closes the northbound listeners itself. One that is frozen or dead
cannot, and Envoy would go on with routes that grow older. So the fence holds Envoy: it ends it when the
deadline passes, and no sooner: a sidecar that is started again within the lease takes it over.
See docs/decisions/0013.

Order: held by the fence → opened; confirmed closed → let go.
"""

import asyncio
from dataclasses import replace
from typing import Final, Protocol

import structlog

from mesh.errors import TrellisError
from sidecar.routing.model import RoutingView
from sidecar.routing.process import ProcessHandle

LOG = structlog.get_logger(__name__)

NORTHBOUND: Final = "northbound"
#: After a fence process that could not hold it.
RETRY_S: Final = 0.2


class Routes(Protocol):
    """What this needs of the routing."""

    @property
    def vip_listening(self) -> bool: ...
    @property
    def northbound_listening(self) -> bool: ...
    def publish(self, view: RoutingView) -> None: ...
    def envoy_handle(self) -> ProcessHandle | None: ...


class Holder(Protocol):
    """What this needs of the fence."""

    async def register_tree(
        self, name: str, pid: int, start_time: int, cgroup: str | None, *, waits: bool = False
    ) -> None: ...
    async def unregister(self, name: str) -> None: ...


class NorthboundHold:
    """The routing as the host's loop sees it, with the northbound side closed until the fence holds Envoy.

    `changed` after whatever Envoy did; `fenced` after the fence has acted; `run` until cancelled.
    """

    def __init__(self, *, routing: Routes, fence: Holder) -> None:
        self._routing = routing
        self._fence = fence
        self._view: RoutingView | None = None
        self._held: ProcessHandle | None = None
        self._wake = asyncio.Event()

    @property
    def vip_listening(self) -> bool:
        """Envoy has confirmed that it listens on the virtual IP."""
        return self._routing.vip_listening

    def envoy_handle(self) -> ProcessHandle | None:
        """The process, if it runs."""
        return self._routing.envoy_handle()

    def publish(self, view: RoutingView) -> None:
        """Route so from now on."""
        self._view = view
        self._routing.publish(replace(view, northbound_open=view.northbound_open and self._is_held()))
        self._wake.set()

    def changed(self) -> None:
        """Envoy started, ended, opened or closed something."""
        self._wake.set()

    def fenced(self) -> None:
        """The fence has cleared what it held."""
        self._held = None
        self._wake.set()

    def _is_held(self) -> bool:
        envoy = self._routing.envoy_handle()
        return envoy is not None and envoy == self._held

    async def run(self) -> None:
        """Keep the fence holding the Envoy that is, or should be, open."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._settle()
            except TrellisError as error:
                LOG.warning("northbound-not-held", error=str(error))
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _settle(self) -> None:
        view, envoy = self._view, self._routing.envoy_handle()
        if view is None:
            return
        if view.northbound_open and envoy is not None and envoy != self._held:
            await self._fence.register_tree(NORTHBOUND, envoy.pid, envoy.start_time, None, waits=True)
            self._held = envoy
            self.publish(self._view or view)
        elif not view.northbound_open and self._held is not None and not self._is_open():
            self._held = None
            await self._fence.unregister(NORTHBOUND)

    def _is_open(self) -> bool:
        return self._routing.northbound_listening or self._routing.vip_listening
