"""The host's loop, with toys for hands: what it tells the fence, losing it, and a round that never ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from mesh.errors import InvariantBroken, NoLeader, Unavailable
from mesh.ids import VIP, FencingTerm, HostId, Index, InstanceId, MemberId, Term
from mesh.lease.holder import HostLease
from mesh.limits import EXCLUSIVE_NEWS_MAX
from mesh.replica import Replica
from mesh.state.commands import (
    AdmitMember,
    AssignOwner,
    Batch,
    InitCluster,
    Request,
    RequestRelease,
    SetHostStatus,
)
from mesh.state.model import HostStatus, MemberRole
from mesh.wire.command import encode_request
from sidecar.app import host as host_module
from sidecar.app.hands import Hands
from sidecar.app.host import HostDriver
from sidecar.supervisor.model import ExclusiveHandle
from tests.app.test_replica_lanes import OneMember
from tests.routing.harness import until
from tests.sim.cluster import CLUSTER, member_row

A, B = InstanceId("a@host1#0"), InstanceId("b@host1#0")


class CaughtUp(OneMember):
    """A log that has confirmed every read."""

    async def read_barrier(self, *, timeout_s: float) -> Index:
        return self.applied


class NeverCaughtUp(OneMember):
    """A log that no quorum stands behind: nothing is confirmed."""

    async def read_barrier(self, *, timeout_s: float) -> Index:
        await asyncio.sleep(timeout_s)
        raise NoLeader("there is no leader")


class ToyHands:
    """Instances, routes and fence in one; what the fence was told is kept."""

    vip_listening = False

    def __init__(self) -> None:
        self.told: list[tuple[str, int | None]] = []
        self.may_tell = asyncio.Event()
        self.kills = 0
        self.stuck = asyncio.Event()
        self.stuck.set()

    def assign(self, assignments: object) -> None: ...
    def statuses(self) -> tuple[()]:
        return ()

    async def kill_exclusive(self) -> None:
        self.kills += 1
        await self.stuck.wait()

    def publish(self, view: object) -> None: ...
    def envoy_handle(self) -> None: ...
    def set_deadline(self, deadline_ns: int) -> None: ...
    async def register_tree(self, name: str, pid: int, start_time: int, cgroup: str | None) -> None:
        await self.may_tell.wait()
        self.told.append((name, pid))
        if pid < 0:
            raise Unavailable("there is no fence process")

    async def register_address(self, name: str, ifindex: int, address: str, prefix: int) -> None: ...
    async def unregister(self, name: str) -> None:
        await self.may_tell.wait()
        self.told.append((name, None))


class NoBeats:
    """A host that has given nothing up."""

    releases: dict[object, object] = {}  # noqa: RUF012 - never changed

    def wake(self) -> None: ...


def handle(pid: int) -> ExclusiveHandle:
    return ExclusiveHandle(pid, 1, "")


def made(
    hands: ToyHands,
    lease: HostLease | None = None,
    now: list[int] | None = None,
    log: type[OneMember] = CaughtUp,
    content: Batch | None = None,
) -> HostDriver:
    replica = Replica(MemberId("host1.1"))
    member = log(replica)
    replica.attach(member)
    if content is not None:
        member.append(encode_request(Request(content)))
    clock = now or [0]
    return HostDriver(
        host=HostId("host1"), replica=replica, lease=lease or HostLease(), beats=NoBeats(),  # type: ignore[arg-type] # toys
        hands=Hands(hands, hands, hands), vip=lambda: None, leader=lambda: None,
        margin_ns=0, boottime_ns=lambda: clock[0],
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(driver: HostDriver) -> AsyncIterator["asyncio.Task[None]"]:
    """Its loop, until the end."""
    task = asyncio.create_task(driver.run(), name="host")
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ExceptionGroup):
            await task


async def test_the_fence_is_told_the_newest_of_each_process() -> None:
    """Goal: news that is out of date is not told, and none is lost. Method: the fence takes its time."""
    hands = ToyHands()
    driver = made(hands)
    async with running(driver):
        driver.exclusive_changed(A, handle(1))
        await asyncio.sleep(0)
        for pid in (2, 3):
            driver.exclusive_changed(A, None)
            driver.exclusive_changed(A, handle(pid))
        driver.exclusive_changed(B, handle(4))
        driver.exclusive_changed(B, None)
        hands.may_tell.set()
        await until(lambda: hands.told and hands.told[-1] == (B, None))
    assert hands.told[-2:] == [(A, 3), (B, None)]


async def test_more_processes_than_a_host_can_have_are_a_bug() -> None:
    """Goal: the bound holds; news of a process that is known already still fits."""
    driver = made(ToyHands())
    for number in range(EXCLUSIVE_NEWS_MAX):
        driver.exclusive_changed(InstanceId(f"a@host1#{number}"), handle(1))
    driver.exclusive_changed(InstanceId("a@host1#0"), None)
    with pytest.raises(InvariantBroken):
        driver.exclusive_changed(B, handle(1))


async def test_what_the_fence_cannot_hold_is_killed() -> None:
    """Goal: nothing exclusive runs unguarded. Method: a fence that refuses."""
    hands = ToyHands()
    hands.may_tell.set()
    driver = made(hands)
    async with running(driver):
        driver.exclusive_changed(A, handle(-1))
        await until(lambda: hands.kills == 1)


async def test_a_host_that_loses_its_fence_is_not_live_and_says_so() -> None:
    """Goal: no lease counts without a fence. Method: a lease far ahead, then the loss."""
    hands, lease = ToyHands(), HostLease()
    lease.leadership_confirmed(0, 10**12, Term(0))
    driver = made(hands, lease)
    assert driver.is_live()
    async with running(driver):
        await driver.wait_step()
        driver.fence_lost("it was killed three times")
        await until(lambda: hands.kills)
    assert not driver.is_live()
    assert "it was killed three times" in driver.fenced_reason()


async def test_a_round_that_does_not_end_ends_the_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: others wait no longer than the patience for a host that cannot let go.

    Method: short rounds; the lease is lost, and killing what is exclusive never ends.
    """
    monkeypatch.setattr(host_module, "IDLE_S", 0.01)
    monkeypatch.setattr(host_module, "PATIENCE_S", 0.1)
    hands, lease, now = ToyHands(), HostLease(), [0]
    lease.leadership_confirmed(0, 10**9, Term(0))
    driver = made(hands, lease, now)
    async with running(driver) as task:
        await driver.wait_step()
        hands.stuck.clear()
        now[0] = 2 * 10**9
        driver.wake()
        with pytest.raises(ExceptionGroup) as ended:
            await asyncio.wait_for(asyncio.shield(task), 5)
    assert ended.group_contains(Unavailable, match="could not do what it must")


