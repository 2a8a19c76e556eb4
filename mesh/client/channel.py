"""Channels to the northbound address for clients of any service of a cluster.

A client that uses these channels, or the same service configuration in its own
language (docs/clients.md), rides over the death of a host: calls wait for the
new connection instead of failing, connection attempts are quick, and a silent
host is noticed by keepalive.

Invariant: a method that is not idempotent is never repeated once it may have
been processed. gRPC itself sends a call again when it never left the client or
the server says that it was not processed ("transparent retry"); that is safe for
every method and needs no policy.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc

from mesh import limits
from mesh.state.service import MethodPolicy

#: Attempts of one call of an idempotent method, the first included; 5 is gRPC's own ceiling.
ATTEMPTS_MAX: Final = 5
#: After a host is gone another listens within some 100 ms: look often. A refused attempt costs little.
RECONNECT_MS_MIN: Final = 100  # gRPC's own floor
RECONNECT_MS_MAX: Final = 120
#: A connection attempt to a silent address is given up after this.
CONNECT_MS: Final = 1_000
KEEPALIVE_MS: Final = 1_000
#: An unanswered ping, or unacknowledged bytes (gRPC makes it TCP_USER_TIMEOUT too).
KEEPALIVE_TIMEOUT_MS: Final = 1_500

Option = tuple[str, Any]


def service_config(policies: Iterable[MethodPolicy] = ()) -> dict[str, Any]:
    """The gRPC service configuration; idempotent methods in *policies* are retried on UNAVAILABLE."""
    idempotent = [{"service": s, "method": m} for s, m in map(_split, _idempotent(policies))]
    methods: list[dict[str, Any]] = [{"name": [{}], "waitForReady": True}]
    if idempotent:
        retried = {"name": idempotent, "waitForReady": True, "retryPolicy": _RETRY}
        methods.insert(0, retried)
    return {"loadBalancingConfig": [{"pick_first": {}}], "methodConfig": methods}


_RETRY: Final = {
    "maxAttempts": ATTEMPTS_MAX,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def _idempotent(policies: Iterable[MethodPolicy]) -> list[str]:
    return sorted(policy.path for policy in policies if policy.idempotent)


def _split(path: str) -> tuple[str, str]:
    """ "/pkg.Service/Method" as its two names."""
    _, service, method = path.split("/")
    return service, method


def channel_options(policies: Iterable[MethodPolicy] = ()) -> list[Option]:
    """Channel arguments, for a client that makes its own channel."""
    return [
        ("grpc.service_config", json.dumps(service_config(policies))),
        ("grpc.enable_retries", 1),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS_MIN),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
        # calls in hand keep the connection checked; Envoy tolerates these pings
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ]


def northbound_channel(
    target: str,
    policies: Iterable[MethodPolicy] = (),
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[Option] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """An asyncio channel to *target*: "address:port", or "ipv4:a:p,b:p,c:p" to try several hosts.

    *options* are added last and win. Calls wait for a connection, so each needs a deadline.
    """
    chosen = [*channel_options(policies), *options]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=chosen, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=chosen, interceptors=interceptors)


def northbound_channel_sync(
    target: str,
    policies: Iterable[MethodPolicy] = (),
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[Option] = (),
) -> grpc.Channel:
    """As `northbound_channel`, for programs with threads."""
    chosen = [*channel_options(policies), *options]
    if credentials is None:
        return grpc.insecure_channel(target, options=chosen)
    return grpc.secure_channel(target, credentials, options=chosen)
