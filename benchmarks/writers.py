"""Clients that write as fast as they are answered, each kind of client in a process of its own.

`python -m benchmarks.writers KIND CLIENTS SECONDS ARGUMENT …` prints one JSON object:

  etcd ADDRESS                        puts by a unary call
  documents SOCKET                    PutDocument by a unary call at a sidecar's admin socket
  propose SETTINGS MEMBER ADDRESS     the Propose stream of the leader MEMBER at ADDRESS, with
                                      the mTLS identity of the host of SETTINGS

All write 100 bytes under one of 100 names, and wait for the answer of each write
before the next: CLIENTS are under way at once.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

from benchmarks.etcd import PUT, PutRequest
from benchmarks.figures import percentile
from mesh.adapters.channel import open_channel
from mesh.adapters.clock import wall_ns
from mesh.adapters.leader_client import LeaderClient
from mesh.errors import Unavailable
from mesh.identity.credentials import Credentials
from mesh.identity.files import IdentityFiles
from mesh.ids import DocumentName, MemberId
from mesh.settings.load import load_settings
from mesh.state.commands import Applied, PutDocument, Request
from mesh.wire.command import encode_request
from mesh.wire.outcome import decode_outcome

VALUE: Final = b"x" * 100
NAMES: Final = [f"bench/{number:02d}" for number in range(100)]
DEADLINE_S: Final = 10.0
WARM_UP_S: Final = 1.0

Write = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def etcd_writes(address: str) -> AsyncIterator[Write]:
    """Puts at one member."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(PUT, request_serializer=PutRequest.SerializeToString)

        async def write(name: str) -> None:
            await call(PutRequest(key=name.encode(), value=VALUE), timeout=DEADLINE_S)

        yield write


@asynccontextmanager
async def document_writes(socket: str) -> AsyncIterator[Write]:
    """Documents at one sidecar."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(channel)

        async def write(name: str) -> None:
            request = config_sync_pb2.PutDocumentRequest(name=name, value=VALUE)
            await stub.PutDocument(request, timeout=DEADLINE_S)

        yield write


@asynccontextmanager
async def proposals(settings: str, leader: str, address: str) -> AsyncIterator[Write]:
    """Commands on one Propose stream, as another host's sidecar sends them."""
    identity = IdentityFiles(load_settings(Path(settings)).identity_dir).load()
    if identity is None:
        raise Unavailable(f"the host of {settings} has no identity")
    channel = open_channel(address, MemberId(leader), Credentials(identity))
    client = LeaderClient(identity.cluster_id, identity.member, lambda _: channel)

    async def write(name: str) -> None:
        command = encode_request(Request(PutDocument(DocumentName(name), VALUE), at_ns=wall_ns()))
        _, outcome = await client.propose(MemberId(leader), command, timeout_s=DEADLINE_S)
        if not isinstance(decode_outcome(outcome), Applied):
            raise Unavailable(f"a write was rejected: {decode_outcome(outcome)}")

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run(), name="propose")
        await asyncio.sleep(0)  # the client takes commands once it runs
        yield write
        running.cancel()
    await channel.close()


KINDS: Final[dict[str, Callable[..., Any]]] = {
    "etcd": etcd_writes,
    "documents": document_writes,
    "propose": proposals,
}


async def write_steadily(write: Write, clients: int, seconds: float) -> dict[str, float]:
    """How many writes were acknowledged per second, and how long each took."""
    took: list[float] = []
    names = itertools.cycle(NAMES)

    async def until(end: float, into: list[float]) -> None:
        while (began := time.perf_counter()) < end:
            await write(next(names))
            into.append(time.perf_counter() - began)

    async def together(length: float, into: list[float]) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(until(began + length, into) for _ in range(clients)))
        return time.perf_counter() - began

    await together(WARM_UP_S, [])
    wall = await together(seconds, took)
    return {
        "per_second": len(took) / wall,
        "p50_ms": percentile(took, 0.5) * 1000,
        "p99_ms": percentile(took, 0.99) * 1000,
    }


async def main(kind: str, clients: int, seconds: float, *arguments: str) -> None:
    """Write and print."""
    async with KINDS[kind](*arguments) as write:
        print(json.dumps(await write_steadily(write, clients, seconds)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))
