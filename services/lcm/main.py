"""The lifecycle manager: active-active, routed, its data in PostgreSQL.

Settings are variables: `DATABASE_URL`; `LCM_CALLERS` and `LCM_ANONYMOUS` (access.py);
`LCM_PROGRAMS`, the programs that may be deployed, separated by colons (unset: any).

It starts without a database, and is ready (health turns to SERVING) once the schema is there.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from trellis.lcm.v1 import lcm_pb2, lcm_pb2_grpc

from mesh.adapters.errors_interceptor import ErrorsInterceptor
from mesh.client.database import Database
from mesh.client.migrations import migrate
from mesh.errors import InvariantBroken, OutcomeUnknown, Problem, SettingsError, TrellisError, Unavailable
from services.lcm.access import read_callers
from services.lcm.feed import PAUSE_S, Feed
from services.lcm.interceptor import AccessInterceptor
from services.lcm.reading import Operations
from services.lcm.rules import Allowed
from services.lcm.server import DeploymentServicer, OperationServicer
from services.lcm.store import MIGRATIONS, Store

LOG = structlog.get_logger(__name__)

#: Routes lead elsewhere since the SIGTERM; this is for calls sent just before.
LAME_DUCK_S: Final = 0.25
#: Calls in hand get this long on the way out; less than the declared grace.
DRAIN_S: Final = 4.0
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server beside it
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_SERVICES: Final = ("", *(each.full_name for each in lcm_pb2.DESCRIPTOR.services_by_name.values()))


async def serve(environment: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; 1 when the settings or the address are of no use."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        url, callers, allowed = database_url(environment), read_callers(environment), _allowed(environment)
    except SettingsError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    async with Database(url, name=environment.get("TRELLIS_INSTANCE", "lcm@local#0")) as database:
        feed, store = Feed(database), Store(database)
        reading = Operations(store)
        interceptors = (ErrorsInterceptor(_end_process), AccessInterceptor(callers))
        server = grpc.aio.server(options=_OPTIONS, interceptors=interceptors)
        lcm_pb2_grpc.add_DeploymentServiceServicer_to_server(DeploymentServicer(store, feed, allowed), server)
        lcm_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(store, feed, reading), server)
        health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        listen = environment.get("TRELLIS_LISTEN", "127.0.0.1:20001")
        try:
            server.add_insecure_port(listen)
        except RuntimeError as error:
            print(f"cannot listen on {listen}: {error}", file=sys.stderr, flush=True)
            return 1
        for name in _SERVICES:
            await health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        print(f"listening on {listen}", flush=True)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(feed.run(), name="feed"),
                group.create_task(reading.run(), name="read-operations"),
                group.create_task(_become_ready(database, health), name="become-ready"),
            ]
            await stop.wait()
            await health.enter_graceful_shutdown()
            feed.end()
            await asyncio.sleep(LAME_DUCK_S)
            await server.stop(DRAIN_S)
            for task in tasks:
                task.cancel()
    print("drained", flush=True)
    return 0


def database_url(environment: Mapping[str, str]) -> str:
    """Fails: `SettingsError`."""
    url = environment.get("DATABASE_URL", "")
    if not url:
        example = "postgresql://lcm:…@127.0.0.1:6432/lcm"
        raise SettingsError("No database is known.", [Problem("DATABASE_URL", "is not set", example)])
    return url


async def wait_schema(database: Database) -> None:
    """Apply the migrations, however long the database takes to come."""
    while True:
        try:
            applied = await migrate(database, MIGRATIONS)
        except (Unavailable, OutcomeUnknown) as error:
            LOG.warning("no-database", reason=error.message)
            await asyncio.sleep(PAUSE_S)
            continue
        for name in applied:
            print(f"applied {name}", flush=True)
        return


async def _become_ready(database: Database, health: HealthServicer) -> None:
    try:
        await wait_schema(database)
    except TrellisError as error:
        # a schema that does not fit: stays out of traffic, and says why, until it is mended
        print(f"not ready: {error}", file=sys.stderr, flush=True)
        return
    for name in _SERVICES:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    print("ready", flush=True)


def _allowed(environment: Mapping[str, str]) -> Allowed:
    programs = environment.get("LCM_PROGRAMS")
    return Allowed() if programs is None else Allowed(frozenset(filter(None, programs.split(":"))))


def _end_process(bug: InvariantBroken) -> None:
    print(f"bug: {bug}", file=sys.stderr, flush=True)
    os._exit(70)


def main() -> None:
    """Entry point: `python -m services.lcm.main`."""
    sys.exit(asyncio.run(serve(os.environ)))


if __name__ == "__main__":
    main()
