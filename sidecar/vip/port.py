"""What the app needs of a virtual IP, whatever carries it."""

from typing import Protocol

from mesh.errors import Refused, Unavailable
from mesh.ids import FencingTerm


class DuplicateAddress(Refused):
    """A stranger answers for the address; metadata `holder` has its MAC address."""

    reason = "VIP_DUPLICATE"


class VipUnavailable(Unavailable):
    """The kernel refused; the message has its reason."""

    reason = "VIP_UNAVAILABLE"


class VipDriver(Protocol):
    """One virtual IP on this host.

    It knows no leases: the app claims only while it may act, has registered the
    address with the fence before, and releases when it may not.
    """

    async def claim(self, fencing_term: FencingTerm, *, probe: bool = True) -> None:
        """Hold the address from now on and tell the neighbours.

        `probe`: ask first whether somebody else has it (at most 60 ms). Leave it
        out when the former owner released it or is known to be cleared: the
        cluster had the address then, and each probe costs outage.
        Cancellation: the address is released.
        Fails: DuplicateAddress, VipUnavailable; then it is not held.
        """

    async def refresh(self) -> None:
        """Do what is due: renew the kernel's lifetime, announce. Nothing while not held."""

    async def release(self) -> None:
        """Give the address up; done already is success."""

    def is_held(self) -> bool:
        """This host answers for the address now."""

    async def wait_due(self) -> None:
        """Return when `refresh` has something to do."""
