"""MembershipService and CertificateService, served on every host.

Who may call is the authorisation interceptor's question; here only what is
asked for is checked. Any host answers: it signs with the unsealed key and has
the record committed by whoever leads.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

from cryptography import x509
from google.protobuf.duration_pb2 import Duration
from trellis.certificate.v1 import certificate_pb2, certificate_pb2_grpc
from trellis.membership.v1 import membership_pb2, membership_pb2_grpc

from mesh import failpoints
from mesh.adapters.deadline import remaining_s
from mesh.errors import Conflict, Denied, InvalidRequest, NotFound, Problem
from mesh.identity.authority import OPERATOR_LIFETIME, OPERATOR_LIFETIME_MAX
from mesh.identity.interceptor import present_caller
from mesh.identity.token import TokenText, new_secret, secret_sha256
from mesh.ids import HostId, Index
from mesh.settings.values import parse_name
from mesh.state.commands import AddToken, RemoveMember, RevokeCertificate, UpdateMember
from mesh.state.model import HostRecord, JoinToken
from mesh.wire.membership import host_to_wire
from sidecar.membership.admission import Admission, Applicant, Replicated
from sidecar.membership.issuer import Issuer
from sidecar.membership.removal import removal_problems
from sidecar.membership.renewal import next_port, renewed_row
from sidecar.membership.seen import LeaderChannel, completed, seen_by_leader

TOKEN_LIFETIME: Final = timedelta(hours=1)
TOKEN_LIFETIME_MAX: Final = timedelta(days=7)


class Observed(Protocol):
    """What is known of hosts beside the replicated state."""

    def leading_host(self) -> HostId | None: ...
    def beat_age_ns(self, host: HostId) -> int | None: ...
    def applied_index(self, host: HostId) -> int:
        """0 when unknown."""


class MembershipServicer(membership_pb2_grpc.MembershipServiceServicer):
    """Joining, leaving and listing."""

    def __init__(
        self,
        *,
        replicated: Replicated,
        issuer: Issuer,
        observed: Observed,
        admission: Admission,
        own_host: HostId,
        join_address: str,
        leader_channel: LeaderChannel,
        now_ns: Callable[[], int],
    ) -> None:
        self._replicated = replicated
        self._issuer = issuer
        self._observed = observed
        self._admission = admission
        self._own_host = own_host
        self._join_address = join_address
        self._leader_channel = leader_channel
        self._now_ns = now_ns

    async def CreateToken(
        self, request: membership_pb2.CreateTokenRequest, context: Any
    ) -> membership_pb2.CreateTokenResponse:
        """See the contract."""
        lifetime = _lifetime(request.lifetime, TOKEN_LIFETIME, TOKEN_LIFETIME_MAX)
        host = _name("host", request.host) if request.host else None
        secret = new_secret()
        expires_ns = self._now_ns() + _ns(lifetime)
        token = JoinToken(secret_sha256(secret), expires_ns, HostId(host) if host else None, request.witness)
        await self._replicated.propose(AddToken(token), timeout_s=remaining_s(context), at_ns=self._now_ns())
        await failpoints.passing("token.proposed")
        text = TokenText(self._issuer.cluster_id, secret, self._issuer.ca_pem, self._join_addresses())
        response = membership_pb2.CreateTokenResponse(token=text.encode())
        response.expires.FromNanoseconds(expires_ns)
        return response

    def _join_addresses(self) -> tuple[tuple[HostId, str], ...]:
        """Where to join: this host as set, the others as they have announced."""
        rows = self._replicated.state.members.values()
        found = {HostId(row.host): row.join_address or next_port(row.address) for row in rows}
        found[self._own_host] = self._join_address
        return tuple(sorted(found.items()))

    async def Join(self, request: membership_pb2.JoinRequest, context: Any) -> membership_pb2.JoinResponse:
        """See the contract."""
        applicant = Applicant(
            secret=request.secret,
            host=request.host,
            address=request.address,
            csr_pem=request.csr_pem,
            version=request.version,
            now_ns=request.now.ToNanoseconds(),
        )
        admitted = await self._admission.admit(applicant, timeout_s=remaining_s(context))
        return membership_pb2.JoinResponse(
            cluster_id=self._issuer.cluster_id,
            member=admitted.member,
            certificate_pem=admitted.certificate_pem,
            ca_pem=self._issuer.ca_pem,
            members=dict(admitted.members),
            sealing_key=b"" if admitted.is_witness else self._issuer.sealing_key,
        )

    async def RemoveHost(
        self, request: membership_pb2.RemoveHostRequest, context: Any
    ) -> membership_pb2.RemoveHostResponse:
        """See the contract."""
        timeout_s = remaining_s(context)
        await self._replicated.barrier(timeout_s=timeout_s)
        host, state = HostId(request.host), self._replicated.state
        record = state.hosts.get(host)
        if record is None:
            raise NotFound(f"There is no host {request.host}; see trellis hosts.", host=request.host)
        if self._observed.leading_host() == host:
            raise Conflict(f"{host} leads; hand over first: trellis leader transfer", host=host)
        problems = removal_problems(state, host)
        if problems and not request.force:
            raise InvalidRequest(f"{host} is not removed (force does it all the same).", problems)
        await self._replicated.propose(RemoveMember(record.member), timeout_s=timeout_s, at_ns=self._now_ns())
        return membership_pb2.RemoveHostResponse()

    async def ListHosts(
        self, request: membership_pb2.ListHostsRequest, context: Any
    ) -> membership_pb2.ListHostsResponse:
        """See the contract."""
        seen: Mapping[HostId, membership_pb2.Host] = {}
        if not request.stale_ok:
            await self._replicated.barrier(timeout_s=remaining_s(context))
            seen = await seen_by_leader(self._leader_channel, timeout_s=remaining_s(context))
        records = sorted(self._replicated.state.hosts.values(), key=lambda record: record.host)
        hosts = completed((self._host(record) for record in records), seen)
        return membership_pb2.ListHostsResponse(hosts=hosts)

    def _host(self, record: HostRecord) -> membership_pb2.Host:
        row = self._replicated.state.members[record.member]
        age_ns = self._observed.beat_age_ns(record.host)
        return host_to_wire(
            record,
            row,
            leader=self._observed.leading_host() == record.host,
            applied=Index(self._observed.applied_index(record.host)),
            last_beat_age_ms=None if age_ns is None else age_ns // 1_000_000,
        )


class CertificateServicer(certificate_pb2_grpc.CertificateServiceServicer):
    """Renewal, operators' certificates, revocation, trust."""

    def __init__(self, *, replicated: Replicated, issuer: Issuer, now_ns: Callable[[], int]) -> None:
        self._replicated = replicated
        self._issuer = issuer
        self._now_ns = now_ns

    async def RenewCertificate(
        self, request: certificate_pb2.RenewCertificateRequest, context: Any
    ) -> certificate_pb2.RenewCertificateResponse:
        """See the contract. The member is the one that the caller's certificate names."""
        timeout_s = remaining_s(context)
        await self._replicated.barrier(timeout_s=timeout_s)
        member = present_caller().member
        row = self._replicated.state.members.get(member) if member else None
        if row is None:
            raise Denied(f"{member or present_caller()} is not of this cluster any more; join again.")
        issued = self._issuer.issue_host(row.member, row.address, request.csr_pem)
        await self._replicated.propose(
            UpdateMember(renewed_row(row, issued)), timeout_s=timeout_s, at_ns=self._now_ns()
        )
        return certificate_pb2.RenewCertificateResponse(
            certificate_pem=issued.certificate_pem, ca_pem=self._issuer.ca_pem
        )

    async def IssueOperatorCertificate(
        self, request: certificate_pb2.IssueOperatorCertificateRequest, context: Any
    ) -> certificate_pb2.IssueOperatorCertificateResponse:
        """See the contract."""
        lifetime = _lifetime(request.lifetime, OPERATOR_LIFETIME, OPERATOR_LIFETIME_MAX)
        issued = self._issuer.issue_operator(_name("name", request.name), request.csr_pem, lifetime)
        return certificate_pb2.IssueOperatorCertificateResponse(
            certificate_pem=issued.certificate_pem, ca_pem=self._issuer.ca_pem
        )

    async def RevokeCertificate(
        self, request: certificate_pb2.RevokeCertificateRequest, context: Any
    ) -> certificate_pb2.RevokeCertificateResponse:
        """See the contract."""
        serial = request.serial.lower().removeprefix("0x").replace(":", "").lstrip("0")
        await self._replicated.propose(
            RevokeCertificate(serial, request.reason or f"revoked by {present_caller()}"),
            timeout_s=remaining_s(context),
            at_ns=self._now_ns(),
        )
        return certificate_pb2.RevokeCertificateResponse()

    async def GetTrust(
        self, request: certificate_pb2.GetTrustRequest, context: Any
    ) -> certificate_pb2.GetTrustResponse:
        """See the contract."""
        ca_pem = self._issuer.ca_pem
        response = certificate_pb2.GetTrustResponse(
            ca_pem=ca_pem, revoked_serials=sorted(self._replicated.state.revoked)
        )
        if ca_pem:
            certificates = x509.load_pem_x509_certificates(ca_pem)
            response.expires.FromDatetime(min(each.not_valid_after_utc for each in certificates))
        return response


def _lifetime(given: Duration, default: timedelta, most: timedelta) -> timedelta:
    lifetime = given.ToTimedelta() or default
    if not timedelta(0) < lifetime <= most:
        problem = f"{_hours(lifetime)} is not above zero and at most {_hours(most)}"
        raise InvalidRequest("The lifetime cannot be used.", [Problem("lifetime", problem, _hours(default))])
    return lifetime


def _hours(duration: timedelta) -> str:
    """As the CLI writes and reads it: "1h", "0.5h"."""
    return f"{duration / timedelta(hours=1):g}h"


def _ns(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000


def _name(field: str, value: str) -> str:
    try:
        return parse_name(value)
    except ValueError as error:
        raise InvalidRequest("The name cannot be used.", [Problem(field, str(error), "host2")]) from error
