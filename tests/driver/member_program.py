"""One member as a process of its own: `python -m tests.driver.member_program CONFIG`.

Prints one JSON line per change of role and per crash proof, with CLOCK_MONOTONIC times.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.ids import MemberId
from mesh.raft.model import Entry, Membership, SoftState
from tests.driver.toys import CountingMachine, ToyIdentity, running_member


@dataclass
class Reporter:
    """Says what happens on standard output."""

    def _say(self, **facts: object) -> None:
        print(json.dumps({"at": time.monotonic(), **facts}), flush=True)

    def role_changed(self, soft: SoftState) -> None:
        self._say(role=soft.role.value, leader=soft.leader, term=soft.term)

    def entries_committed(self, entries: Sequence[Entry]) -> None:
        pass

    def membership_changed(self, membership: Membership) -> None:
        pass

    def crash_proven(self, member: MemberId) -> None:
        self._say(crashed=member)


async def main(config: Path) -> None:
    given = json.loads(config.read_text())
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with running_member(
        MemberId(given["member"]),
        Path(given["directory"]),
        ToyIdentity.read(Path(given["identity"])),
        given["addresses"],
        founders=given["founders"],
        machine=CountingMachine(),
    ) as member:
        member.consensus.driver.add_observer(Reporter())
        print(json.dumps({"at": time.monotonic(), "started": member.id, "pid": os.getpid()}), flush=True)
        await stopped.wait()


if __name__ == "__main__":
    profile = os.environ.get("TOY_PROFILE")
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        with contextlib.suppress(KeyboardInterrupt):
            profiler.runcall(asyncio.run, main(Path(sys.argv[1])))
        profiler.dump_stats(f"{profile}.{os.getpid()}")
    else:
        asyncio.run(main(Path(sys.argv[1])))