#: Host 1 owns the virtual IP and is asked to give it to host 2.
ASKED = Batch(
    (
        InitCluster(CLUSTER, member_row(MemberId("host1.1"), MemberRole.VOTER), "10.0.0.100:443"),
        AdmitMember(member_row(MemberId("host2.1"), MemberRole.VOTER)),
        SetHostStatus(HostId("host1"), MemberId("host1.1"), HostStatus.ALIVE, "it beats"),
        AssignOwner(VIP, HostId("host1"), FencingTerm(0)),
        RequestRelease(VIP, HostId("host2")),
    )
)


async def test_only_a_host_that_others_wait_for_ends_because_it_gives_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: a host that comes back where no quorum is stays, as nobody waits for it; one that is granted
    leases and cannot catch up ends. Method: short rounds; what is on disk asks for a release, and no read is
    ever confirmed; after many times the patience, a lease comes."""
    monkeypatch.setattr(host_module, "IDLE_S", 0.01)
    monkeypatch.setattr(host_module, "PATIENCE_S", 0.1)
    lease = HostLease()
    driver = made(ToyHands(), lease, log=NeverCaughtUp, content=ASKED)
    async with running(driver) as task:
        done, _ = await asyncio.wait([task], timeout=0.5)
        assert not done
        lease.leadership_confirmed(0, 10**12, Term(0))
        with pytest.raises(ExceptionGroup) as ended:
            await asyncio.wait_for(asyncio.shield(task), 5)
    assert ended.group_contains(Unavailable, match="vip could not be given up")
