"""The echo service: active-active, routed, and the example of how to write one.

Listens on TRELLIS_LISTEN, tells its health by the standard gRPC service, and
on SIGTERM drains: health turns to NOT_SERVING, calls that were already on their
way are still taken for a moment, and calls in hand are finished.
"""

import asyncio
import os
import signal
import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

from services.echo.server import EchoServicer

#: Routes lead elsewhere since the SIGTERM; this is for calls sent just before.
LAME_DUCK_S: Final = 0.25
#: Calls in hand get this long on the way out; less than the declared grace.
DRAIN_S: Final = 4.0
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server beside it
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_NAMES: Final = ("", echo_pb2.DESCRIPTOR.services_by_name["EchoService"].full_name)


async def serve(listen: str) -> int:
    """Serve until SIGTERM or SIGINT; 1 when the address cannot be had."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = grpc.aio.server(options=_OPTIONS)
    echo_pb2_grpc.add_EchoServiceServicer_to_server(EchoServicer(os.environ), server)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    try:
        server.add_insecure_port(listen)
    except RuntimeError as error:
        print(f"cannot listen on {listen}: {error}", file=sys.stderr, flush=True)
        return 1
    await server.start()
    for name in _NAMES:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    print(f"listening on {listen}", flush=True)
    await stop.wait()
    await health.enter_graceful_shutdown()
    await asyncio.sleep(LAME_DUCK_S)
    await server.stop(DRAIN_S)
    print("drained", flush=True)
    return 0


def main() -> None:
    """Entry point: `python -m services.echo.main`."""
    sys.exit(asyncio.run(serve(os.environ.get("TRELLIS_LISTEN", "127.0.0.1:20000"))))


if __name__ == "__main__":
    main()
