"""Takes a host in: checks its token and what it says of itself, signs, and has it recorded.

Order: the certificate is signed before the member is recorded, and handed out
only after; so whatever is handed out is on record, and can be revoked.
Repeating a join with the same token and key gives the same member.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from mesh import failpoints
from mesh.errors import Conflict, Denied, InvalidRequest, Problem
from mesh.identity.keys import check_csr, key_sha256
from mesh.identity.token import secret_sha256
from mesh.ids import HostId, Incarnation, Index, MemberId, incarnation_of, member_id
from mesh.settings.values import parse_endpoint, parse_name
from mesh.state import ClusterState
from mesh.state.commands import AdmitMember, Applied, Command, UpdateMember
from mesh.state.model import HostStatus, JoinToken, Member, MemberRole
from sidecar.membership.issuer import Issuer

NS_PER_MS: Final = 1_000_000
#: Two hosts of one name may join at the same time; each attempt takes the next incarnation.
ATTEMPTS_MAX: Final = 3


#: Field of a join request that a wrong clock is reported under.
CLOCK: Final = "now"


class Replicated(Protocol):
    """The replicated state and how to change it; `mesh.replica.Replica` is one."""

    @property
    def state(self) -> ClusterState: ...

    async def propose(self, command: Command, *, timeout_s: float = ..., at_ns: int = ...) -> Applied:
        """Have a command applied once."""

    async def barrier(self, *, timeout_s: float = ...) -> Index:
        """Wait until everything acknowledged before is applied here."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """What a host that wants in says of itself."""

    secret: str = field(repr=False)
    host: str
    address: str
    csr_pem: bytes
    version: str
    now_ns: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """What it is given."""

    member: MemberId
    certificate_pem: bytes
    #: Mesh addresses of the other members.
    members: tuple[tuple[MemberId, str], ...]
    is_witness: bool


class Admission:
    """The joining half of the membership service."""

    def __init__(
        self,
        replicated: Replicated,
        issuer: Issuer,
        *,
        version: str,
        clock_skew_ms_max: int,
        now_ns: Callable[[], int],
    ) -> None:
        self._replicated = replicated
        self._issuer = issuer
        self._version = version
        self._skew_ms_max = clock_skew_ms_max
        self._now_ns = now_ns

    async def admit(self, applicant: Applicant, *, timeout_s: float) -> Admitted:
        """Admits a host, or finds that it is admitted already.

        Fails: `Denied` for the token, `InvalidRequest` with everything wrong with
        the applicant, `Conflict` when its name or address is in use.
        """
        received_ns = self._now_ns()
        await self._replicated.barrier(timeout_s=timeout_s)
        # The token first: nothing is told to somebody who has none.
        token = self._token(applicant)
        self._check(applicant, received_ns)
        key_hash = key_sha256(check_csr(applicant.csr_pem))
        for _ in range(ATTEMPTS_MAX):
            member = self._member_for(applicant, token, key_hash)
            try:
                return await self._record(applicant, token, member, key_hash, timeout_s)
            except Conflict as conflict:
                if "incarnation" not in conflict.metadata:
                    raise
        raise Conflict(f"Others join as {applicant.host} at the same time; use another name, or try again.")

    def _token(self, applicant: Applicant) -> JoinToken:
        token = self._replicated.state.tokens.get(secret_sha256(applicant.secret))
        if token is None or (token.host is not None and token.host != applicant.host):
            raise Denied("this join token is not valid here; make one with `trellis token`")
        return token

    def _check(self, applicant: Applicant, received_ns: int) -> None:
        problems = []
        for name, parse in (("host", parse_name), ("address", parse_endpoint)):
            try:
                parse(getattr(applicant, name))
            except ValueError as error:
                problems.append(Problem(name, str(error)))
        if applicant.version != self._version:
            problem = f"the host runs Trellis {applicant.version}, the cluster {self._version}"
            problems.append(Problem("version", problem, f"pip install trellis-mesh=={self._version}"))
        skew_ms = abs(received_ns - applicant.now_ns) // NS_PER_MS
        if skew_ms > self._skew_ms_max:
            problem = f"the host's clock differs by {skew_ms} ms, at most {self._skew_ms_max} are allowed"
            problems.append(Problem(CLOCK, problem, "set the clock by NTP"))
        if problems:
            raise InvalidRequest(f"{applicant.host} cannot join.", problems)

    def _member_for(self, applicant: Applicant, token: JoinToken, key_hash: str) -> MemberId:
        state, host = self._replicated.state, HostId(applicant.host)
        if token.consumed_by == key_hash and token.member is not None:
            return token.member
        record = state.hosts.get(host)
        if record is not None and record.status is not HostStatus.LOST:
            raise Conflict(
                f"{host} is {record.status.value} as {record.member}: two machines must not have one name."
                f" Give the new one another, or stop {host} and wait until it is lost (see trellis hosts).",
                member=record.member,
            )
        for other in state.members.values():
            if other.address == applicant.address and other.host != host:
                raise Conflict(
                    f"{applicant.address} is the address of {other.member}; change mesh.address",
                    member=other.member,
                )
        latest = state.counters.get(f"incarnation/{host}", 0)
        return member_id(host, Incarnation(latest + 1))

    async def _record(
        self, applicant: Applicant, token: JoinToken, member: MemberId, key_hash: str, timeout_s: float
    ) -> Admitted:
        issued = self._issuer.issue_host(member, applicant.address, applicant.csr_pem)
        failpoints.hit("admission.signed")
        row = Member(
            member=member,
            host=HostId(applicant.host),
            incarnation=incarnation_of(member),
            role=MemberRole.WITNESS if token.witness else MemberRole.LEARNER,
            address=applicant.address,
            version=applicant.version,
            certificate_serial=issued.serial,
            key_sha256=key_hash,
        )
        await failpoints.passing("admission.before-record")
        outcome = await self._replicated.propose(
            AdmitMember(row, token.sha256), timeout_s=timeout_s, at_ns=self._now_ns()
        )
        await failpoints.passing("admission.recorded")
        if outcome.member is not None and outcome.member != member:
            # The same request came twice at once, and the other one was first.
            member = outcome.member
            issued = self._issuer.issue_host(member, applicant.address, applicant.csr_pem)
        if outcome.unchanged:
            await self._update(member, applicant.address, issued.serial, timeout_s)
        return Admitted(member, issued.certificate_pem, self._others(member), token.witness)

    async def _update(self, member: MemberId, address: str, serial: str, timeout_s: float) -> None:
        await self._replicated.barrier(timeout_s=timeout_s)
        present = self._replicated.state.members.get(member)
        if present is None:
            raise Denied(
                f"{member} was admitted by this token and removed since; make another token with"
                " `trellis token`"
            )
        updated = replace(present, address=address, certificate_serial=serial)
        await self._replicated.propose(UpdateMember(updated), timeout_s=timeout_s, at_ns=self._now_ns())

    def _others(self, member: MemberId) -> tuple[tuple[MemberId, str], ...]:
        rows = self._replicated.state.members.values()
        return tuple((row.member, row.address) for row in rows if row.member != member)
