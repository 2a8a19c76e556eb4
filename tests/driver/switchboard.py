"""Drivers joined by a network in memory, whose links can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mesh.adapters.sqlite_log import SqliteLog
from mesh.driver import DriverSettings, RaftDriver
from mesh.errors import TrellisError
from mesh.ids import MemberId
from mesh.raft import first_log
from mesh.raft.model import Message, RaftSettings, Ready, Role
from tests.driver.toys import CLUSTER, Diary, ToyMachine

#: Three times faster than the defaults: a test takes a moment, also on a busy machine.
FAST = DriverSettings(tick_s=0.03, lost_grace_s=0.2)


def fast_raft(member: MemberId) -> RaftSettings:
    return RaftSettings(id=member, heartbeat_ticks=2, election_ticks_min=15, election_ticks_max=30)


class Switchboard:
    """Delivers messages between drivers in the next loop iteration, unless their link is cut."""

    def __init__(self) -> None:
        self.drivers: dict[MemberId, RaftDriver] = {}
        self.cut_off: set[MemberId] = set()

    def send(self, messages: Iterable[Message]) -> None:
        loop = asyncio.get_running_loop()
        for message in messages:
            receiver = self.drivers.get(message.to)
            if receiver and not self.cut_off & {message.sender, message.to}:
                loop.call_soon(receiver.deliver, message)


@dataclass
class Part:
    """One driver and what belongs to it."""

    driver: RaftDriver
    machine: ToyMachine
    store: SqliteLog
    diary: Diary
    running: asyncio.Task[None] = field(init=False)


class Group:
    """Three members in one event loop, on real log stores."""

    def __init__(self, directory: Path, tasks: asyncio.TaskGroup) -> None:
        self.directory = directory
        self.tasks = tasks
        self.members = [MemberId(f"host{n}.1") for n in (1, 2, 3)]
        self.network = Switchboard()
        self.parts: dict[MemberId, Part] = {}

    def open_store(self, member: MemberId) -> SqliteLog:
        directory = self.directory / member
        is_new = not directory.exists()
        store = SqliteLog(directory, CLUSTER, member, create=is_new)
        if is_new and member in self.members:
            first = first_log(self.members)
            store.save(Ready(hard_state=first.hard_state, entries=first.entries, must_sync=True))
        return store

    def start(
        self,
        member: MemberId,
        *,
        store: SqliteLog | None = None,
        settings: DriverSettings = FAST,
        expected: type[TrellisError] | None = None,
    ) -> Part:
        """Start *member*; it may end with the *expected* error only."""
        store = store or self.open_store(member)
        machine, diary = ToyMachine(), Diary()
        driver = RaftDriver(
            raft=replace(fast_raft(member), trailing_entries=20),
            store=store,
            machine=machine,
            observers=[diary],
            settings=settings,
        )
        part = self.parts[member] = Part(driver, machine, store, diary)
        self.network.drivers[member] = driver
        part.running = self.tasks.create_task(self._run(driver, expected), name=member)
        return part

    async def _run(self, driver: RaftDriver, expected: type[TrellisError] | None) -> None:
        if expected is None:
            await driver.run(self.network)
        else:
            with pytest.raises(expected):
                await driver.run(self.network)

    async def stop(self, member: MemberId) -> None:
        part = self.parts.pop(member)
        del self.network.drivers[member]
        part.driver.stop()
        await part.running

    async def leader(self, *, among: Iterable[MemberId] | None = None) -> Part:
        """The leader among *among*, as soon as there is one that the others follow."""
        parts = [self.parts[each] for each in (self.parts if among is None else among)]
        async with asyncio.timeout(10):
            while True:
                leading = [each for each in parts if each.driver.role is Role.LEADER]
                if leading and {each.driver.leader for each in parts} == {leading[0].driver.id}:
                    return leading[0]
                await parts[0].driver.wait_until(lambda status: True, timeout_s=1)
                await asyncio.sleep(0.005)

    def others(self, part: Part) -> list[Part]:
        return [each for each in self.parts.values() if each is not part]

    async def settled(self) -> None:
        """Wait until every member has applied what the leader has committed."""
        leader = await self.leader()
        for part in self.parts.values():
            await part.driver.wait_applied(leader.driver.status().commit, timeout_s=5)


@contextlib.asynccontextmanager
async def running_group(directory: Path) -> AsyncIterator[Group]:
    async with asyncio.TaskGroup() as tasks:
        group = Group(directory, tasks)
        for member in group.members:
            group.start(member)
        yield group
        for member in list(group.parts):
            await group.stop(member)
