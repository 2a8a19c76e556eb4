"""The check on every call: who is it, is its certificate still good, may it do this.

One interceptor a listener. On the mesh listener the caller is what its
certificate proves; on the others it is what can reach the listener. A handler
reads the caller from `present_caller`.

Invariant: a certificate that is revoked, has run out, or is of a member that
was removed starts no call from then on, and `recheck` ends the calls that are open under it. TLS alone would
let them go on (an open channel is never verified again).

Order: stands inside the interceptor that turns errors into statuses.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from inspect import isawaitable
from typing import Any, Final, cast

import grpc

from mesh.errors import Denied
from mesh.identity.names import ANONYMOUS, Caller, Role
from mesh.identity.proof import Proof, peer_certificate, read_certificate
from mesh.identity.table import Table, check_allowed
from mesh.ids import ClusterId, MemberId

Call = grpc.aio.ServicerContext[Any, Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]

_present: ContextVar[Caller] = ContextVar("caller", default=ANONYMOUS)
#: Metadata by which a host that forwards a call names the caller it forwards for.
ON_BEHALF: Final = "trellis-on-behalf-of"


class Listener(Enum):
    """Which door a call came through."""

    MESH = "mesh"
    #: TLS without a client certificate.
    JOIN = "join"
    #: 0600 UNIX socket: whoever may open it administers this machine.
    ADMIN_SOCKET = "admin-socket"
    #: UNIX socket for the instances of this host.
    SERVICE_SOCKET = "service-socket"


_BY_LISTENER: Final = {
    Listener.JOIN: ANONYMOUS,
    Listener.ADMIN_SOCKET: Caller(Role.OPERATOR, "local"),
    Listener.SERVICE_SOCKET: Caller(Role.SERVICE, "local"),
}


def present_caller() -> Caller:
    """Who makes the call that is being handled here."""
    return _present.get()


def forwarding_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata for passing the present call on to another host in its caller's name."""
    caller = _present.get()
    return ((ON_BEHALF, f"{caller.role.value}/{caller.name}"),)


@dataclass(eq=False, slots=True)
class _OpenCall:
    """A call being handled under a certificate."""

    proof: Proof
    task: "asyncio.Task[Any]"
    ended: Denied | None = None


class AuthorisationInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through, in its caller's name, or refuses it with `Denied`."""

    def __init__(
        self,
        listener: Listener,
        cluster_id: ClusterId,
        table: Table,
        is_revoked: Callable[[str], bool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        is_removed: Callable[[MemberId], bool] = lambda _: False,
    ) -> None:
        self._listener = listener
        self._cluster_id = cluster_id
        self._table = table
        self._is_revoked = is_revoked
        self._now = now
        self._is_removed = is_removed
        self._open: set[_OpenCall] = set()

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        return self._guarded(handler, details)

    def recheck(self) -> int:
        """Ends every open call whose certificate is no longer good; returns how many.

        To be called when a certificate was revoked, and now and then for those
        that run out.
        """
        ended = 0
        for call in list(self._open):
            if call.ended is None and (reason := self._refusal(call.proof)):
                call.ended = reason
                call.task.cancel()
                ended += 1
        return ended

    # ---- who is it ----------------------------------------------------------------

    def _identify(self, context: Call, details: grpc.HandlerCallDetails) -> tuple[Caller, Proof | None]:
        if self._listener is not Listener.MESH:
            return _BY_LISTENER[self._listener], None
        proof = read_certificate(peer_certificate(context.auth_context()))
        if refusal := self._refusal(proof):
            raise refusal
        return self._forwarded(proof.caller, details), proof

    def _refusal(self, proof: Proof) -> Denied | None:
        if proof.spiffe.cluster_id != self._cluster_id:
            return Denied(
                f"{proof.caller} belongs to cluster {proof.spiffe.cluster_id}, this is {self._cluster_id}."
                " Two clusters do not talk to each other; join the host to this one with a token.",
                cluster_id=self._cluster_id,
            )
        if self._is_revoked(proof.caller.serial):
            return Denied(
                f"The certificate of {proof.caller} was revoked."
                " A removed host joins again with a new token.",
                serial=proof.caller.serial,
            )
        if proof.caller.member is not None and self._is_removed(proof.caller.member):
            return Denied(
                f"{proof.caller.member} is not of this cluster any more."
                " Its host joins again with a new token.",
                member=proof.caller.member,
            )
        if self._now() > proof.not_after:
            return Denied(
                f"The certificate of {proof.caller} ran out at {proof.not_after:%Y-%m-%d %H:%M:%S} UTC."
                " Join again with a new token, or ask for a new operator's certificate.",
                serial=proof.caller.serial,
            )
        return None

    def _forwarded(self, caller: Caller, details: grpc.HandlerCallDetails) -> Caller:
        """Members are trusted with each other's callers; nobody else is."""
        named = dict(details.invocation_metadata or ()).get(ON_BEHALF)
        if caller.role is not Role.HOST or named is None:
            return caller
        role, _, name = str(named).partition("/")
        try:
            return Caller(Role(role), name, None, caller.serial)
        except ValueError:
            raise Denied(f"{caller} forwards a call for {named!r}, which is no role.") from None

    # ---- the call itself ----------------------------------------------------------

    @contextlib.contextmanager
    def _admitted(self, context: Call, details: grpc.HandlerCallDetails) -> Iterator[None]:
        caller, proof = self._identify(context, details)
        check_allowed(self._table, details.method, caller)
        token = _present.set(caller)
        call = _OpenCall(proof, cast("asyncio.Task[Any]", asyncio.current_task())) if proof else None
        if call:
            self._open.add(call)
        try:
            yield
        except asyncio.CancelledError:
            if call is None or call.ended is None:
                raise
            call.task.uncancel()
            raise call.ended from None
        finally:
            if call:
                self._open.discard(call)
            # A generator may be closed in another context than it began in.
            with contextlib.suppress(ValueError):
                _present.reset(token)

    def _guarded(self, handler: Any, details: grpc.HandlerCallDetails) -> Any:
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        kind = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        behaviour = getattr(handler, kind)

        async def answer(request: Any, context: Call) -> Any:
            with self._admitted(context, details):
                return await behaviour(request, context)

        async def answers(request: Any, context: Call) -> AsyncIterator[Any]:
            with self._admitted(context, details):
                produced = behaviour(request, context)
                if isawaitable(produced):  # writes through the context instead of yielding
                    await produced
                    return
                async with contextlib.aclosing(produced):
                    async for each in produced:
                        yield each

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            answers if streams_out else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
