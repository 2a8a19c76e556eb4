"""Spellings that every xDS message shares."""

from typing import Any, Final, TypeAlias

from google.protobuf import any_pb2, duration_pb2

#: Keyword arguments of a protobuf message, nested.
Json: TypeAlias = dict[str, Any]

#: A message of the xDS API, whose stubs carry no types.
XdsMessage: TypeAlias = Any

#: "Comes over the stream that this came over."
ADS: Final[Json] = {"ads": {}, "resource_api_version": "V3"}


def duration(ms: int) -> duration_pb2.Duration:
    """Milliseconds as a protobuf duration."""
    return duration_pb2.Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def pack(message: XdsMessage) -> any_pb2.Any:
    """The message in an Any, encoded the same each time."""
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def parse_address(address: str) -> Json:
    """ "127.0.0.1:80", "[::1]:80" or "unix:/run/x.sock" as an Address."""
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
