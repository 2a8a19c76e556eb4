"""Members as processes that are killed and stopped for real."""

import asyncio
import json
import signal
import statistics
import time
from pathlib import Path

import pytest

from mesh.adapters.channel import open_channel
from mesh.adapters.leader_client import LeaderClient
from mesh.errors import OutcomeUnknown, Refused, Unavailable
from mesh.ids import Index, MemberId
from tests.driver.processes import Trio, running_trio
from tests.driver.toys import CLUSTER

pytestmark = pytest.mark.integration


async def test_a_killed_leader_is_replaced_long_before_the_election_timeout(tmp_path: Path) -> None:
    """SIGKILL eight times; the kernel's refusal is the proof. The timeout alone would be 1.5 s and more."""
    took_ms = []
    async with running_trio(tmp_path) as trio:
        leader, _ = await trio.wait_leader()
        for _ in range(8):
            # Both followers follow: otherwise there is nobody who could notice.
            for member, process in trio.running.items():
                if member != leader:
                    await process.wait_said(lambda fact, leader=leader: fact.get("leader") == leader)  # type: ignore[misc]
            killed = time.monotonic()
            await trio.kill(leader)
            dead = leader
            leader, at = await trio.wait_leader(after=killed)
            took_ms.append((at - killed) * 1e3)
            await trio.start(dead)
            await trio.running[dead].wait_said(lambda fact: fact.get("leader") is not None)
    print(f"leader after {statistics.median(took_ms):.1f} ms, at most {max(took_ms):.1f} ms")
    assert statistics.median(took_ms) < 300
    assert max(took_ms) < 1_500


async def test_a_stopped_leader_gives_no_proof_but_is_replaced_by_timeout(tmp_path: Path) -> None:
    """SIGSTOP: the kernel still accepts connections, so nobody may call it dead; after SIGCONT it follows."""
    async with running_trio(tmp_path) as trio:
        leader, _ = await trio.wait_leader()
        frozen = trio.running.pop(leader)
        stopped = time.monotonic()
        frozen.child.send_signal(signal.SIGSTOP)
        try:
            new, _ = await trio.wait_leader(after=stopped)
            assert new != leader
            crashes = [fact for each in trio.running.values() for fact in each.said if "crashed" in fact]
            assert crashes == []
        finally:
            frozen.child.send_signal(signal.SIGCONT)
            trio.running[leader] = frozen
        await frozen.wait_said(lambda fact: fact.get("leader") == new, after=stopped)


async def test_a_frozen_follower_comes_back_without_disturbing_the_leader(tmp_path: Path) -> None:
    """SIGSTOP for longer than the longest election timeout; it must read its inbox before it stands."""
    async with running_trio(tmp_path) as trio:
        leader, _ = await trio.wait_leader()
        frozen = trio.running[next(member for member in trio.members if member != leader)]
        await frozen.wait_said(lambda fact: fact.get("leader") == leader)
        for _ in range(2):
            stopped = time.monotonic()
            frozen.child.send_signal(signal.SIGSTOP)
            await asyncio.sleep(3)  # how long it stands still is the input here
            frozen.child.send_signal(signal.SIGCONT)
            await asyncio.sleep(3)  # longer than it would take it to stand
            said = [fact for each in trio.running.values() for fact in each.said if fact["at"] > stopped]
            assert [fact for fact in said if fact.get("role") in ("candidate", "leader")] == []
            assert [fact for fact in said if "crashed" in fact] == []


async def test_a_killed_follower_disturbs_nobody(tmp_path: Path) -> None:
    """Goal: a crash proof about a follower starts no election.

    Method: SIGKILL it, wait for the proof at both others, restart it.
    """
    async with running_trio(tmp_path) as trio:
        leader, _ = await trio.wait_leader()
        follower = next(member for member in trio.members if member != leader)
        for process in trio.running.values():  # who has not been connected to it could not notice
            await process.wait_said(lambda fact: fact.get("leader") == leader)
        killed = time.monotonic()
        await trio.kill(follower)
        for process in trio.running.values():
            await process.wait_said(lambda fact: fact.get("crashed") == follower, after=killed)
        await trio.start(follower)
        await trio.running[follower].wait_said(lambda fact: fact.get("leader") == leader)
        changes = [f for each in trio.running.values() for f in each.said if f.get("role") == "candidate"]
        assert all(fact["at"] < killed for fact in changes)


class Client:
    """Proposes numbers from outside, to whoever leads, and keeps what was acknowledged."""

    def __init__(self, trio: Trio) -> None:
        identity = trio.identity("client")
        self.channels = {
            member: open_channel(address, member, identity) for member, address in trio.addresses.items()
        }
        self.client = LeaderClient(CLUSTER, MemberId("client.1"), self.channels.get)
        self.acknowledged: dict[int, Index] = {}

    async def propose_all(self, numbers: range) -> None:
        leader = next(iter(self.channels))
        for number in numbers:
            while number not in self.acknowledged:
                try:
                    index, _ = await self.client.propose(leader, b"%d" % number, timeout_s=2)
                    self.acknowledged[number] = index
                except (Refused, Unavailable, OutcomeUnknown) as error:
                    named = MemberId(error.metadata.get("leader", ""))
                    others = [each for each in self.channels if each != leader]
                    leader = named if named in self.channels else others[number % len(others)]
                    await asyncio.sleep(0.005)

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()


async def test_no_acknowledged_command_is_lost_while_leaders_are_killed(tmp_path: Path) -> None:
    """Every acknowledged command has an index of its own, and the final log is at least that long."""
    async with running_trio(tmp_path) as trio:
        leader, _ = await trio.wait_leader()
        client = Client(trio)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.client.run())
            await asyncio.sleep(0)
            proposing = tasks.create_task(client.propose_all(range(600)))
            for round_ in range(3):
                async with asyncio.timeout(20):
                    while len(client.acknowledged) < 100 * (round_ + 1):
                        await asyncio.sleep(0.005)
                killed = time.monotonic()
                await trio.kill(leader)
                dead = leader
                leader, _ = await trio.wait_leader(after=killed)
                await trio.start(dead)
                await trio.running[dead].wait_said(lambda fact: fact.get("leader") is not None)
            await proposing
            indexes = list(client.acknowledged.values())
            assert len(set(indexes)) == len(indexes) == 600
            # The outcome of the toy counts all commands before it: none of the acknowledged may be missing.
            _, count = await client.client.propose(leader, b"end", timeout_s=5)
            assert json.loads(count) >= 601
            running.cancel()
        await client.close()
