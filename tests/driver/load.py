"""Drives commands into a running group from a process of its own, over the Propose stream.

`python -m tests.driver.load CONFIG CLIENTS SECONDS` prints one JSON line.
"""

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

from mesh.adapters.channel import open_channel
from mesh.adapters.leader_client import LeaderClient
from mesh.ids import MemberId
from tests.driver.toys import CLUSTER, ToyIdentity

COMMAND = b"x" * 100


async def load(given: dict[str, str], clients: int, seconds: float) -> dict[str, float]:
    leader = MemberId(given["leader"])
    channel = open_channel(given["address"], leader, ToyIdentity.read(Path(given["identity"])))
    client = LeaderClient(CLUSTER, MemberId(given["member"]), lambda _: channel)
    took: list[float] = []
    started = 0.0

    async def propose_until(end: float) -> None:
        while (before := time.perf_counter()) < end:
            await client.propose(leader, COMMAND, timeout_s=10)
            took.append(time.perf_counter() - before)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run())
        await asyncio.sleep(0)
        for _ in range(100):
            await client.propose(leader, COMMAND, timeout_s=10)
        started = time.perf_counter()
        await asyncio.gather(*(propose_until(started + seconds) for _ in range(clients)))
        wall = time.perf_counter() - started
        running.cancel()
    await channel.close()
    took.sort()
    return {
        "clients": clients,
        "per_second": round(len(took) / wall),
        "p50_ms": round(statistics.median(took) * 1e3, 2),
        "p99_ms": round(took[len(took) * 99 // 100] * 1e3, 2),
    }


if __name__ == "__main__":
    config, clients, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(load(json.loads(Path(config).read_text()), int(clients), float(seconds)))))
