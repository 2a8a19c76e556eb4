"""The shipped client rides over the move of the virtual IP, planned and not."""

import asyncio
import itertools
import os
import signal
from pathlib import Path

import pytest
from trellis.echo.v1 import echo_pb2

from mesh.client.channel import northbound_channel
from mesh.wire.policy import policies_of
from tests.routing.harness import Client, Host, Load, backend, free_port, load, running, settings, until

pytestmark = pytest.mark.integration


def longest_gap_ms(result: Load, since: float) -> float:
    """The longest time without an answer."""
    ends = sorted(end for _, end in result.spans if end >= since - 0.1)
    return max((later - earlier) * 1000 for earlier, later in itertools.pairwise(ends))


async def test_no_idempotent_call_fails_when_the_virtual_ip_moves(tmp_path: Path) -> None:
    """200 calls/s to the virtual IP on loopback. It is handed over, then its holder's Envoy is killed."""
    vip = f"127.0.0.101:{free_port('127.0.0.101')}"
    loop = asyncio.get_running_loop()
    one = settings(tmp_path, "host1", vip_address=vip)
    two = settings(tmp_path, "host2", vip_address=vip)
    async with backend("host1", 0) as a, backend("host2", 0) as b, running(one) as h1, running(two) as h2:

        def own(owner: Host) -> None:
            for host, local in ((h1, a), (h2, b)):
                host.publish(local.status(), owns_vip=host is owner)

        own(h1)
        await h1.routing.wait_vip_listening()
        await until(lambda: h2.routing.northbound_listening)
        async with northbound_channel(vip, policies_of(echo_pb2)) as channel:
            caller = Client(channel)
            async with load(caller.echo) as result:
                await until(lambda: len(result.latencies_ms) > 100)
                moved = loop.time()
                own(h2)
                await h2.routing.wait_vip_listening()
                await until(lambda: result.answered_by.get(b.name, 0) > 100)
                planned = longest_gap_ms(result, moved)
                handle = h2.routing.envoy_handle()
                assert handle is not None
                lost = loop.time()
                answered = result.answered_by[a.name]
                os.kill(handle.pid, signal.SIGKILL)
                own(h1)
                await until(lambda: result.answered_by[a.name] > answered + 100)
            print(
                f"planned: gap {planned:.0f} ms; killed: gap {longest_gap_ms(result, lost):.0f} ms;"
                f" {len(result.latencies_ms)} calls, {len(result.failures)} failed,"
                f" slowest {max(result.latencies_ms):.0f} ms"
            )
            assert result.failures == []
