"""The fence process removes an address by netlink, in a network namespace of its own."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SIDECAR = """
import asyncio, socket, sys
from sidecar.fence.client import FenceClient, boottime_ns

async def main():
    client = FenceClient(on_lost=print, on_fenced=print)
    await client.start()
    client.set_deadline(boottime_ns() + 10**12)
    prefix = 128 if ":" in sys.argv[1] else 32
    await client.register_address("vip", socket.if_nametoindex("lo"), sys.argv[1], prefix)
    print("ready", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"fence{os.getpid()}"
    try:
        ip("netns", "add", name)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"network namespaces are not permitted here: {getattr(error, 'stderr', error)}")
    ip("-n", name, "link", "set", "lo", "up")
    yield name
    ip("netns", "delete", name)


def addresses(namespace: str) -> set[str]:
    (link,) = json.loads(ip("-j", "-n", namespace, "address", "show", "dev", "lo"))
    return {info["local"] for info in link["addr_info"]}


@pytest.mark.integration
@pytest.mark.parametrize("address", ["10.77.0.100", "fd77::100"])
@pytest.mark.parametrize("present", [True, False])
def test_a_killed_sidecars_address_is_removed(namespace: str, address: str, present: bool) -> None:
    """An address that is already gone counts as removed: the fence process ends all the same."""
    before = addresses(namespace)
    if present:
        ip("-n", namespace, "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo")
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", SIDECAR, address]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as sidecar:
        assert sidecar.stdout is not None
        assert sidecar.stdout.readline() == "ready\n"
        fence = int(Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()[0])
        sidecar.kill()
    began = time.monotonic()
    ended = os.pidfd_open(fence)
    assert select.select([ended], [], [], 5)[0], "the fence process ends when all is cleared"
    os.close(ended)
    print(f"{address}: fence process done {(time.monotonic() - began) * 1000:.1f} ms after the sidecar")
    assert addresses(namespace) == before
