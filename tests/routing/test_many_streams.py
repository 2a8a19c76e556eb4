"""Many proxyless clients at one sidecar, as after it was restarted."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from sidecar.routing.resources import TYPE_URLS
from sidecar.routing.server import SERVICE
from sidecar.routing.stream import Kind
from tests.routing.harness import backend, free_port, ready, running, settings

pytestmark = pytest.mark.integration
STREAMS = 500


async def test_all_clients_are_served_when_they_come_at_once(tmp_path: Path) -> None:
    """500 streams ask for the endpoints of echo; each is answered, and again after a change."""
    chosen = settings(tmp_path, xds_address=f"127.0.0.1:{free_port()}", proxyless_direct=True)
    loop = asyncio.get_running_loop()
    async with backend("host1", 0) as a, running(chosen) as host:
        host.publish(a.status())
        await ready(host)
        async with grpc.aio.insecure_channel(chosen.xds_address) as channel:
            open_stream = channel.stream_stream(
                f"/{SERVICE}/StreamAggregatedResources",
                discovery_pb2.DiscoveryRequest.SerializeToString,
                discovery_pb2.DiscoveryResponse.FromString,
            )
            streams = [open_stream() for _ in range(STREAMS)]
            began = loop.time()
            first = await asyncio.gather(*(subscribe(each) for each in streams))
            print(f"{STREAMS} streams served in {loop.time() - began:.2f} s")
            assert {count for count, _ in first} == {1}
            began = loop.time()
            host.publish()
            told = [follow(each, nonce) for each, (_, nonce) in zip(streams, first, strict=True)]
            second = await asyncio.gather(*told)
            print(f"{STREAMS} streams told of a change in {loop.time() - began:.2f} s")
            assert set(second) == {0}
            for each in streams:
                each.cancel()


async def subscribe(stream: Any) -> tuple[int, str]:
    request = discovery_pb2.DiscoveryRequest(type_url=TYPE_URLS[Kind.ENDPOINTS], resource_names=["echo"])
    await stream.write(request)
    return await endpoints(stream)


async def follow(stream: Any, nonce: str) -> int:
    request = discovery_pb2.DiscoveryRequest(
        type_url=TYPE_URLS[Kind.ENDPOINTS], resource_names=["echo"], response_nonce=nonce
    )
    await stream.write(request)
    return (await endpoints(stream))[0]


async def endpoints(stream: Any) -> tuple[int, str]:
    """How many endpoints the next response holds, and its nonce."""
    response = await asyncio.wait_for(stream.read(), 20)
    assert len(response.resources) == 1
    return response.resources[0].value.count(b"127.0.0.1"), response.nonce
