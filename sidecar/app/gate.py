"""In front of the join listener: how many connections there may be, and how long one may say nothing.

Anybody who reaches the port may open a connection, and gRPC keeps one that never says hello for
minutes. So a gate takes the connections and passes bytes on to the server behind it, which listens on a
UNIX socket; TLS ends there and not here.

Bound: `limits.JOIN_CONNECTIONS_MAX` connections, each with two buffers. When they are taken, the one that
has been silent from its beginning for the longest gives way; when all have spoken, the new one is closed.
"""

import asyncio
import contextlib
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

    A connection is ended by aborting its transports: its task then ends by itself, and `close` waits for it.
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
        #: Connections with both their ends, the oldest first.
        self._open: dict[asyncio.Task[None], list[asyncio.WriteTransport]] = {}
        #: Those that have not said anything yet.
        self._silent: dict[asyncio.Task[None], None] = {}
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
        for task in self._open:
            self._end(task)
        await asyncio.gather(*self._open, return_exceptions=True)

    def _end(self, task: "asyncio.Task[None]") -> None:
        for transport in self._open[task]:
            transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= self._connections_max and not self._make_room():
            self.refused += 1
            writer.transport.abort()
            return
        self._open[task] = [writer.transport]
        self._silent[task] = None
        try:
            async with asyncio.timeout(self._life_s):
                await self._serve(task, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            LOG.debug("join-connection-ended", reason=str(error) or type(error).__name__)
        finally:
            self._end(task)
            del self._open[task]
            self._silent.pop(task, None)

    def _make_room(self) -> bool:
        """The connection that has been silent for the longest ends; False when none is silent."""
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        del self._silent[oldest]
        self._end(oldest)
        self.refused += 1
        return True

    async def _serve(
        self, task: "asyncio.Task[None]", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(self._hello_s):
            hello = await reader.read(CHUNK_BYTES)
        if not hello:
            return
        self._silent.pop(task, None)
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._behind), limit=CHUNK_BYTES)
        self._open[task].append(inner_writer.transport)
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
