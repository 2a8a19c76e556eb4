"""Puts one question to one instance: gRPC health, HTTP, TCP or a command.

`ask` returns "" for "well" or the reason; a question that cannot be put, or is
not answered in time, is a bad answer and never an error.
"""

import asyncio
import os
import signal
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from mesh.adapters.cgroup import Hierarchies, Leaf
from mesh.adapters.child import Child, Ended, Launch, spawn
from mesh.state.service import ProbeKind
from sidecar.supervisor.health import GrpcHealth
from sidecar.supervisor.verdict import Question

_REPLY_BYTES_MAX: Final = 4_096


class Asker(Protocol):
    """Puts a question as often as it is told to; never twice at the same time."""

    async def ask(self) -> str:
        """ "" for well, else the reason. Cancellation: leaves nothing behind."""

    def close(self) -> None:
        """Give up what is kept between questions."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, and what an exec probe is given."""

    address: str
    port: int
    environment: Mapping[str, str]
    directory: str
    user: str
    #: Where an exec probe and all it starts live: in a group of its own.
    hierarchies: Hierarchies
    stem: str


def asker_for(question: Question, target: Target) -> Asker:
    """What puts this question. PUSH has none: there the service speaks first."""
    match question.kind:
        case ProbeKind.GRPC:
            return GrpcHealth(target.address, target.port, question.target)
        case ProbeKind.HTTP:
            return _Http(target.address, target.port, question.target or "/")
        case ProbeKind.EXEC:
            return _Exec(question.command, target)
        case _:
            return _Tcp(target.address, target.port)


async def ask_in_time(asker: Asker, timeout_ms: int) -> str:
    """One answer within the deadline; everything that goes wrong is a reason."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            return await asker.ask()
    except TimeoutError:
        return f"no answer within {timeout_ms} ms"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)


async def _connect(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


@dataclass(frozen=True, slots=True)
class _Tcp:
    address: str
    port: int

    async def ask(self) -> str:
        (await _connect(self.address, self.port)).close()
        return ""

    def close(self) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class _Http:
    """GET, and a status from 200 to 399. Of the reply only the first line is read."""

    address: str
    port: int
    path: str

    async def ask(self) -> str:
        loop = asyncio.get_running_loop()
        request = (
            f"GET {self.path} HTTP/1.1\r\nHost: {self.address}:{self.port}\r\n"
            "User-Agent: trellis-probe\r\nConnection: close\r\n\r\n"
        )
        connection = await _connect(self.address, self.port)
        try:
            await loop.sock_sendall(connection, request.encode())
            reply = b""
            while b"\r\n" not in reply and len(reply) < _REPLY_BYTES_MAX:
                chunk = await loop.sock_recv(connection, _REPLY_BYTES_MAX)
                if not chunk:
                    break
                reply += chunk
        finally:
            connection.close()
        return _judge_reply(reply)

    def close(self) -> None:
        """Nothing is kept."""


def _judge_reply(reply: bytes) -> str:
    words = reply.partition(b"\r\n")[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return "what listens there does not speak HTTP"
    status = int(words[1])
    return "" if 200 <= status < 400 else f"HTTP status {status}"


class _Exec:
    """A command whose exit code 0 means well; its output goes nowhere."""

    def __init__(self, command: tuple[str, ...], target: Target) -> None:
        number = zlib.crc32("\0".join(command).encode())
        leaf = Leaf(target.hierarchies, f"{target.stem}.probe.{number:08x}")
        self._launch = Launch(
            command=command,
            environment=target.environment,
            directory=target.directory,
            user=target.user,
            dies_with_parent=True,
            groups=leaf.entrances(),
        )
        self._leaf = leaf
        self._child: Child | None = None
        self._ended: asyncio.Future[Ended] | None = None

    async def ask(self) -> str:
        if self._child is not None:
            return "the probe's last command does not die"
        loop = asyncio.get_running_loop()
        self._leaf.make(0)
        self._child = child = spawn(self._launch)
        self._ended = ended = loop.create_future()
        loop.add_reader(child.pidfd, self._on_end, child)
        try:
            how = await ended
        finally:
            if self._child is child:
                child.signal_group(signal.SIGKILL)
            self._leaf.kill()
        if how.signal:
            return f"the probe's command was killed by signal {how.signal}"
        return "" if how.code == 0 else f"the probe's command exited with {how.code}"

    def _on_end(self, child: Child) -> None:
        asyncio.get_running_loop().remove_reader(child.pidfd)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(child.ended())
        # What it left in its group must go while its number is still held.
        child.signal_group(signal.SIGKILL)
        child.release()
        self._child = None

    def close(self) -> None:
        self._leaf.remove()
