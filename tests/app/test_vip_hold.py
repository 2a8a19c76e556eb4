"""Races of the virtual IP's hold: the lease that ends, and the fence that acts, while it is being claimed."""

import asyncio
from collections.abc import Callable

from mesh.ids import VIP, FencingTerm
from sidecar.app.vip_hold import VipHold
from sidecar.vip.port import VipUnavailable

TERM = FencingTerm(3)


class ToyVip:
    """An address that is there once a claim was let through; `during` happens while it is claimed."""

    def __init__(self) -> None:
        self.held = False
        self.during: Callable[[], object] = lambda: None
        self.refuses = False
        self.releases = 0

    async def claim(self, fencing_term: FencingTerm, *, probe: bool = True) -> None:
        await asyncio.sleep(0)
        self.during()
        if self.refuses:
            raise VipUnavailable("the kernel refused")
        self.held = True

    async def refresh(self) -> None: ...
    async def release(self) -> None:
        self.releases += 1
        self.held = False

    def is_held(self) -> bool:
        return self.held

    async def wait_due(self) -> None: ...


class ToyFence:
    """What it holds; nothing else."""

    def __init__(self) -> None:
        self.held: set[str] = set()

    def set_deadline(self, deadline_ns: int) -> None: ...
    async def register_tree(self, name: str, pid: int, start_time: int, cgroup: str | None) -> None:
        self.held.add(name)

    async def register_address(self, name: str, ifindex: int, address: str, prefix: int) -> None:
        self.held.add(name)

    async def unregister(self, name: str) -> None:
        self.held.discard(name)


class NoEnvoy:
    """Routes that carry no virtual IP: an interface does."""

    vip_listening = False

    def publish(self, view: object) -> None: ...
    def envoy_handle(self) -> None: ...


class Eth0:
    ifindex, prefix = 2, 32


def made() -> tuple[VipHold, ToyVip, ToyFence]:
    vip, fence = ToyVip(), ToyFence()
    hold = VipHold(vip=vip, fence=fence, routing=NoEnvoy(), address="10.0.0.9", netlink=Eth0())
    return hold, vip, fence


async def test_the_fence_knows_the_address_before_it_is_claimed_and_until_it_is_gone() -> None:
    """Goal: the order in both directions. Method: look at the fence in the middle of a claim."""
    hold, vip, fence = made()
    seen: list[bool] = []
    vip.during = lambda: seen.append(VIP in fence.held)
    await hold.settle(TERM, lambda: True)
    assert (seen, hold.term, vip.held, hold.is_gone()) == ([True], TERM, True, False)
    await hold.settle(None, lambda: True)
    assert (fence.held, hold.term, vip.held, hold.is_gone()) == (set(), None, False, True)


async def test_a_lease_that_ends_during_the_claim_gives_the_address_up_at_once() -> None:
    """Goal: no round of the loop passes with it. Method: the lease is over when the claim returns."""
    hold, vip, fence = made()
    may_act = [True]

    def end() -> None:
        may_act[0] = False

    vip.during = end
    await hold.settle(TERM, lambda: may_act[0])
    assert (hold.term, vip.held, fence.held, hold.is_gone()) == (None, False, set(), True)


async def test_a_claim_does_not_begin_without_a_lease() -> None:
    """Goal: registering takes time, and the lease may be over then. Method: never a lease."""
    hold, vip, _ = made()
    vip.during = lambda: (_ for _ in ()).throw(AssertionError("it was claimed"))
    await hold.settle(TERM, lambda: False)
    assert hold.is_gone()


async def test_what_the_fence_clears_during_the_claim_is_not_believed_to_be_held() -> None:
    """Goal: the fence's word is the last. Method: it acts in the middle; then the hold is settled anew."""
    hold, vip, fence = made()
    vip.during = hold.fenced
    await hold.settle(TERM, lambda: True)
    assert (hold.term, vip.held, vip.releases) == (None, False, 1)
    vip.during = lambda: None
    await hold.settle(TERM, lambda: True)
    assert (hold.term, vip.held, fence.held) == (TERM, True, {VIP})


async def test_a_refused_claim_leaves_nothing_behind() -> None:
    """Goal: half a claim is none. Method: the kernel refuses after the fence was told."""
    hold, vip, fence = made()
    vip.refuses = True
    await hold.settle(TERM, lambda: True)
    assert (hold.term, fence.held, hold.is_gone(), vip.releases) == (None, set(), True, 1)
