"""A gRPC client in Python (C core) that calls as often as it can, for `xds:///` against a plain target.

`python -m benchmarks.grpc_caller TARGET CONCURRENT SECONDS` prints one JSON object. For
`xds:///` targets, GRPC_XDS_BOOTSTRAP names the bootstrap file; several addresses, as in
`ipv4:HOST:PORT,HOST:PORT`, are called in turn.
"""

import asyncio
import json
import sys
import time
from typing import Final

import grpc
from grpc import experimental
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

from benchmarks.figures import percentile

WARM_UP_S: Final = 1.0
DEADLINE_S: Final = 5.0
IN_TURN: Final = (("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),)


async def call(target: str, concurrent: int, seconds: float) -> dict[str, float]:
    """Calls per second and their times."""
    took: list[float] = []
    channel = grpc.aio.insecure_channel(target, options=IN_TURN)
    if target.startswith("xds:"):
        fallback = experimental.insecure_channel_credentials()  # type: ignore[no-untyped-call]
        channel = grpc.aio.secure_channel(target, grpc.xds_channel_credentials(fallback))
    async with channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        request = echo_pb2.EchoRequest(message="benchmark")

        async def until(end: float, into: list[float]) -> None:
            while (began := time.perf_counter()) < end:
                await stub.Echo(request, timeout=DEADLINE_S, wait_for_ready=True)
                into.append(time.perf_counter() - began)

        async def together(length: float, into: list[float]) -> float:
            began = time.perf_counter()
            await asyncio.gather(*(until(began + length, into) for _ in range(concurrent)))
            return time.perf_counter() - began

        await together(WARM_UP_S, [])
        wall = await together(seconds, took)
    return {
        "per_second": len(took) / wall,
        "p50_ms": percentile(took, 0.5) * 1000,
        "p99_ms": percentile(took, 0.99) * 1000,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
