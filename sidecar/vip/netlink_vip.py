"""The virtual IP as an address on a real interface.

Order of a claim: probe (unless told not to), address, announcements. The kernel
drops the address `decide.VALID_S` after the last refresh, whatever became of
this process.

A conflict seen while the address is held is reported and makes an announcement
due, at most once a second (RFC 5227 §2.4 c). It is not sent from here: `refresh`
sends it, after the loop asked whether this host may still act. A host that was
frozen finds the new owner's announcements in its queue and must not answer them.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mesh.ids import FencingTerm
from sidecar.vip import arp, decide, ndp
from sidecar.vip.addresses import Addresses
from sidecar.vip.port import DuplicateAddress, VipUnavailable
from sidecar.vip.rawlink import LinkSocket, LinkWatch

_NS: Final = 1_000_000_000
_DEFEND_EACH_NS: Final = _NS


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class NetlinkVip:
    """A VipDriver on one interface. Close it when done; `close` does not release.

    `on_conflict(mac)`: a stranger claims the address while it is held here.
    `may_act()`: asked before each request to the kernel and each announcement, since the lease may end
    while a probe or the kernel is waited for, or while this process stands still: the address must not
    come up on a host that has to let go, and neighbours must not be led there.
    `ifindex`, `prefix` and `address` are what the fence must know.
    Fails: OSError, when made, without the interface or the privileges.
    """

    def __init__(
        self,
        interface: str,
        address: IPv4Address | IPv6Address,
        on_conflict: Callable[[str], None],
        may_act: Callable[[], bool],
    ) -> None:
        self.address = address
        self._may_act = may_act
        self._on_conflict = on_conflict
        self._addresses = Addresses(interface, address)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._link = LinkSocket(interface, family)
        self._watch = LinkWatch(self._addresses.ifindex)
        self._held: decide.Held | None = None
        self._defended_at = -_DEFEND_EACH_NS
        self._rivals: list[bytes] = []
        self._changed = asyncio.Event()
        #: One request at a time, so that none overtakes the release that came after it.
        self._kernel = asyncio.Lock()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._link, self._frames_came)
        loop.add_reader(self._watch, self._link_news_came)

    @property
    def ifindex(self) -> int:
        return self._addresses.ifindex

    @property
    def prefix(self) -> int:
        return self._addresses.prefix

    # ---- VipDriver --------------------------------------------------------------

    async def claim(self, fencing_term: FencingTerm, *, probe: bool = True) -> None:
        if probe and not self.is_held():
            await self._probe(fencing_term)
        now = _now()
        async with self._kernel:
            if not self._may_act():
                raise VipUnavailable(f"{self.address} was not taken: the lease ended before it was added.")
            try:
                await self._addresses.keep(decide.VALID_S)
            except asyncio.CancelledError:
                await self._addresses.remove()
                raise
            if not self._may_act():
                await self._addresses.remove()
                raise VipUnavailable(f"{self.address} was not taken: the lease ended while it was added.")
            self._held = decide.Held(announce_from=now, refreshed_at=now)
        self._announce()
        self._changed.set()

    async def refresh(self) -> None:
        held = self._held
        if held is None:
            return
        now = _now()
        if now >= decide.next_announcement(held):
            self._announce()
        if now >= decide.next_refresh(held):
            async with self._kernel:
                if self._held is None or not self._may_act():
                    return
                # Counted from before the request, so that the kernel never is the earlier one.
                now = _now()
                await self._addresses.keep(decide.VALID_S)
                if self._held is not None:
                    self._held = replace(self._held, refreshed_at=now)

    async def release(self) -> None:
        self._held = None
        self._changed.set()
        async with self._kernel:
            self._held = None  # a claim that was under way has ended meanwhile
            await self._addresses.remove()

    def is_held(self) -> bool:
        return self._held is not None and decide.is_kept_by_kernel(self._held, _now())

    async def wait_due(self) -> None:
        while True:
            self._changed.clear()
            held = self._held
            wait_s = None if held is None else (decide.next_due(held) - _now()) / _NS
            if wait_s is not None and wait_s <= 0:
                return
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def close(self) -> None:
        """Close the sockets; an address still held lapses by its lifetime."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._link)
        loop.remove_reader(self._watch)
        self._link.close()
        self._watch.close()
        await self._addresses.close()

    # ---- the link ---------------------------------------------------------------

    def _announce(self) -> None:
        if not self._may_act():
            return
        if isinstance(self.address, IPv4Address):
            for frame in arp.announcements(self._link.mac, self.address):
                self._link.send(frame)
        else:
            self._link.send(ndp.announcement(self._link.mac, self.address))
        if self._held is not None:
            self._held = replace(self._held, announced_at=_now())

    async def _probe(self, fencing_term: FencingTerm) -> None:
        mac = self._link.mac
        frame = (
            arp.probe(mac, self.address)
            if isinstance(self.address, IPv4Address)
            else ndp.probe(mac, self.address)
        )
        self._rivals.clear()
        for _ in range(decide.PROBES):
            self._link.send(frame)
            self._changed.clear()
            try:
                async with asyncio.timeout(decide.PROBE_S):
                    while not self._rivals:
                        await self._changed.wait()
                        self._changed.clear()
            except TimeoutError:
                continue
            holder = self._rivals[0].hex(":")
            raise DuplicateAddress(
                f"{self.address} is in use by {holder} on this network. Give that machine another"
                " address, or choose another virtual IP in the settings.",
                address=self.address,
                holder=holder,
                fencing_term=fencing_term,
            )

    def _claimant(self, frame: bytes) -> bytes | None:
        if isinstance(self.address, IPv4Address):
            found = arp.claimant(frame, self.address)
            if found is None and self._held is None:
                found = arp.rival_probe(frame, self._link.mac, self.address)
        else:
            found = ndp.claimant(frame, self.address)
        return None if found == self._link.mac else found

    def _frames_came(self) -> None:
        for frame in self._link.receive():
            rival = self._claimant(frame)
            if rival is None:
                continue
            if self._held is None:
                self._rivals[:] = [rival]
                self._changed.set()
            elif _now() >= self._defended_at + _DEFEND_EACH_NS:
                self._defended_at = _now()
                self._held = replace(self._held, announce_from=self._defended_at)
                self._changed.set()
                self._on_conflict(rival.hex(":"))

    def _link_news_came(self) -> None:
        if self._watch.came_up() and self._held is not None:
            self._held = replace(self._held, announce_from=_now())
            self._changed.set()
