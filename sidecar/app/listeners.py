"""The four doors of a sidecar, each with its own idea of who comes in.

mesh: other hosts and operators, by certificate. join: hosts that want in, TLS
only. admin socket: operators of this machine. service socket: its instances.

Order: the mesh listener is opened first and closed last. Its port refusing is
what tells the others that this sidecar is dead (crash proof), so it must not
close while anything exclusive is held.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from mesh.adapters.channel import SERVER_OPTIONS
from mesh.adapters.errors_interceptor import ErrorsInterceptor
from mesh.errors import InvariantBroken, Problem, SettingsError
from mesh.identity.credentials import Credentials
from mesh.identity.interceptor import AuthorisationInterceptor, Listener
from mesh.identity.table import build_table
from mesh.ids import MemberId
from mesh.limits import MESSAGE_BYTES_MAX
from mesh.settings.ports import why_not
from mesh.settings.values import Endpoint
from sidecar.app.gate import Gate

Register = Callable[[grpc.aio.Server], None]

LOCAL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)


#: A caller that has said something but not who it is, or what it wants, does not stay.
JOIN_OPTIONS = (
    *SERVER_OPTIONS,
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 10_000),
)


class Door(Protocol):
    """A listener that can be closed."""

    async def stop(self, grace: float | None) -> None:
        """Take nothing new; calls in hand have *grace* seconds."""


class JoinDoor:
    """The listener for joining hosts: a gate, and a server behind it."""

    def __init__(self, gate: Gate, server: grpc.aio.Server) -> None:
        self._gate = gate
        self._server = server

    async def stop(self, grace: float | None) -> None:
        """See Door."""
        await self._server.stop(grace)
        await self._gate.close()


class Listeners:
    """Makes and closes the gRPC servers."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        is_revoked: Callable[[str], bool],
        is_removed: Callable[[MemberId], bool],
        on_bug: Callable[[InvariantBroken], None],
    ) -> None:
        self._credentials = credentials
        self._is_revoked = is_revoked
        self._is_removed = is_removed
        self._on_bug = on_bug
        self._table = build_table()
        self._guards: list[AuthorisationInterceptor] = []
        self._health: list[health_aio.HealthServicer] = []

    def recheck(self) -> None:
        """A certificate was revoked: end the calls that are open under it."""
        for guard in self._guards:
            guard.recheck()

    def _server(
        self, door: Listener, register: Iterable[Register], options: Sequence[Any]
    ) -> grpc.aio.Server:
        cluster = self._credentials.identity.cluster_id
        guard = AuthorisationInterceptor(
            door, cluster, self._table, self._is_revoked, is_removed=self._is_removed
        )
        self._guards.append(guard)
        server = grpc.aio.server(interceptors=[ErrorsInterceptor(self._on_bug), guard], options=options)
        for add in register:
            add(server)
        health = health_aio.HealthServicer()
        self._health.append(health)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        return server

    async def open_mesh(self, address: str, register: Iterable[Register]) -> grpc.aio.Server:
        """mTLS for hosts and operators. Fails: SettingsError when the address is taken."""
        server = self._server(Listener.MESH, register, SERVER_OPTIONS)
        _bind(
            lambda: why_not("mesh.address", address),
            lambda: server.add_secure_port(address, self._credentials.server_credentials()),
        )
        await server.start()
        return server

    async def open_join(self, address: Endpoint, behind: Path, register: Iterable[Register]) -> "JoinDoor":
        """TLS without a client certificate, for hosts with a token; at the socket *behind* a gate."""
        server = self._server(Listener.JOIN, register, JOIN_OPTIONS)
        _clear(behind)
        credentials = self._credentials.server_credentials(require_client=False)
        before = os.umask(0o177)
        try:
            _bind_socket(behind, lambda: server.add_secure_port(f"unix:{behind}", credentials))
            await server.start()
        finally:
            os.umask(before)
        gate = Gate(behind)
        try:
            await gate.open(address.ip, address.port)
        except OSError as error:
            await server.stop(0)
            raise _refused(why_not("mesh.join_address", str(address))) from error
        return JoinDoor(gate, server)

    async def open_socket(
        self,
        path: Path,
        door: Listener,
        register: Iterable[Register],
        *,
        mode: int,
        names: Sequence[str] = (),
    ) -> grpc.aio.Server:
        """A UNIX socket; with `names` also reflection, for tools like grpcurl."""
        server = self._server(door, register, LOCAL_OPTIONS)
        if names:
            reflection.enable_server_reflection(
                [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME],
                server,
            )
        _clear(path)
        before = os.umask(0o777 & ~mode)
        try:
            _bind_socket(path, lambda: server.add_insecure_port(f"unix:{path}"))
            await server.start()
        finally:
            os.umask(before)
        return server


def _clear(path: Path) -> None:
    """Make way for a socket: what stands there is of an earlier run, since the log is locked."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


def _bind(problem: Callable[[], Problem], add: Callable[[], int]) -> None:
    try:
        bound = add()
    except RuntimeError as error:
        raise _refused(problem()) from error
    if bound == 0:
        raise _refused(problem())


def _bind_socket(path: Path, add: Callable[[], int]) -> None:
    _bind(lambda: Problem("host.run_dir", f"no socket can be made at {path}; choose another directory"), add)


def _refused(problem: Problem) -> SettingsError:
    return SettingsError("This host cannot open its listener.", [problem])
