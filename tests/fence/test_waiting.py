"""What may outlive its sidecar until the deadline: the Envoy that the next sidecar takes over."""

import json
import os
import signal
import subprocess
import sys

import pytest

from sidecar.fence.client import FenceClient, boottime_ns, start_time_of
from tests.fence.test_fence_process import FAR, is_running, sleeping, unexpected, wait_until

WAITING = """
import asyncio, json, subprocess, sys
from sidecar.fence.client import FenceClient, boottime_ns, start_time_of

async def main():
    client = FenceClient(on_lost=print, on_fenced=lambda report: None)
    await client.start()
    deadline = boottime_ns() + int(sys.argv[1])
    client.set_deadline(deadline)
    said = {"fence": client.pid, "deadline": deadline}
    for name in ("prompt", "waits"):
        child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        await client.register_tree(name, child.pid, start_time_of(child.pid), None, waits=name == "waits")
        said[name] = child.pid
    print(json.dumps(said), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_what_waits_outlives_a_dead_sidecar_until_the_deadline_and_no_longer(how: str) -> None:
    """Goal: Envoy can be taken over by the next sidecar within the lease, and serves nobody after it.

    Method: a stand-in sidecar with a child that waits and one that does not, killed or frozen.
    """
    lease_ns = 1_500_000_000
    program = [sys.executable, "-c", WAITING, str(lease_ns)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True) as sidecar:
        assert sidecar.stdout is not None
        pids = json.loads(sidecar.stdout.readline())
        os.kill(sidecar.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        if how == "killed":
            wait_until(lambda: not is_running(pids["prompt"]), within_s=0.5)
            assert is_running(pids["waits"])
        wait_until(lambda: boottime_ns() > pids["deadline"] - 50_000_000)
        assert is_running(pids["waits"]), "it was ended before the deadline"
        wait_until(lambda: not is_running(pids["waits"]), within_s=1.0)
        assert boottime_ns() >= pids["deadline"]
        if how == "killed":
            wait_until(lambda: not is_running(pids["fence"]))
        sidecar.kill()


async def test_what_waits_is_cleared_at_once_by_a_sidecar_that_ends_itself() -> None:
    """Goal: a sidecar that could not give way is not waited for. Method: close and clear."""
    with sleeping() as child:
        fence = FenceClient(on_lost=pytest.fail, on_fenced=unexpected)
        await fence.start()
        fence.set_deadline(boottime_ns() + FAR)
        await fence.register_tree("child", child.pid, start_time_of(child.pid), None, waits=True)
        await fence.close(clear=True)
        assert child.wait() == -signal.SIGKILL
