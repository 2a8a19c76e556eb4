"""How gRPC connections between hosts are set up, on both ends."""

from collections.abc import Iterable
from typing import Final

import grpc

from mesh import limits
from mesh.ids import MemberId, host_of
from mesh.ports import MeshIdentity

Options = tuple[tuple[str, int | str], ...]

#: A dead host that says nothing is noticed after `KEEPALIVE_MS` + `KEEPALIVE_TIMEOUT_MS`.
KEEPALIVE_MS: Final = 1_000
KEEPALIVE_TIMEOUT_MS: Final = 1_000

_BOTH_ENDS: Final[Options] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
)

#: For `grpc.aio.server` of every listener that other hosts connect to. Without reuse of the port
#: a second sidecar on the same address fails instead of taking half of the connections.
SERVER_OPTIONS: Final[Options] = (
    *_BOTH_ENDS,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
)

_CHANNEL_OPTIONS: Final[Options] = (
    *_BOTH_ENDS,
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Also how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Otherwise two channels to one host would share their back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


def open_channel(address: str, member: MemberId, identity: MeshIdentity) -> grpc.aio.Channel:
    """A channel to *member* at *address*; it connects by itself, again and again."""
    name = identity.authority_of(host_of(member))
    options = (*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name), ("grpc.default_authority", name))
    return grpc.aio.secure_channel(address, identity.channel_credentials(), options=options)


#: What a servicer sends first on a stream it takes in. A call that failed before it
#: reached the servicer has empty metadata, so this tells the two apart.
ACCEPTED: Final = (("trellis-stream", "accepted"),)


def is_accepted(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Whether the initial metadata of a call came from a servicer that took the stream in."""
    return metadata is not None and ACCEPTED[0] in [tuple(each) for each in metadata]
