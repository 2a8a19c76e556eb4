"""Writes documents all the time, and checks at the end that no acknowledged one is lost."""

import asyncio
import contextlib
import itertools
import secrets
from typing import Final

import grpc
from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

from mesh.errors import Unavailable
from sidecar.demo.board import Board
from sidecar.demo.plan import HostPlan

PAUSE_S: Final = 0.1
ATTEMPT_S: Final = 1.0
#: Before the same request goes to the next host.
AGAIN_S: Final = 0.02
#: Not done, or not known whether done: the same request may be sent again, to any host.
_AGAIN: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class Writer:
    """One client with one session: a request repeated on another host counts once."""

    def __init__(self, board: Board, hosts: tuple[HostPlan, ...]) -> None:
        self.board = board
        self.hosts = hosts
        self.session = f"demo-{secrets.token_hex(8)}"
        self.acknowledged: dict[str, bytes] = {}
        self._turn = 0

    async def write_steadily(self) -> None:
        """Write one document after the other until cancelled."""
        async with contextlib.AsyncExitStack() as open_channels:
            stubs = []
            for host in self.hosts:
                channel = grpc.aio.insecure_channel(f"unix:{host.admin_socket}")
                await open_channels.enter_async_context(channel)
                stubs.append(config_sync_pb2_grpc.ConfigSyncServiceStub(channel))
            for sequence in itertools.count(1):
                name, value = f"demo/write-{sequence:05d}", secrets.token_hex(16).encode()
                request = config_sync_pb2.PutDocumentRequest(
                    name=name, value=value, session=self.session, sequence=sequence
                )
                await self._put(stubs, request)
                self.acknowledged[name] = value
                self.board.acknowledged = len(self.acknowledged)
                await asyncio.sleep(PAUSE_S)

    async def _put(
        self,
        stubs: list["config_sync_pb2_grpc.ConfigSyncServiceAsyncStub"],
        request: config_sync_pb2.PutDocumentRequest,
    ) -> None:
        while True:
            try:
                await stubs[self._turn % len(stubs)].PutDocument(request, timeout=ATTEMPT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise Unavailable(f"A write was refused for good: {error.details()}") from error
                self._turn += 1
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def count_lost(self, host: HostPlan) -> int:
        """Acknowledged writes that a linearizable read on *host* does not find as written."""
        async with grpc.aio.insecure_channel(f"unix:{host.admin_socket}") as channel:
            stub = config_sync_pb2_grpc.ConfigSyncServiceStub(channel)
            slots = asyncio.Semaphore(16)

            async def is_lost(name: str, value: bytes) -> bool:
                async with slots:
                    try:
                        answer = await stub.GetDocument(
                            config_sync_pb2.GetDocumentRequest(name=name), timeout=5.0
                        )
                    except grpc.aio.AioRpcError as error:
                        if error.code() is not grpc.StatusCode.NOT_FOUND:
                            raise Unavailable(f"{name} could not be read: {error.details()}") from error
                        return True
                return answer.document.value != value

            async with asyncio.TaskGroup() as reads:
                asked = [reads.create_task(is_lost(*item)) for item in self.acknowledged.items()]
        return sum(task.result() for task in asked)
