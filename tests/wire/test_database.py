"""The database as operators and beats carry it."""

import pytest
from hypothesis import given
from trellis.database.v1 import database_pb2 as pb

from mesh.errors import InvalidRequest
from mesh.ids import PRIMARY
from mesh.state.commands import RequestRelease, SetHostStatus
from mesh.state.database_commands import AcceptDataLoss, ReportDatabase
from mesh.state.database_model import DatabaseSpec, DatabaseStatus, SyncSet
from mesh.state.model import HostStatus
from mesh.wire.database import (
    database_to_wire,
    decode_database_spec,
    decode_database_status,
    decode_sync_set,
    encode_database_spec,
    encode_database_status,
    encode_sync_set,
)
from tests.state.database_steps import IDENTIFIER, made, open_primary, publish, term
from tests.state.model_state import A, B, C, Cluster, member
from tests.wire import database_commands


@given(database_commands.statuses)
def test_every_status_comes_back_as_it_was(status: DatabaseStatus) -> None:
    """Goal: the leader compares what the host said. Method: random statuses, through bytes."""
    data = encode_database_status(status).SerializeToString()
    assert decode_database_status(pb.DatabaseStatus.FromString(data)) == status


@given(database_commands.specs)
def test_every_declaration_comes_back_as_it_was(spec: DatabaseSpec) -> None:
    """Goal: nothing of a declaration gets lost. Method: random declarations, through bytes."""
    data = encode_database_spec(spec).SerializeToString()
    assert decode_database_spec(pb.DatabaseSpec.FromString(data)) == spec


def test_a_sync_set_comes_back_as_it_was() -> None:
    """Goal: whom a promotion asks is the same everywhere. Method: an empty one and a full one."""
    for sync_set in (SyncSet(), SyncSet(7, (B, C), 2)):
        assert decode_sync_set(encode_sync_set(sync_set)) == sync_set


def test_an_unset_or_unknown_enum_is_refused() -> None:
    """Goal: no role is guessed. Method: each enum unset, and of a later version."""
    whole = encode_database_status(open_primary())
    for field in ("role", "lag"):
        for number in (0, 99):
            message = pb.DatabaseStatus()
            message.CopyFrom(whole)
            setattr(message, field, number)
            with pytest.raises(InvalidRequest, match=field):
                decode_database_status(message)


def test_operators_are_shown_all_that_is_decided_and_reported() -> None:
    """Goal: nobody searches the journal for the present state. Method: a state with everything set."""
    cluster = made(DatabaseSpec(port=5433, parameters=(("work_mem", "4MB"),)))
    cluster.do(publish(B, C, quorum=2, version=0))
    cluster.do(ReportDatabase(A, member(A).member, open_primary()))
    cluster.do(RequestRelease(PRIMARY, B, term(1)))
    cluster.do(SetHostStatus(A, member(A).member, HostStatus.LOST, "no beat"))
    cluster.do(AcceptDataLoss(term(1), "ann", "host1 burnt down"), at_ns=3_000_000_007)
    shown = database_to_wire(cluster.state, ["host2 has not answered"])
    assert (shown.version, shown.spec.port, shown.spec.parameters[0].value) == (1, 5433, "4MB")
    assert (shown.system_identifier, shown.timeline, shown.bootstrap_host) == (IDENTIFIER, 1, A)
    assert (list(shown.published.voters), shown.published.quorum, shown.published_term) == ([B, C], 2, 1)
    assert (shown.primary, shown.fencing_term, shown.successor) == (A, 1, B)
    assert (shown.accepted_loss.by, shown.accepted_loss.at.ToNanoseconds()) == ("ann", 3_000_000_007)
    assert [(each.host, each.status.health) for each in shown.members] == [(A, "host1 is lost")]
    assert list(shown.problems) == ["host2 has not answered"]


def test_a_cluster_without_a_database_shows_none() -> None:
    """Goal: an operator sees that nothing is declared. Method: a fresh cluster."""
    assert database_to_wire(Cluster().state) == pb.GetStatusResponse()
