"""Claims and gives up the virtual IP, with the fence told first.

Two carriers: an address on an interface (the fence removes the address), or on
loopback the owner's Envoy alone (the fence kills that Envoy).

Order: fence registered → claimed; released → fence unregistered. What is
registered and not held costs nothing when the fence acts.
"""

from collections.abc import Callable
from ipaddress import ip_address

import structlog

from mesh import failpoints
from mesh.errors import Problem, SettingsError, TrellisError
from mesh.ids import VIP, FencingTerm
from mesh.settings.model import HostSettings
from sidecar.app.hands import Fence, Interface, Routes
from sidecar.routing.process import ProcessHandle
from sidecar.vip.driver import keep_vip
from sidecar.vip.listener_vip import ListenerVip
from sidecar.vip.port import VipDriver, VipUnavailable

LOG = structlog.get_logger(__name__)

ENVOY = "envoy"
FIRST_TERM = FencingTerm(1)


class VipHold:
    """The virtual IP of this host: held or not, and under which fencing term.

    Invariant: `term` is set only while the fence holds the matching thing.
    """

    def __init__(
        self,
        *,
        vip: VipDriver,
        fence: Fence,
        routing: Routes,
        address: str,
        netlink: Interface | None,
    ) -> None:
        self._vip = vip
        self._fence = fence
        self._routing = routing
        self._address = address
        self._netlink = netlink
        self._fenced_envoy: ProcessHandle | None = None
        self._times_fenced = 0
        #: Claimed and not yet given up in order, whatever the fence has done meanwhile.
        self._may_be_up = False
        self.term: FencingTerm | None = None

    def is_gone(self) -> bool:
        """Nothing of it is left on this host."""
        is_up = self.term is not None or self._may_be_up or self._vip.is_held()
        return not is_up and not self._routing.vip_listening

    async def settle(self, wanted: FencingTerm | None, may_act: Callable[[], bool]) -> None:
        """Hold it under `wanted`, or not at all. A refusal is logged and tried again next time.

        Asked again before and after the claim: the lease may end, and the fence act, meanwhile.
        """
        if wanted is None:
            await self.release()
            return
        fenced_before = self._times_fenced
        try:
            await failpoints.passing("vip.before-register")
            if not await self._register() or (self.term == wanted and self._is_claimed()):
                return
            if may_act():
                # A stranger is looked for once. Later owners follow one that held it, and a probe is outage.
                self._may_be_up = True
                await failpoints.passing("vip.before-claim")
                await self._vip.claim(wanted, probe=wanted == FIRST_TERM)
                await failpoints.passing("vip.claimed")
                self.term = wanted
            if self._times_fenced != fenced_before or not may_act():
                await self.release()
        except TrellisError as error:
            LOG.warning("vip-not-claimed", address=self._address, fencing_term=wanted, error=str(error))
            await self.release()

    def _is_claimed(self) -> bool:
        return self._netlink is None or self._vip.is_held()

    async def _register(self) -> bool:
        """Have the fence hold it; False while there is nothing that could carry it."""
        if self._netlink is not None:
            if self.term is None:
                await self._fence.register_address(
                    VIP, self._netlink.ifindex, self._address, self._netlink.prefix
                )
            return True
        envoy = self._routing.envoy_handle()
        if envoy is None:
            self.term = None  # the next Envoy is told to listen once the fence knows it
            return False
        if envoy != self._fenced_envoy:
            await self._fence.register_tree(ENVOY, envoy.pid, envoy.start_time, None)
            self._fenced_envoy = envoy
        return True

    async def release(self) -> None:
        """Give it up; done already is success. The fence lets go once nothing is left."""
        self.term = None
        if self._may_be_up:
            await failpoints.passing("vip.before-release")
            await self._vip.release()
            await failpoints.passing("vip.released")
            self._may_be_up = False
        if self._netlink is not None:
            await self._fence.unregister(VIP)
        elif self._fenced_envoy is not None and not self._routing.vip_listening:
            self._fenced_envoy = None
            await self._fence.unregister(ENVOY)

    def listening(self, is_listening: bool) -> None:
        """Envoy has, or has no longer, the port of the virtual IP."""
        if isinstance(self._vip, ListenerVip):
            self._vip.set_listening(is_listening)

    async def run(self, may_act: Callable[[], bool]) -> None:
        """Refresh it while held; until cancelled. What the fence has cleared is not put up again."""
        await keep_vip(self._vip, lambda: self.term is not None and may_act())

    def fenced(self) -> None:
        """The fence process has cleared it."""
        self._times_fenced += 1
        self.term = None
        self._fenced_envoy = None


def make_vip(
    settings: HostSettings,
    *,
    fence: Fence,
    routing: Routes,
    may_act: Callable[[], bool],
    on_change: Callable[[], None],
) -> VipHold | None:
    """The virtual IP that the settings ask for, or None.

    Fails: SettingsError without the interface or the privileges.
    """
    wanted = settings.virtual_ip
    if wanted is None:
        return None
    if wanted.is_listener_only:
        listener = ListenerVip(lambda _wanted: on_change())
        return VipHold(vip=listener, fence=fence, routing=routing, address=wanted.address, netlink=None)
    from sidecar.vip.netlink_vip import NetlinkVip  # a large library, needed only here

    def conflict(mac: str) -> None:
        LOG.error("vip-conflict", address=wanted.address, holder=mac)

    try:
        netlink = NetlinkVip(wanted.interface, ip_address(wanted.address), conflict, may_act)
    except (OSError, VipUnavailable) as error:
        problem = Problem(
            "virtual_ip.interface",
            f"{wanted.interface} cannot carry {wanted.address} ({error}); name an interface of this host,"
            " and run as root or with CAP_NET_ADMIN and CAP_NET_RAW",
            "eth0",
        )
        raise SettingsError("The virtual IP cannot be carried.", [problem]) from error
    return VipHold(vip=netlink, fence=fence, routing=routing, address=wanted.address, netlink=netlink)
