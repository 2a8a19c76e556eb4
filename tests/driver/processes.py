"""Three members as processes, to be killed and started again."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.ids import HostId, MemberId, host_of
from tests.driver.toys import ToyAuthority, ToyIdentity, free_port

Fact = dict[str, Any]


@dataclass
class Process:
    """One member's process and everything it has said."""

    member: MemberId
    child: asyncio.subprocess.Process
    said: list[Fact] = field(default_factory=list)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        assert self.child.stdout is not None
        async for line in self.child.stdout:
            async with self.heard:
                self.said.append(json.loads(line))
                self.heard.notify_all()

    async def wait_said(
        self, wanted: Callable[[Fact], bool], *, after: float = 0, timeout_s: float = 10
    ) -> Fact:
        """The first matching fact later than *after*."""

        def found() -> Fact | None:
            return next((fact for fact in self.said if fact["at"] > after and wanted(fact)), None)

        async with asyncio.timeout(timeout_s), self.heard:
            await self.heard.wait_for(lambda: found() is not None)
        fact = found()
        assert fact is not None
        return fact


class Trio:
    """Three members on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = ToyAuthority.create()
        self.members = [MemberId(f"host{n}.1") for n in (1, 2, 3)]
        self.addresses = {member: f"127.0.0.1:{free_port()}" for member in self.members}
        self.running: dict[MemberId, Process] = {}
        self._listening: dict[MemberId, asyncio.Task[None]] = {}

    def identity(self, host: str) -> ToyIdentity:
        return self.authority.issue(HostId(host))

    async def start(self, member: MemberId) -> Process:
        """Start or restart *member*; returns when it serves."""
        home = self.directory / member
        home.mkdir(exist_ok=True)
        config = home / "config.json"
        if not config.exists():
            self.identity(host_of(member)).write(home / "identity.json")
            given = {
                "member": member,
                "directory": str(home / "data"),
                "identity": str(home / "identity.json"),
                "addresses": self.addresses,
                "founders": self.members,
            }
            config.write_text(json.dumps(given))
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.driver.member_program", str(config)),
            stdout=asyncio.subprocess.PIPE,
        )
        process = self.running[member] = Process(member, child)
        self._listening[member] = asyncio.create_task(process.listen(), name=f"listen:{member}")
        await process.wait_said(lambda fact: "started" in fact)
        return process

    async def kill(self, member: MemberId) -> None:
        """SIGKILL and reap."""
        process = self.running.pop(member)
        process.child.kill()
        await process.child.wait()
        await self._listening.pop(member)

    async def stop(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.child.terminate()
        for member, process in self.running.items():
            try:
                async with asyncio.timeout(10):
                    await process.child.wait()
            except TimeoutError:
                process.child.kill()
                await process.child.wait()
            await self._listening.pop(member)
        self.running.clear()

    async def wait_leader(self, *, after: float = 0, timeout_s: float = 10) -> tuple[MemberId, float]:
        """Who said that it leads, first after *after*, and when."""
        tasks = {
            asyncio.ensure_future(
                each.wait_said(lambda fact: fact.get("role") == "leader", after=after, timeout_s=timeout_s)
            ): member
            for member, each in self.running.items()
        }
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        first = min(done, key=lambda task: task.result()["at"])
        return tasks[first], first.result()["at"]


@contextlib.asynccontextmanager
async def running_trio(directory: Path) -> AsyncIterator[Trio]:
    trio = Trio(directory)
    try:
        for member in trio.members:
            await trio.start(member)
        yield trio
    finally:
        await trio.stop()
