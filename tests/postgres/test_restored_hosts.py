"""With which data a declared database begins: those that were restored, never those that were left."""

from mesh.ids import PRIMARY, FencingTerm, HostId
from mesh.lease.model import Target
from mesh.lease.plan import NamePlan
from mesh.state.commands import AssignOwner
from mesh.state.database_commands import DeclareDatabase, RecordBootstrap, RecordPromotion
from mesh.state.database_model import DatabaseRole, DatabaseSpec, DatabaseStatus
from mesh.wire.database import decode_database_row, encode_database_row
from sidecar.postgres.history import timeline_above
from tests.postgres.test_leading import NOW, leading, planned, report
from tests.state.database_steps import IDENTIFIER, made, owned, record, term
from tests.state.model_state import A, B, C, Cluster

NOTHING = DatabaseStatus(DatabaseRole.NONE)
RESTORED = DatabaseStatus(DatabaseRole.STOPPED, system_identifier=IDENTIFIER, timeline=3)
LEFT = DatabaseStatus(DatabaseRole.STOPPED, system_identifier=IDENTIFIER, timeline=2, is_leftover=True)


def declared(**statuses: DatabaseStatus) -> Cluster:
    cluster = Cluster()
    cluster.do(DeclareDatabase(DatabaseSpec()))
    for host, status in statuses.items():
        report(cluster, HostId(host), status)
    return cluster


def test_restored_data_are_taken_and_not_what_another_cluster_left() -> None:
    """Goal: the moment that was asked for. Method: the leader has data of the same database from before."""
    cluster = declared(**{A: NOTHING, B: LEFT, C: RESTORED})
    leader = leading(B)
    assert planned(leader, cluster).target == Target(C)
    assert leader.problem == ""


def test_nobody_is_chosen_while_only_left_data_are_there() -> None:
    """Goal: neither begin with them nor clone over them. Method: one host has some, also of timeline 1, and
    one that was to make the database dies; then the host comes back without.
    """
    for left in (LEFT, DatabaseStatus(DatabaseRole.STOPPED, timeline=1, is_leftover=True)):
        cluster, leader = declared(**{A: NOTHING, B: NOTHING, C: left}), leading(B)
        assert planned(leader, cluster) == NamePlan(PRIMARY, Target(None))
        assert leader.problem.startswith("host3 has data from before it joined this cluster: move them away")
        cluster.do(AssignOwner(PRIMARY, A, FencingTerm(0)))
        assert planned(leader, cluster, NOW, A).target == Target(None)
        report(cluster, C, NOTHING)
        assert planned(leader, cluster, NOW, A).target == Target(B)
        assert leader.problem == ""


def test_nobody_is_chosen_while_data_were_restored_on_two_hosts() -> None:
    """Goal: no guess which of two moments is meant. Method: both report restored data."""
    cluster, leader = declared(**{A: RESTORED, B: NOTHING, C: RESTORED}), leading(B)
    assert planned(leader, cluster).target == Target(None)
    assert leader.problem.startswith("data were restored on host1, host3: move them away on all but one")


def test_restored_data_give_the_numbers_of_timelines_a_base() -> None:
    """Goal: no primaryship takes a number that the data knew. Method: made anew; restored with timeline 9 in
    the first primaryship, then the next one's promotion; what a snapshot keeps of it.
    """
    assert record(made()).timeline_base == 0
    cluster = owned()
    cluster.do(RecordBootstrap(A, IDENTIFIER, 9, term(1), ((1, 50),)))
    assert record(cluster).timeline_base == 8
    cluster.do(AssignOwner(PRIMARY, B, term(1)))
    above = timeline_above(term(2), record(cluster).timeline_base)
    assert above == 9
    cluster.do(RecordPromotion(B, above + 1, term(2), ((1, 50), (9, 70))))
    assert record(cluster).timeline_base == 8
    assert decode_database_row(encode_database_row(record(cluster))) == record(cluster)
