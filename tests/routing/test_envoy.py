"""A real Envoy driven by routing, with real services behind it."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest

from tests.routing.harness import backend, client, load, ready, running, settings, until

pytestmark = pytest.mark.integration


async def test_calls_reach_every_ready_instance(tmp_path: Path) -> None:
    """Two instances, both answer; one made unready, only the other answers from then on."""
    async with backend("host1", 0) as a, backend("host1", 1) as b, running(settings(tmp_path)) as host:
        host.publish(a.status(), b.status())
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            names = {await caller.echo() for _ in range(50)}
            assert names == {a.name, b.name}
            host.publish(a.status(), b.status(ready=False))

            async def only_a() -> bool:
                return {await caller.echo() for _ in range(10)} == {a.name}

            began = asyncio.get_running_loop().time()
            await until(only_a)
            print(f"removed within {(asyncio.get_running_loop().time() - began) * 1000:.1f} ms")


async def test_an_unknown_method_is_unimplemented_and_no_instance_is_unavailable(tmp_path: Path) -> None:
    """Goal: a caller can tell a typing error from an outage.

    Method: a real Envoy with a service that has no instance.
    """
    async with running(settings(tmp_path)) as host:
        host.publish()
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            with pytest.raises(grpc.aio.AioRpcError) as none:
                await caller.echo()
            assert none.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await caller.unknown()
            assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_losing_an_instance_fails_no_idempotent_call(tmp_path: Path, how: signal.Signals) -> None:
    """200 calls/s over three instances; one is lost and routing is never told."""
    loop = asyncio.get_running_loop()
    async with (
        backend("host1", 0) as a,
        backend("host1", 1) as b,
        backend("host1", 2) as c,
        running(settings(tmp_path)) as host,
    ):
        host.publish(a.status(), b.status(), c.status())
        await ready(host)
        async with client(host.settings.northbound_address) as caller:
            async with load(caller.echo) as result:
                await until(lambda: len(result.latencies_ms) > 200)
                a.signal(how)
                lost = loop.time()
                await until(lambda: loop.time() - lost > 2)
            slow = [(s - lost, e - lost) for s, e in result.spans if e - s > 0.05 and s > lost - 0.3]
            over = max((end for _, end in slow), default=0.0)
            print(
                f"{how.name}: calls {len(result.latencies_ms)} failed {len(result.failures)}"
                f" slowest {max(result.latencies_ms):.0f} ms, {len(slow)} slow,"
                f" over after {over * 1000:.0f} ms"
            )
            assert result.failures == []
            assert max(result.latencies_ms) < 1000
