"""Adds and removes one address of an interface by netlink, with a kernel lifetime."""

import errno
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sidecar.vip.port import VipUnavailable

#: No duplicate detection by the kernel: it would leave the address unusable for a second.
_NO_DAD: Final = 0x02
_HAVE_IT: Final = errno.EEXIST
_NOT_THERE: Final = (errno.EADDRNOTAVAIL, errno.ENODEV)


class Addresses:
    """One host address on one interface: /32 or /128, so that it never is anybody's primary.

    Fails: OSError when there is no such interface.
    """

    def __init__(self, interface: str, address: IPv4Address | IPv6Address) -> None:
        self.ifindex = socket.if_nametoindex(interface)
        self.prefix = address.max_prefixlen
        self._address = str(address)
        self._is_v6 = address.version == 6
        self._netlink: Any = None

    async def keep(self, valid_s: int) -> None:
        """Add the address, or let it live for `valid_s` from now.

        Fails: VipUnavailable.
        """
        flags = {"flags": _NO_DAD} if self._is_v6 else {}
        await self._ask("replace", (_HAVE_IT,), preferred_lft=valid_s, valid_lft=valid_s, **flags)

    async def remove(self) -> None:
        """Remove it; not being there is success.

        Fails: VipUnavailable.
        """
        await self._ask("del", _NOT_THERE)

    async def _ask(self, command: str, done: tuple[int, ...], **more: int) -> None:
        if self._netlink is None:
            self._netlink = AsyncIPRoute(groups=0)
            await self._netlink.setup_endpoint()
        family = socket.AF_INET6 if self._is_v6 else socket.AF_INET
        try:
            await self._netlink.addr(
                command,
                index=self.ifindex,
                address=self._address,
                prefixlen=self.prefix,
                family=family,
                **more,
            )
        except NetlinkError as error:
            if error.code not in done:
                raise VipUnavailable(
                    f"The kernel refused to {command} {self._address} on interface {self.ifindex}: {error}."
                    " Check the interface and that the sidecar has CAP_NET_ADMIN.",
                    errno=error.code,
                ) from error

    async def close(self) -> None:
        if self._netlink is not None:
            await self._netlink.close()
            self._netlink = None
