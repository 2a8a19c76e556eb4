"""A client that calls the echo service at a steady rate and tells about every call.

`python -m sidecar.demo.load ADDRESS RATE` prints one JSON array per finished
call: [started_ns, ended_ns, idempotent, code, host], monotonic nanoseconds. It
is a process of its own so that drawing the screen cannot delay a call.

Calls start on a fixed schedule whether or not earlier ones were answered, so a
gap in service cannot hide itself by slowing the client down.

Bound: a call lasts at most `DEADLINE_S`, so rate × deadline are open at once.
"""

import asyncio
import json
import signal
import sys
import time
from typing import Final

import grpc
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

from mesh.client.channel import northbound_channel
from mesh.wire.policy import policies_of

DEADLINE_S: Final = 5.0
#: One call in so many counts, and so may not be repeated.
COUNT_EVERY: Final = 5


async def call_once(stub: "echo_pb2_grpc.EchoServiceAsyncStub", *, idempotent: bool) -> None:
    """Make one call and print what came of it."""
    started_ns = time.monotonic_ns()
    host, code = "", "OK"
    try:
        if idempotent:
            echoed = await stub.Echo(echo_pb2.EchoRequest(message="demo"), timeout=DEADLINE_S)
            host = echoed.host
        else:
            counted = await stub.Count(echo_pb2.CountRequest(), timeout=DEADLINE_S)
            host = counted.instance.partition("@")[2].rpartition("#")[0]
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    record = [started_ns, time.monotonic_ns(), idempotent, code, host]
    print(json.dumps(record), flush=True)


async def call_steadily(address: str, rate: float) -> None:
    """Start calls on schedule until SIGTERM; then let the open ones end."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    policies = policies_of(echo_pb2)
    async with northbound_channel(address, policies) as channel, asyncio.TaskGroup() as calls:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        due_s = time.monotonic()
        number = 0
        while not stopping.is_set():
            number += 1
            calls.create_task(call_once(stub, idempotent=number % COUNT_EVERY != 0), name=f"call:{number}")
            due_s += 1 / rate
            try:
                await asyncio.wait_for(stopping.wait(), max(0.0, due_s - time.monotonic()))
            except TimeoutError:
                continue


if __name__ == "__main__":
    asyncio.run(call_steadily(sys.argv[1], float(sys.argv[2])))
