"""The northbound side is open only while the fence holds the Envoy that would be open."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from mesh.errors import Unavailable
from sidecar.app.northbound_hold import NORTHBOUND, NorthboundHold
from sidecar.routing.model import RoutingView
from sidecar.routing.process import ProcessHandle
from tests.routing.harness import until

FIRST, SECOND = ProcessHandle(101, 1), ProcessHandle(102, 2)
OPEN, CLOSED = RoutingView(1), RoutingView(1, northbound_open=False)


class ToyEnvoy:
    """Listens as it is told, once it has been let: as Envoy does, a moment later."""

    def __init__(self) -> None:
        self.handle: ProcessHandle | None = FIRST
        self.views: list[RoutingView] = []
        self.northbound_listening = False
        self.vip_listening = False

    def publish(self, view: RoutingView) -> None:
        self.views.append(view)

    def envoy_handle(self) -> ProcessHandle | None:
        return self.handle

    @property
    def is_open(self) -> bool:
        return self.views[-1].northbound_open


class ToyFence:
    """Holds what it is given, and refuses as often as it is told to."""

    def __init__(self, envoy: ToyEnvoy) -> None:
        self._envoy = envoy
        self.held: dict[str, tuple[int, int]] = {}
        self.refusals = 0
        self.opened_before_held = False

    async def register_tree(
        self, name: str, pid: int, start_time: int, cgroup: str | None, *, waits: bool = False
    ) -> None:
        assert waits
        assert cgroup is None
        await asyncio.sleep(0)
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("there is no fence process")
        self.opened_before_held |= self._envoy.is_open and name not in self.held
        self.held[name] = (pid, start_time)

    async def unregister(self, name: str) -> None:
        self.held.pop(name, None)


@pytest.fixture
async def parts() -> AsyncIterator[tuple[NorthboundHold, ToyEnvoy, ToyFence]]:
    """A hold that runs."""
    envoy = ToyEnvoy()
    fence = ToyFence(envoy)
    hold = NorthboundHold(routing=envoy, fence=fence)
    running = asyncio.create_task(hold.run(), name="hold")
    yield hold, envoy, fence
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert not fence.opened_before_held


Parts = tuple[NorthboundHold, ToyEnvoy, ToyFence]


async def test_it_opens_once_the_fence_holds_envoy_and_lets_go_once_it_is_closed(parts: Parts) -> None:
    """Goal: both orders. Method: open; then close, with an Envoy that takes a moment to confirm."""
    hold, envoy, fence = parts
    hold.publish(OPEN)
    assert not envoy.is_open
    await until(lambda: envoy.is_open)
    assert fence.held == {NORTHBOUND: (FIRST.pid, FIRST.start_time)}
    envoy.northbound_listening = True
    hold.publish(CLOSED)
    hold.changed()
    for _ in range(5):
        await asyncio.sleep(0)
    assert fence.held, "Envoy has not confirmed yet that it is closed"
    envoy.northbound_listening = False
    hold.changed()
    await until(lambda: not fence.held)


async def test_another_envoy_is_held_before_it_is_opened(parts: Parts) -> None:
    """Goal: no Envoy is open that the fence does not know. Method: replace it while open."""
    hold, envoy, fence = parts
    hold.publish(OPEN)
    await until(lambda: envoy.is_open)
    envoy.handle = None
    hold.publish(OPEN)
    assert not envoy.is_open
    envoy.handle = SECOND
    hold.changed()
    await until(lambda: envoy.is_open)
    assert fence.held == {NORTHBOUND: (SECOND.pid, SECOND.start_time)}


async def test_without_a_fence_it_stays_closed_and_is_tried_again(parts: Parts) -> None:
    """Goal: a fence process that is being replaced costs a moment, not the rule. Method: two refusals."""
    hold, envoy, fence = parts
    fence.refusals = 2
    hold.publish(OPEN)
    await until(lambda: fence.refusals == 1)
    assert not envoy.is_open
    await until(lambda: envoy.is_open)


async def test_after_the_fence_has_acted_it_holds_anew_before_it_opens(parts: Parts) -> None:
    """Goal: what the fence has cleared is registered again. Method: fenced while open."""
    hold, envoy, fence = parts
    hold.publish(OPEN)
    await until(lambda: envoy.is_open)
    fence.held.clear()
    envoy.handle = SECOND
    hold.publish(CLOSED)
    hold.fenced()
    hold.publish(OPEN)
    assert not envoy.is_open
    await until(lambda: envoy.is_open)
    assert fence.held == {NORTHBOUND: (SECOND.pid, SECOND.start_time)}
