"""Every change that can be made to what the cluster knows of its database, one dataclass each.

What a primary says counts only under the present fencing term of
`mesh.ids.PRIMARY` and from its holder; else it is refused as StaleTerm, and
that host must stop acting as primary. All but DeclareDatabase are refused as
NotFound while no database is declared.
"""

from dataclasses import dataclass
from typing import TypeAlias

from mesh.ids import FencingTerm, HostId, MemberId
from mesh.state.database_model import DatabaseSpec, DatabaseStatus


@dataclass(frozen=True, slots=True)
class DeclareDatabase:
    """Declares the database, or changes its declaration; unchanged when it is declared just so.

    Refused: VersionConflict when `expected_version` (0: none is declared) is not
    the present one; InvalidRequest with every problem at once; NotFound for a
    data host that is no host; Conflict when the owner of the primaryship would hold no data any more.
    """

    spec: DatabaseSpec
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class RecordBootstrap:
    """The database was made; no client is let in before this is applied.

    Refused: StaleTerm; Conflict when another one was made already, for good:
    the host then throws its own away and clones. Unchanged when it is the recorded one.
    """

    host: HostId
    system_identifier: str
    timeline: int
    fencing_term: FencingTerm
    #: Timelines that led to it with the LSN where each was left, oldest first; of a restored one.
    history: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PublishSyncSet:
    """Whom a promotion without the present primary asks, and how many must answer.

    Refused: StaleTerm; VersionConflict when `expected_version` is not the
    published one; Conflict before the bootstrap; InvalidRequest for a quorum
    that is not from 1 to the number of voters (0 without voters), and for a
    voter that could not answer. The version rises also when nothing else does: what
    was decided from an earlier one and is still under way is refused from then on.
    """

    host: HostId
    voters: tuple[HostId, ...]
    quorum: int
    expected_version: int
    fencing_term: FencingTerm


@dataclass(frozen=True, slots=True)
class RecordPromotion:
    """A host is primary, on this timeline, under this fencing term.

    The timeline is newer than every recorded one; it is the recorded one only when the
    host that wrote it goes on under a later fencing term.

    Refused: StaleTerm; Conflict before the bootstrap and for any other timeline; InvalidRequest for a
    history that is out of order or too long. Unchanged when repeated.
    """

    host: HostId
    timeline: int
    fencing_term: FencingTerm
    #: Timelines that led to it with the LSN where each was left, oldest first.
    history: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ReportDatabase:
    """What a host says of its database; None: it has none.

    Refused: StaleTerm when `member` is no longer the host's member; InvalidRequest for what cannot be.
    Taken also while no database is declared, so that leftovers are seen.
    """

    host: HostId
    member: MemberId
    status: DatabaseStatus | None


@dataclass(frozen=True, slots=True)
class AcceptDataLoss:
    """One primaryship may be succeeded although acknowledged commits may be missing.

    It binds no later one: as soon as the primaryship has another number, it means nothing.

    Refused: StaleTerm when that primaryship is not the latest; Conflict before
    the bootstrap, and while its holder is alive, primary and open, since nothing is
    lost then; InvalidRequest without a name and a reason.
    """

    fencing_term: FencingTerm
    by: str
    why: str


DatabaseCommand: TypeAlias = (
    DeclareDatabase | RecordBootstrap | PublishSyncSet | RecordPromotion | ReportDatabase | AcceptDataLoss
)
