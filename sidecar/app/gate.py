"""In front of the join listener: how many connections there may be, and how long one may say nothing.

Anybody who reaches the port may open a connection, and gRPC keeps one that never says hello for
minutes. So a gate takes the connections and passes bytes on to the server behind it, which listens on a
UNIX socket; TLS ends there and not here.

Bound: `limits.JOIN_CONNECTIONS_MAX` connections, each with two buffers. When they are taken, the one that
has been silent from its beginning for the longest gives way; when all have spoken, the new one is closed.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from mesh.limits import JOIN_CONNECTIONS_MAX

LOG = structlog.get_logger(__name__)

#: The first bytes of a TLS handshake follow the connection at once.
HELLO_S: Final = 3.0
#: A join takes two round trips and a commit.
LIFE_S: Final = 60.0
CHUNK_BYTES: Final = 64 * 1024


class Gate:
    """Takes connections at one address for a server behind a UNIX socket. `open`, then `close`.

    Cancellation: of a connection's task is its end; `close` waits for all of them.
    """

    def __init__(
        self,
        behind: Path,
        *,
        connections_max: int = JOIN_CONNECTIONS_MAX,
        hello_s: float = HELLO_S,
        life_s: float = LIFE_S,
    ) -> None:
        self._behind = behind
        self._connections_max = connections_max
        self._hello_s = hello_s
        self._life_s = life_s
        self._server: asyncio.Server | None = None
        #: Connections that have not said anything yet, the oldest first.
        self._silent: dict[asyncio.Task[None], None] = {}
        self._open: set[asyncio.Task[None]] = set()
        self.refused = 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def open(self, host: str, port: int) -> None:
        """Listen. Fails: OSError when the address cannot be had."""
        self._server = await asyncio.start_server(
            self._accepted, host, port, limit=CHUNK_BYTES, backlog=self._connections_max
        )

    async def close(self) -> None:
        """Take no more connections and drop those there are."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= self._connections_max and not self._make_room():
            self.refused += 1
            writer.transport.abort()
            return
        self._open.add(task)
        self._silent[task] = None
        try:
            async with asyncio.timeout(self._life_s):
                await self._serve(reader, writer, lambda: self._silent.pop(task, None))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            LOG.debug("join-connection-ended", reason=str(error) or type(error).__name__)
        finally:
            self._open.discard(task)
            self._silent.pop(task, None)
            writer.transport.abort()

    def _make_room(self) -> bool:
        """The connection that has been silent for the longest ends; False when none is silent."""
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        del self._silent[oldest]
        self._open.discard(oldest)
        oldest.cancel()
        self.refused += 1
        return True

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_spoken: Callable[[], object]
    ) -> None:
        async with asyncio.timeout(self._hello_s):
            hello = await reader.read(CHUNK_BYTES)
        if not hello:
            return
        has_spoken()
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._behind), limit=CHUNK_BYTES)
        try:
            inner_writer.write(hello)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass(reader, inner_writer), name="join:in")
                both.create_task(_pass(inner_reader, writer), name="join:out")
        except* OSError:
            pass  # one end has gone, which ends the other
        finally:
            inner_writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes one way, no faster than they are taken, until the sender has ended."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
