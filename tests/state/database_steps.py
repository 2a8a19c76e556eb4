"""A cluster whose database was made on host1, and shorthand for what its primary says."""

from mesh.ids import PRIMARY, FencingTerm, HostId
from mesh.state.commands import AssignOwner
from mesh.state.database_commands import DeclareDatabase, PublishSyncSet, RecordBootstrap
from mesh.state.database_model import DatabaseRecord, DatabaseRole, DatabaseSpec, DatabaseStatus
from tests.state.model_state import A, Cluster

IDENTIFIER = "7301234567890123456"


def term(number: int) -> FencingTerm:
    return FencingTerm(number)


def owned(spec: DatabaseSpec | None = None) -> Cluster:
    """Declared, and host1 owns the primaryship under fencing term 1."""
    cluster = Cluster()
    cluster.do(DeclareDatabase(spec or DatabaseSpec()))
    cluster.do(AssignOwner(PRIMARY, A, term(0)))
    return cluster


def made(spec: DatabaseSpec | None = None) -> Cluster:
    cluster = owned(spec)
    cluster.do(RecordBootstrap(A, IDENTIFIER, 1, term(1)))
    return cluster


def record(cluster: Cluster) -> DatabaseRecord:
    found = cluster.state.database
    assert found is not None
    return found


def publish(
    *voters: HostId, quorum: int, version: int, host: HostId = A, fencing_term: int = 1
) -> PublishSyncSet:
    return PublishSyncSet(host, voters, quorum, version, term(fencing_term))


def open_primary(fencing_term: int = 1) -> DatabaseStatus:
    return DatabaseStatus(
        DatabaseRole.PRIMARY, "", IDENTIFIER, 1, is_open=True, fencing_term=term(fencing_term)
    )
