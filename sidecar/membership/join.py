"""`trellis join`: makes this machine a host of the cluster that a token is from.

Crash-safe: the key is stored before it is sent, so an interrupted run is
recognised when it is repeated with the same token; the identity is stored
whole, and only then does the host belong to the cluster.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import tenacity
from trellis.membership.v1 import membership_pb2, membership_pb2_grpc

from mesh import failpoints
from mesh.errors import (
    Conflict,
    Corruption,
    InvalidRequest,
    OutcomeUnknown,
    PeerUnreachable,
    TrellisError,
    Unavailable,
)
from mesh.identity.files import HostIdentity, IdentityFiles, check_belongs_together, write_private
from mesh.identity.keys import key_from_pem, key_to_pem, make_csr, new_key
from mesh.identity.names import tls_name
from mesh.identity.token import TokenText
from mesh.ids import ClusterId, HostId, MemberId, host_of
from mesh.settings.directories import DATA_MODE, check_directories, make_directory
from mesh.settings.model import HostSettings
from mesh.wire.errors import from_rpc_error
from sidecar.membership.admission import CLOCK
from sidecar.membership.fitness import check_fitness
from sidecar.membership.init import check_unused
from sidecar.membership.version import own_version

ATTEMPT_S: Final = 5.0
_OTHER_CLUSTER: Final = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "Hostname Verification")


@dataclass(frozen=True, slots=True)
class Joined:
    """What this host is now."""

    cluster_id: ClusterId
    member: MemberId
    #: It was a member of that cluster already; nothing was done.
    unchanged: bool = False


def seeds_path(settings: HostSettings) -> Path:
    """Where the addresses of the other members stand until the state has them."""
    return settings.host.data_dir / "seeds.json"


def load_seeds(settings: HostSettings) -> dict[MemberId, str]:
    """Mesh addresses of other members as of the join; empty on the founding host."""
    path = seeds_path(settings)
    if not path.exists():
        return {}
    try:
        return {MemberId(str(member)): str(at) for member, at in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError) as error:
        raise Corruption(str(path), f"it cannot be read ({error})") from error


async def join(
    settings: HostSettings,
    token_text: str,
    *,
    timeout_s: float = 30.0,
    on_step: Callable[[str], None] | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> Joined:
    """Proves that this machine fits, asks to be admitted, and stores its identity.

    Fails: `InvalidRequest` for a token or machine that does not fit (every
    problem), `Conflict` when the directory belongs to another cluster, `Denied`
    for a token that is unknown, used or expired, `Unavailable` when no host of
    the cluster answers in time. After any of them the command may be repeated.
    """
    token = TokenText.decode(token_text)
    say = on_step or _silent
    say("checking this machine")
    if problems := check_directories(settings):
        raise InvalidRequest(f"{settings.host.name} cannot join with these settings.", problems)
    files = IdentityFiles(settings.identity_dir)
    if (present := files.load()) is not None:
        return _already(settings, present, token)
    check_unused(settings, files)
    if problems := check_fitness(settings, tuple(address for _, address in token.addresses)):
        raise InvalidRequest(f"{settings.host.name} cannot join with these settings.", problems)
    if problems := make_directory("host.data_dir", settings.host.data_dir, DATA_MODE):
        raise InvalidRequest(f"{settings.host.name} cannot join with these settings.", problems)
    key_pem = _pending_key(files)
    say("asking to be admitted")
    answer = await _ask(settings, token, key_pem, timeout_s, now_ns)
    await failpoints.passing("join.admitted")
    identity = _identity(settings, token, key_pem, answer)
    say("storing the identity")
    write_private(seeds_path(settings), json.dumps(dict(answer.members), sort_keys=True).encode())
    files.save(identity)
    return Joined(identity.cluster_id, identity.member)


def _silent(_: str) -> None:
    """Nobody wants to know."""


def _already(settings: HostSettings, present: HostIdentity, token: TokenText) -> Joined:
    if present.cluster_id != token.cluster_id:
        raise Conflict(
            f"{settings.host.data_dir} belongs to cluster {present.cluster_id} as {present.member},"
            f" and the token is from cluster {token.cluster_id}. A host is of one cluster only: to join"
            " that one, stop this host and move its data directory away.",
            cluster_id=present.cluster_id,
        )
    if present.host != settings.host_id:
        raise Conflict(
            f"{settings.host.data_dir} belongs to {present.member}, and host.name is {settings.host.name};"
            " a host keeps its name."
        )
    return Joined(present.cluster_id, present.member, unchanged=True)


def _pending_key(files: IdentityFiles) -> bytes:
    """The key of an interrupted join, or a new one, durable before it is used."""
    pending = files.pending_key()
    if pending is not None:
        return pending
    key_pem = key_to_pem(new_key())
    files.save_pending_key(key_pem)
    failpoints.hit("join.key-stored")
    return key_pem


async def _ask(
    settings: HostSettings, token: TokenText, key_pem: bytes, timeout_s: float, now_ns: Callable[[], int]
) -> membership_pb2.JoinResponse:
    """The first answer of any host; joining twice is joining once, so a lost answer is asked for again."""
    if not token.addresses:
        raise InvalidRequest("The join token names no host to ask; make another one with `trellis token`.")
    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((Unavailable, OutcomeUnknown)),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
        stop=tenacity.stop_after_delay(timeout_s),
        reraise=True,
    )
    csr_pem = make_csr(key_from_pem(key_pem), settings.host.name)
    number = 0
    async for attempt in attempts:
        with attempt:
            host, address = token.addresses[number % len(token.addresses)]
            number += 1
            request = membership_pb2.JoinRequest(
                secret=token.secret,
                host=settings.host.name,
                address=str(settings.mesh.address),
                csr_pem=csr_pem,
                version=own_version(),
            )
            await failpoints.passing("join.before-ask")
            return await _ask_one(host, address, token, request, now_ns, min(ATTEMPT_S, timeout_s))
    raise Unavailable("No host was asked.")


async def _ask_one(
    host: HostId,
    address: str,
    token: TokenText,
    request: membership_pb2.JoinRequest,
    now_ns: Callable[[], int],
    timeout_s: float,
) -> membership_pb2.JoinResponse:
    trusted = grpc.ssl_channel_credentials(token.ca_pem)
    override = (("grpc.ssl_target_name_override", tls_name(host, token.cluster_id)),)
    async with grpc.aio.secure_channel(address, trusted, options=override) as channel:
        call = _Call(membership_pb2_grpc.MembershipServiceStub(channel), host, address, timeout_s)
        try:
            return await call.join(request, now_ns())
        except InvalidRequest as refused:
            if {problem.path for problem in refused.problems} != {CLOCK}:
                raise
        # The first time may have been old from connecting; now the connection is open.
        return await call.join(request, now_ns())


@dataclass(frozen=True, slots=True)
class _Call:
    """One host that is asked."""

    stub: Any
    host: HostId
    address: str
    timeout_s: float

    async def join(self, request: membership_pb2.JoinRequest, now_ns: int) -> membership_pb2.JoinResponse:
        request.now.FromNanoseconds(now_ns)
        try:
            answer: membership_pb2.JoinResponse = await self.stub.Join(request, timeout=self.timeout_s)
        except grpc.aio.AioRpcError as failure:
            raise _meaning(failure, self.host, self.address) from failure
        return answer


def _meaning(failure: grpc.aio.AioRpcError, host: HostId, address: str) -> TrellisError:
    details = f"{failure.details()} {failure.debug_error_string()}"
    if any(sign in details for sign in _OTHER_CLUSTER):
        return Conflict(
            f"Whoever answers at {address} is not {host} of the token's cluster: its certificate is signed"
            " by another authority. Check the address, and that the token is from the cluster meant.",
            address=address,
        )
    error = from_rpc_error(failure)
    if isinstance(error, PeerUnreachable | OutcomeUnknown):
        return PeerUnreachable(
            f"{host} at {address} does not answer ({failure.details()}). Check that its sidecar runs and that"
            " no firewall is between; that port is mesh.join_address in its settings.",
            address=address,
        )
    return error


def _identity(
    settings: HostSettings, token: TokenText, key_pem: bytes, answer: membership_pb2.JoinResponse
) -> HostIdentity:
    """What was answered, if it is whole and of the token's cluster."""
    identity = HostIdentity(
        ClusterId(answer.cluster_id),
        MemberId(answer.member),
        key_pem,
        answer.certificate_pem,
        answer.ca_pem,
        answer.sealing_key,
    )
    if identity.cluster_id != token.cluster_id or host_of(identity.member) != settings.host_id:
        raise Conflict(
            f"The answer is for {identity.member} of cluster {identity.cluster_id}, asked was for"
            f" {settings.host.name} of {token.cluster_id}; make another token."
        )
    try:
        check_belongs_together(identity)
    except ValueError as error:
        raise Conflict(f"The certificate that was answered cannot be used: {error}.") from error
    return identity
