"""Questions to Envoy's admin socket."""

import asyncio
from typing import Final

from sidecar.routing import bootstrap
from sidecar.routing.model import RoutingSettings

ANSWER_BYTES_MAX: Final = 1 << 20


async def calls_in_hand(settings: RoutingSettings) -> int:
    """Northbound calls that Envoy has not answered yet; 0 when there is no Envoy to ask."""
    try:
        answer = await get(settings, "/stats?filter=^http\\.northbound.*downstream_rq_active$")
    except OSError:
        return 0
    values = (line.rpartition(":")[2].strip() for line in answer.splitlines())
    return sum(int(value) for value in values if value.isdigit())


async def is_answering(settings: RoutingSettings, *, timeout_s: float) -> bool:
    """Envoy's main thread is alive: a frozen one accepts and says nothing."""
    try:
        async with asyncio.timeout(timeout_s):
            return bool(await get(settings, "/ready"))
    except (OSError, TimeoutError):
        return False


async def get(settings: RoutingSettings, path: str) -> str:
    """The body of an answer.

    Fails: OSError when nobody listens.
    """
    reader, writer = await asyncio.open_unix_connection(bootstrap.admin_socket(settings))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while not reader.at_eof() and len(answer) < ANSWER_BYTES_MAX:
            answer += await reader.read(ANSWER_BYTES_MAX)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (_unchunk(body) if b"chunked" in head else body).decode(errors="replace")


def _unchunk(body: bytes) -> bytes:
    """The bytes of a chunked body (RFC 9112 §7.1); stops at the first chunk that is not whole."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        whole += rest[:length]
        body = rest[length + 2 :]
    return whole
