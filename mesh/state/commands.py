"""Every change that can be made to the replicated state, one dataclass each.

A command is proposed inside a `Request`, and `mesh.state.apply` answers with an
`Outcome`. Expected versions make a command safe to decide from a state that may
have moved on: None means whatever it is, 0 means only if it does not exist.

Fails: the refusals of each command are named in its docstring; they come back
as `Rejected`, and nothing has changed then.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from mesh.errors import Problem
from mesh.ids import (
    ClusterId,
    DocumentName,
    FencingTerm,
    HostId,
    Index,
    MemberId,
    OwnedName,
    ServiceName,
    SessionId,
)
from mesh.state.database_commands import DatabaseCommand
from mesh.state.model import Fence, HostStatus, JoinToken, Member, MemberRole, Slot
from mesh.state.service import InstanceStatus, ServiceSpec

NO_SESSION: Final = SessionId("")
NEVER_ASSIGNED: Final = FencingTerm(0)

# ---- the cluster and its hosts ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class InitCluster:
    """Makes the cluster with its first member. Refused (Conflict) when it is another one already."""

    cluster_id: ClusterId
    member: Member
    virtual_address: str = ""
    ca_pem: bytes = b""


@dataclass(frozen=True, slots=True)
class SetVirtualAddress:
    """Changes the address of northbound calls; empty takes it away."""

    virtual_address: str


@dataclass(frozen=True, slots=True)
class AdmitMember:
    """Admits a host, as the next incarnation of its name, and uses up its token.

    `member.incarnation` must be above every earlier one of the host, else
    Conflict. With the token already used by the same key, nothing changes and
    the outcome names the member admitted then; by another key: Denied. A
    present member of the same host is replaced (its instances are forgotten)
    unless it still owns something: Conflict. It counts as lost until
    SetHostStatus says that it beats.
    """

    member: Member
    #: Hash of the token's secret; empty: admitted without one.
    token_sha256: str = ""


@dataclass(frozen=True, slots=True)
class UpdateMember:
    """New addresses, version or certificate of a member. Role and admission stay."""

    member: Member


@dataclass(frozen=True, slots=True)
class SetMemberRole:
    """Records what Raft's membership has made of a member."""

    member: MemberId
    role: MemberRole


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Removes a host for good: member, verdict, instances, and its certificate is revoked.

    Refused (Conflict) while the host owns something.
    """

    member: MemberId


@dataclass(frozen=True, slots=True)
class SetHostStatus:
    """Verdict about a host; StaleTerm when `member` is no longer the host's member.

    LOST takes every instance of the host out of traffic until it reports again.
    """

    host: HostId
    member: MemberId
    status: HostStatus
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DrainHost:
    """Takes a host out of service, or back in."""

    host: HostId
    draining: bool


# ---- documents --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutDocument:
    """Writes a document; VersionConflict when `expected_version` is not the present one."""

    name: DocumentName
    value: bytes
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteDocument:
    """Deletes a document; its versions go on if it is written again. NotFound when absent."""

    name: DocumentName
    expected_version: int | None = None


# ---- services ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ApplyService:
    """Declares a service, or changes or revives its declaration.

    Unchanged when it is declared just so and not stopped.
    """

    spec: ServiceSpec
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class StopService:
    """Stops a service and, unless kept, forgets its declaration and placement.

    VersionConflict when `expected_version` is not that of the present declaration.
    """

    name: ServiceName
    keep: bool = False
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class RestartService:
    """Restarts every instance one after the other; starts a stopped service."""

    name: ServiceName


@dataclass(frozen=True, slots=True)
class SetPlacement:
    """Which hosts run a service; VersionConflict unless decided from the present placement."""

    service: ServiceName
    slots: tuple[Slot, ...]
    #: `Placement.version` it was decided from; 0: there was none.
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class ReportInstances:
    """What a host says of its instances; StaleTerm when `member` is no longer its member.

    An instance reported STOPPED is forgotten. With `complete`, so is every
    other instance of the host that is not in the list.
    """

    host: HostId
    member: MemberId
    statuses: tuple[InstanceStatus, ...]
    complete: bool = False


# ---- ownership --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AssignOwner:
    """Gives an exclusive thing to a host, under the next fencing term.

    Only the leader knows that the earlier holder can no longer act; this
    checks that nothing was assigned since it looked: StaleTerm when
    `expected_fencing_term` (0: never assigned) is not the latest. A successor of the
    database's primary was chosen by a published sync set: VersionConflict when
    `expected_sync_version` is given and another one was published since, Conflict when
    `expected_primary_term` is given and another primaryship was recorded since.
    """

    name: OwnedName
    holder: HostId
    expected_fencing_term: FencingTerm
    expected_sync_version: int | None = None
    expected_primary_term: FencingTerm | None = None


@dataclass(frozen=True, slots=True)
class RequestRelease:
    """Asks the holder to give the thing up, in favour of `successor`; None withdraws that.

    Refused: StaleTerm when it was assigned anew meanwhile, so that a late request hits no later owner.
    """

    name: OwnedName
    successor: HostId | None
    #: 0 in entries of before there was this field: whatever it is.
    expected_fencing_term: FencingTerm = NEVER_ASSIGNED


@dataclass(frozen=True, slots=True)
class Unassign:
    """Nobody holds the thing any more; StaleTerm when it was assigned anew meanwhile."""

    name: OwnedName
    expected_fencing_term: FencingTerm


# ---- security ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddToken:
    """Records a join token. QueueFull when too many are open."""

    token: JoinToken


@dataclass(frozen=True, slots=True)
class ConsumeToken:
    """Uses up a token without admitting; AdmitMember does both in one."""

    sha256: str
    host: HostId
    key_sha256: str
    member: MemberId


@dataclass(frozen=True, slots=True)
class RevokeCertificate:
    """Refuses a certificate from now on."""

    serial: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetTrust:
    """Replaces the bundle of CA certificates (PEM)."""

    ca_pem: bytes


@dataclass(frozen=True, slots=True)
class PutSecret:
    """Stores a sealed secret, opaque here; empty forgets it."""

    name: str
    sealed: bytes


# ---- journal, groups --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event before it has an index; time and trace come from the request."""

    kind: str
    subject: str
    message: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordEvents:
    """Appends to the journal."""

    events: tuple[EventDraft, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Several commands at one index, all or nothing: one refusal refuses all. Not nested."""

    commands: tuple["SingleCommand", ...]


SingleCommand: TypeAlias = (
    InitCluster
    | SetVirtualAddress
    | AdmitMember
    | UpdateMember
    | SetMemberRole
    | RemoveMember
    | SetHostStatus
    | DrainHost
    | PutDocument
    | DeleteDocument
    | ApplyService
    | StopService
    | RestartService
    | SetPlacement
    | ReportInstances
    | AssignOwner
    | RequestRelease
    | Unassign
    | AddToken
    | ConsumeToken
    | RevokeCertificate
    | SetTrust
    | PutSecret
    | RecordEvents
    | DatabaseCommand
)
Command: TypeAlias = SingleCommand | Batch


@dataclass(frozen=True, slots=True)
class Request:
    """A command with what makes it traceable and repeatable: the payload of an entry.

    With a session, a repeated `sequence` gives the outcome of the first time
    and changes nothing; the empty session has no memory.
    """

    command: Command
    session: SessionId = NO_SESSION
    #: Rises by one with each new request of the session, from 1.
    sequence: int = 0
    #: Wall clock of the proposer in nanoseconds: shown to people, and compared with the
    #: expiry of tokens; nothing else depends on it.
    at_ns: int = 0
    #: W3C trace id, 32 hexadecimal digits; empty when not traced.
    trace_id: str = ""
    #: The owner that asks for it: StaleTerm unless it still is the owner. None: asked by no owner.
    fence: Fence | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """The command took effect, or found that everything was so already (`unchanged`)."""

    #: Index at which it took effect; of the first time for a repeated request.
    index: Index
    #: New version of the document, declaration or placement; else 0.
    version: int = 0
    #: Fencing term assigned; else 0.
    fencing_term: FencingTerm = NEVER_ASSIGNED
    #: Member admitted; else None.
    member: MemberId | None = None
    unchanged: bool = False
    #: Of a batch: the outcome of each command, in order.
    parts: tuple["Applied", ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused; the state is as before. `mesh.state.error_of` makes the error of it."""

    reason: str
    message: str
    metadata: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()


Outcome: TypeAlias = Applied | Rejected
