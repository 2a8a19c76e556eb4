"""The rows of the replicated state: what the cluster agrees on, value by value.

Every value is frozen and holds only text, numbers, bytes, enums, tuples and
other values of this kind, so that it can be hashed, stored and compared the
same way on every host.

Invariant: a field added later has a default, and a row whose new fields are at
their defaults hashes as before (see mesh.state.hash).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from mesh.ids import (
    ClusterId,
    DocumentName,
    FencingTerm,
    HostId,
    Incarnation,
    Index,
    MemberId,
    OwnedName,
    ServiceName,
    SessionId,
)
from mesh.state.service import ServiceSpec

#: Before the first entry.
NOWHERE: Final = Index(0)


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What `trellis init` decided once for the whole cluster."""

    cluster_id: ClusterId
    #: Address and port of northbound calls that the owner of `vip` serves; empty: none.
    virtual_address: str = ""
    #: Wall clock, nanoseconds; for people only.
    created_ns: int = 0


class MemberRole(Enum):
    """What a member was last recorded to be. Raft's own membership decides who votes."""

    VOTER = "voter"
    LEARNER = "learner"
    WITNESS = "witness"


@dataclass(frozen=True, slots=True)
class Member:
    """One incarnation of one host, as admitted.

    Invariant: one host has at most one member at a time, and incarnations of
    one host strictly rise, also over removal.
    """

    member: MemberId
    host: HostId
    incarnation: Incarnation
    role: MemberRole
    #: Where other members reach it: "10.0.0.1:7400".
    address: str
    #: Where northbound calls reach this host: "10.0.0.1:8443"; empty: nowhere.
    northbound: str = ""
    #: Where mTLS traffic from other hosts' Envoys comes in; empty: nowhere.
    ingress: str = ""
    #: Version of Trellis it runs.
    version: str = ""
    #: Hexadecimal serial number of its present certificate.
    certificate_serial: str = ""
    #: SHA-256 of its public key, hexadecimal.
    key_sha256: str = ""
    #: Index at which it was admitted; set by apply.
    admitted: Index = NOWHERE
    #: Where hosts with a token reach it; empty: at the port after that of `address`.
    join_address: str = ""


class HostStatus(Enum):
    """Verdict about a host."""

    ALIVE = "alive"
    #: Missed beats; its lease may still run.
    SUSPECT = "suspect"
    #: Its lease has certainly run out; what it owned may go to others.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What is decided about one host of the cluster."""

    host: HostId
    member: MemberId
    status: HostStatus = HostStatus.ALIVE
    #: Takes no new instances and gives away what it has.
    draining: bool = False
    #: Index of the last change of `status`.
    since: Index = NOWHERE
    #: Why `status` is what it is, as a sentence; empty when alive.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a replicated document.

    Invariant: versions of one name rise by one with each write or delete.
    """

    name: DocumentName
    version: int
    value: bytes
    #: Index at which it was written.
    revision: Index
    #: Wall clock of the leader when proposed; for people only.
    written_ns: int = 0
    #: This version is a deletion; `value` is empty.
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class DeclaredService:
    """A declaration in force.

    Invariant: versions of one name rise, also over removal and re-creation.
    """

    spec: ServiceSpec
    version: int
    #: Told to be stopped; the declaration is kept.
    stopped: bool = False
    #: Rises with each requested restart.
    restart_nonce: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """Room for one instance: the ordinal counts copies of the service on the host, from 0."""

    host: HostId
    ordinal: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Which hosts run a service.

    Invariant: `slots` is sorted and without duplicates.
    """

    service: ServiceName
    slots: tuple[Slot, ...]
    #: Index at which it was decided; what `SetPlacement.expected_version` compares.
    version: int


@dataclass(frozen=True, slots=True)
class Ownership:
    """The right to act for one exclusive thing, held by one host at a time.

    Invariant: for one name, fencing terms strictly rise, also while nobody
    holds it and over removal of the service.
    """

    name: OwnedName
    holder: HostId | None
    #: Travels with every guarded action; a resource refuses a smaller one.
    fencing_term: FencingTerm
    #: Index of the last change of holder.
    since: Index
    #: Host it is being handed to: the holder should release it.
    successor: HostId | None = None


@dataclass(frozen=True, slots=True)
class Fence:
    """An owner, as it proves itself with what it wants changed."""

    name: OwnedName
    #: Of its assignment, from 1.
    fencing_term: FencingTerm


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as replicated; for people and for `explain`."""

    index: Index
    #: Counts the events of one index, from 0.
    position: int
    at_ns: int
    kind: str
    #: What it is about: a host, service, instance, document or owned name.
    subject: str
    message: str
    #: Facts it was decided from, sorted by name.
    attributes: tuple[tuple[str, str], ...] = ()
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A single-use permission to join; only the hash of its secret is known here."""

    sha256: str
    expires_ns: int
    #: Only a host of this name may use it; empty: any.
    host: HostId | None = None
    witness: bool = False
    #: SHA-256 of the public key that used it; empty while unused. The same key
    #: repeating its request gets the same answer, another key is refused.
    consumed_by: str = ""
    #: Member that was admitted by it.
    member: MemberId | None = None


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """A certificate that is refused from `since` on, also on open streams."""

    serial: str
    reason: str
    since: Index


@dataclass(frozen=True, slots=True)
class Session:
    """What is remembered of one client for exactly-once application.

    Invariant: outcomes of sequences at or below `floor` are forgotten.
    """

    session: SessionId
    #: Index of its latest request; the session with the smallest is forgotten first.
    last_index: Index
    floor: int = 0


class ChangeKind(Enum):
    """Which table a change is in."""

    #: There is one of each, and a name is hashed anew each time.
    __hash__ = object.__hash__

    CLUSTER = "cluster"
    MEMBER = "member"
    HOST = "host"
    DOCUMENT = "document"
    SERVICE = "service"
    PLACEMENT = "placement"
    OWNERSHIP = "ownership"
    INSTANCE = "instance"
    EVENT = "event"
    TOKEN = "token"  # noqa: S105 - the name of a table
    REVOKED = "revoked"
    TRUST = "trust"
    SECRET = "secret"  # noqa: S105 - the name of a table
    DATABASE = "database"
    DATABASE_MEMBER = "database-member"


@dataclass(frozen=True, slots=True)
class Change:
    """A row that is no longer what it was; readers look the row up."""

    kind: ChangeKind
    key: str
