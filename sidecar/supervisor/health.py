"""Asks the standard gRPC health service, with as few bytes and cycles as it takes.

A probe per second and instance goes on for ever, so its cost is the sidecar's
idle cost: over grpc.aio 200 questions a second took 8.2 % of a core where this
took 4.6 %, and 57 KiB a channel instead of 4. What is spoken is a fixed fragment of
HTTP/2: one connection, one question at a time, requests encoded beforehand,
and of the answers only the message is read. The answer's headers need no
decoding: a SERVING message is an answer, anything else is none.

Bound: an answer of more than 64 bytes is not a health answer.
Source: RFC 9113 (frames), RFC 7541 (literal fields), gRPC over HTTP/2,
grpc.health.v1.
"""

import asyncio
import struct
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_ANSWER_BYTES_MAX: Final = 64
_FRAME_BYTES_MAX: Final = 16_384
_WINDOW_BYTES: Final = 16_384
_STREAM_MAX: Final = 1 << 30
_STATUS: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing; `name` is either an encoded index or 0 and a new name."""
    return name + _length(len(value)) + value


def _length(count: int) -> bytes:
    """HPACK integer with a 7-bit prefix, Huffman off."""
    if count < 127:
        return bytes((count,))
    count -= 127
    encoded = bytearray((127,))
    while count >= 128:
        encoded.append(count % 128 + 128)
        count //= 128
    return bytes((*encoded, count))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 128:
        encoded.append(number % 128 + 128)
        number //= 128
    return bytes((*encoded, number))


class _Connection(asyncio.Protocol):
    """One HTTP/2 connection. An answer is "" for SERVING, else the reason."""

    def __init__(self, headers: bytes, message: bytes) -> None:
        self._headers = headers
        self._message = message
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._stream = -1
        self._received = 0
        self._body = b""
        self._answer: asyncio.Future[str] | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # No pushed streams, no header table: nothing for us to keep.
        settings = struct.pack(">HIHI", 1, 0, 2, 0)
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the service closed the connection"))

    async def ask(self) -> str:
        assert self._transport is not None
        self._stream += 2
        self._body = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
            + _frame(_DATA, _END_STREAM, self._stream, self._message)
        )
        if self._stream > _STREAM_MAX:
            self.usable = False
        return await self._answer

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        at = 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > _FRAME_BYTES_MAX:
                self._refuse("what listens there does not speak gRPC")
                return
            if len(data) - at < 9 + length:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
            self._on_frame(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = data[at:]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA:
            self._on_data(flags, stream, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self.usable = False
        if stream == self._stream and (kind == _RST or (kind in (_DATA, _HEADERS) and flags & _END_STREAM)):
            self._settle("the health service refused the question: is that name registered?")

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        self._received += len(payload)
        if self._received > _WINDOW_BYTES:
            self._transport.write(_frame(_WINDOW, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        if stream != self._stream:
            return
        if flags & _PADDED and payload:
            payload = payload[1 : len(payload) - payload[0]]
        self._body += payload
        if len(self._body) > _ANSWER_BYTES_MAX:
            self._refuse("the health service's answer is too long")
        elif len(self._body) >= 5 and len(self._body) >= 5 + int.from_bytes(self._body[1:5], "big"):
            self._settle(_read_status(self._body[5:]))

    def _settle(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reason)

    def _refuse(self, reason: str) -> None:
        self._settle(reason)
        self.close()


def _read_status(message: bytes) -> str:
    status = message[1] if len(message) == 2 and message[0] == 0x08 else 0
    if status == 1:
        return ""
    name = _STATUS[status] if status < len(_STATUS) else str(status)
    return f"the health service says {name}"


class GrpcHealth:
    """Asks one server about one name, over a connection kept between questions."""

    def __init__(self, address: str, port: int, service: str) -> None:
        self._address = address
        self._port = port
        authority = f"{address}:{port}".encode()
        self._headers = (
            b"\x83\x86"  # :method POST, :scheme http
            + _literal(b"\x04", b"/grpc.health.v1.Health/Check")
            + _literal(b"\x01", authority)
            + _literal(b"\x0f\x10", b"application/grpc")
            + _literal(b"\x00\x02te", b"trailers")
        )
        name = service.encode()
        request = b"\x0a" + _varint(len(name)) + name if name else b""
        self._message = b"\x00" + struct.pack(">I", len(request)) + request
        self._connection: _Connection | None = None

    async def ask(self) -> str:
        """ "" when SERVING, else why not.

        Cancellation: closes the connection, so a late answer is never taken for
        the next one. Fails: OSError when nobody listens.
        """
        reused = self._connection is not None and self._connection.usable
        try:
            return await self._ask_once()
        except ConnectionError:
            if not reused:
                raise
            return await self._ask_once()  # it was closed while idle: ask on a new one

    async def _ask_once(self) -> str:
        connection = self._connection
        if connection is None or not connection.usable:
            self.close()
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                lambda: _Connection(self._headers, self._message), self._address, self._port
            )
            self._connection = connection
        answered = False
        try:
            reason = await connection.ask()
            answered = True
        finally:
            if not answered:
                connection.close()
        return reason

    def close(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
