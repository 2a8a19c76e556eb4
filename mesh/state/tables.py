"""All tables of the replicated state, and what is derived from them.

Invariant: the tables are a function of the applied entries alone. What is
derived (byte counts, order of tombstones, sequences) is a function of the
tables, and is made anew by `rebuild` after a snapshot was put in. The kept
changes are this host's own: they begin again after a snapshot.
"""

from bisect import insort
from typing import Any, Final

from mesh.ids import (
    DocumentName,
    FencingTerm,
    HostId,
    Index,
    InstanceId,
    MemberId,
    OwnedName,
    ServiceName,
    SessionId,
)
from mesh.state.commands import Outcome
from mesh.state.database_model import MAIN, DatabaseMember, DatabaseRecord
from mesh.state.model import (
    ClusterInfo,
    DeclaredService,
    Document,
    Event,
    HostRecord,
    JoinToken,
    Member,
    Ownership,
    Placement,
    RevokedCertificate,
    Session,
)
from mesh.state.service import InstanceStatus
from mesh.state.table import Ledger, Table
from mesh.state.watch import KeptChanges

#: Key of the only row of the cluster and trust tables.
ONLY: Final = ""


class ClusterState:
    """The replicated state of one host; changed by `mesh.state.apply` and nothing else.

    Owned by one driver, in one thread. Everybody else reads it between two
    applies, in the same thread; rows are frozen and may be kept.
    """

    def __init__(self) -> None:
        ledger = Ledger()
        self.ledger: Final = ledger
        #: Index of the last command applied; entries that are no commands do not count.
        self.applied = Index(0)
        self.cluster: Final = Table[str, ClusterInfo]("cluster", ledger)
        self.members: Final = Table[MemberId, Member]("member", ledger)
        self.hosts: Final = Table[HostId, HostRecord]("host", ledger)
        #: Every kept version of every document, tombstones included.
        self.versions: Final = Table[tuple[DocumentName, int], Document]("version", ledger)
        self.services: Final = Table[ServiceName, DeclaredService]("service", ledger)
        self.placements: Final = Table[ServiceName, Placement]("placement", ledger)
        self.owners: Final = Table[OwnedName, Ownership]("owner", ledger)
        self.instances: Final = Table[InstanceId, InstanceStatus]("instance", ledger)
        self.events: Final = Table[tuple[int, int], Event]("event", ledger)
        self.tokens: Final = Table[str, JoinToken]("token", ledger)
        self.revoked: Final = Table[str, RevokedCertificate]("revoked", ledger)
        #: PEM bundle of CA certificates under the key ONLY.
        self.trust: Final = Table[str, bytes]("trust", ledger)
        self.secrets: Final = Table[str, bytes]("secret", ledger)
        #: Numbers that only rise and outlive what they count: see mesh.state.counters.
        self.counters: Final = Table[str, int]("counter", ledger)
        self.sessions: Final = Table[SessionId, Session]("session", ledger)
        self.outcomes: Final = Table[tuple[SessionId, int], Outcome]("outcome", ledger)
        #: What is decided about the database, under the key `database_model.MAIN`.
        self.databases: Final = Table[str, DatabaseRecord]("database", ledger)
        self.database_members: Final = Table[HostId, DatabaseMember]("database-member", ledger)
        self.tables: Final[tuple[Table[Any, Any], ...]] = (
            self.cluster,
            self.members,
            self.hosts,
            self.versions,
            self.services,
            self.placements,
            self.owners,
            self.instances,
            self.events,
            self.tokens,
            self.revoked,
            self.trust,
            self.secrets,
            self.counters,
            self.sessions,
            self.outcomes,
            self.databases,
            self.database_members,
        )
        #: Sum of the row hashes, without the rows marked dirty.
        self.row_sum = 0
        # ---- derived -----------------------------------------------------------
        #: Newest version of each document, tombstones included.
        self.documents: Final = Table[DocumentName, Document]("document", ledger, hashed=False)
        #: Bytes of the values of present documents, and of their kept history.
        self.document_bytes = 0
        self.history_bytes = 0
        #: Kept earlier versions of each document, oldest first.
        self.history: Final[dict[DocumentName, tuple[int, ...]]] = {}
        #: Deleted documents, the one deleted longest ago first.
        self.tombstones: Final[dict[DocumentName, None]] = {}
        #: Sequences of each session whose outcome is kept, ascending.
        self.sequences: Final[dict[SessionId, list[int]]] = {}
        self.kept: Final = KeptChanges()

    @property
    def info(self) -> ClusterInfo | None:
        """None before InitCluster was applied."""
        return self.cluster.get(ONLY)

    @property
    def database(self) -> DatabaseRecord | None:
        """None while no database is declared."""
        return self.databases.get(MAIN)

    @property
    def ca_pem(self) -> bytes:
        return self.trust.get(ONLY, b"")

    def member_of(self, host: HostId) -> Member | None:
        """The present member of a host."""
        record = self.hosts.get(host)
        return None if record is None else self.members.get(record.member)

    def fencing_term(self, name: OwnedName) -> FencingTerm:
        """The latest fencing term of a name, whoever held it; 0 when never assigned."""
        return FencingTerm(self.counters.get(f"fencing/{name}", 0))

    def document_version(self, name: DocumentName, version: int) -> Document | None:
        """One version of a document, as far as it is kept."""
        return self.versions.get((name, version))

    def document_history(self, name: DocumentName) -> tuple[Document, ...]:
        """Kept versions, newest first."""
        present = self.documents.get(name)
        if present is None:
            return ()
        earlier = (self.versions[name, version] for version in reversed(self.history.get(name, ())))
        return (present, *earlier)

    def instances_of(self, service: ServiceName) -> tuple[InstanceStatus, ...]:
        """What is known of the instances of one service, on all hosts, sorted."""
        return tuple(status for status in self.instances.values() if status.service == service)

    def copy(self) -> "ClusterState":
        """The state as it is now, for encoding a snapshot while this one goes on.

        Rows are shared, so it costs as much as copying the dicts. The copy knows
        no earlier changes for watchers.
        """
        twin = ClusterState()
        for mine, its in zip(self.tables, twin.tables, strict=True):
            its.rows.update(mine.rows)
            its.dirty.update(mine.dirty)
            its.counted.update(mine.counted)
        twin.ledger.dirty_count = self.ledger.dirty_count
        twin.row_sum = self.row_sum
        twin.rebuild(self.applied)
        return twin

    def rebuild(self, applied: Index) -> None:
        """Derives everything from tables that were just filled, as of `applied`.

        Order: sessions and events are put back in the order they were in, which
        is that of their indexes.
        """
        self.applied = applied
        self.ledger.undo.clear()
        for table in (*self.tables, self.documents):
            table.forget_order()
        self._rebuild_documents()
        _reorder(self.sessions.rows, lambda session: session.last_index)
        _reorder(self.events.rows, lambda event: (event.index, event.position))
        self.sequences.clear()
        for session, sequence in self.outcomes.rows:
            insort(self.sequences.setdefault(session, []), sequence)
        self.kept.restart(applied)

    def _rebuild_documents(self) -> None:
        documents, kept = self.documents.rows, self.history
        documents.clear()
        kept.clear()
        for name, version in sorted(self.versions.rows):
            if name in documents:
                kept[name] = (*kept.get(name, ()), documents[name].version)
            documents[name] = self.versions.rows[name, version]
        self.document_bytes = sum(len(document.value) for document in documents.values())
        every = sum(len(document.value) for document in self.versions.rows.values())
        self.history_bytes = every - self.document_bytes
        self.tombstones.clear()
        deleted = [each for each in documents.values() if each.deleted]
        for document in sorted(deleted, key=lambda each: each.revision):
            self.tombstones[document.name] = None


def _reorder(rows: dict[Any, Any], key: Any) -> None:
    """Puts rows into the order of a number in their values."""
    ordered = sorted(rows.items(), key=lambda item: key(item[1]))
    rows.clear()
    rows.update(ordered)
