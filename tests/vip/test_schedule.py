"""When the virtual IP is announced and renewed, and the loop that does it."""

import asyncio
from dataclasses import replace

import pytest

from mesh.ids import FencingTerm
from sidecar.vip import decide
from sidecar.vip.decide import Held
from sidecar.vip.driver import keep_vip
from sidecar.vip.listener_vip import ListenerVip
from sidecar.vip.port import VipDriver, VipUnavailable

S = 10**9


def announced(held: Held, until: int) -> list[int]:
    """When announcements go out if each is sent when it is due."""
    times = []
    while (at := decide.next_announcement(held)) <= until:
        times.append(at - held.announce_from)
        held = replace(held, announced_at=at)
    return times


def test_announcements_follow_a_claim_closely_and_then_every_ten_seconds() -> None:
    """Goal: a lost first frame costs 0.1 s, not a cache's life. Method: the row of due times."""
    held = Held(announce_from=7 * S, refreshed_at=7 * S)
    assert announced(held, 33 * S) == [0, S // 10, S, 5 * S, 15 * S, 25 * S]


def test_a_link_up_starts_the_series_again() -> None:
    """Goal: a switch that forgot is told at once. Method: a new start in the middle."""
    held = Held(announce_from=0, refreshed_at=0, announced_at=15 * S)
    again = replace(held, announce_from=17 * S)
    assert announced(again, 23 * S) == [0, S // 10, S, 5 * S]


def test_a_late_loop_skips_what_it_missed() -> None:
    """Goal: no burst after a pause. Method: last announced between two due times."""
    held = Held(announce_from=0, refreshed_at=0, announced_at=3 * S)
    assert decide.next_announcement(held) == 5 * S


def test_the_lifetime_is_renewed_thrice_before_it_lapses() -> None:
    """Goal: two failed renewals do no harm. Method: due times and the kernel's end."""
    held = Held(announce_from=0, refreshed_at=10 * S, announced_at=10 * S)
    assert decide.next_refresh(held) == 10 * S + S // 2
    assert decide.next_due(held) == 10 * S + S // 2
    assert decide.next_due(replace(held, announced_at=None)) == 0
    assert decide.is_kept_by_kernel(held, 12 * S - 1)
    assert not decide.is_kept_by_kernel(held, 12 * S)


class Scripted:
    """A VipDriver whose due times come from the test."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[str] = []
        self.due: asyncio.Queue[None] = asyncio.Queue(maxsize=8)
        self._fails = fails

    async def claim(self, fencing_term: FencingTerm, *, probe: bool = True) -> None:
        self.calls.append("claim")

    async def refresh(self) -> None:
        self.calls.append("refresh")
        if self._fails:
            raise VipUnavailable("the link is gone")

    async def release(self) -> None:
        self.calls.append("release")

    def is_held(self) -> bool:
        return True

    async def wait_due(self) -> None:
        await self.due.get()


async def drive(vip: Scripted, allowed: list[bool]) -> None:
    keeper = asyncio.create_task(keep_vip(vip, allowed.pop))
    async with asyncio.timeout(2):
        for calls in range(1, len(allowed) + 1):
            vip.due.put_nowait(None)
            while len(vip.calls) < calls:
                await asyncio.sleep(0)
    keeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeper


async def test_the_loop_refreshes_while_allowed_and_then_releases() -> None:
    """Goal: a host that may no longer act gives it up at once. Method: allowed twice, then not."""
    vip = Scripted()
    await drive(vip, [False, True, True])
    assert vip.calls == ["refresh", "refresh", "release"]


async def test_a_refresh_that_fails_is_tried_again_when_due() -> None:
    """Goal: one error does not end the loop. Method: a driver that always fails."""
    vip = Scripted(fails=True)
    await drive(vip, [True, True])
    assert vip.calls == ["refresh", "refresh"]


async def test_on_loopback_the_listener_is_the_address() -> None:
    """Goal: held means that somebody listens, not that it was asked for.

    Method: claim, listen, release, in steps.
    """
    wanted: list[bool] = []
    vip = ListenerVip(wanted.append)
    port: VipDriver = vip
    await port.claim(FencingTerm(3))
    await port.claim(FencingTerm(4))
    assert vip.is_wanted
    assert not vip.is_held()
    vip.set_listening(True)
    assert vip.is_held()
    await port.refresh()
    await port.release()
    assert not vip.is_held()
    assert wanted == [True, False]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await port.wait_due()
