"""What hosts report of their databases, and what no sequence of commands can do to the row."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import limits
from mesh.ids import PRIMARY
from mesh.state import Applied
from mesh.state.commands import (
    AdmitMember,
    AssignOwner,
    Command,
    RemoveMember,
    SetHostStatus,
    Unassign,
)
from mesh.state.database_commands import (
    AcceptDataLoss,
    DeclareDatabase,
    PublishSyncSet,
    RecordBootstrap,
    RecordPromotion,
    ReportDatabase,
)
from mesh.state.database_model import (
    DatabaseRole,
    DatabaseSpec,
    DatabaseStatus,
    Lag,
    lag_class,
)
from mesh.state.model import Change, ChangeKind, HostStatus
from tests.state.database_steps import IDENTIFIER, made, open_primary, record, term
from tests.state.model_state import A, B, C, Cluster, member

# ---- reports --------------------------------------------------------------------------


def test_a_host_says_how_its_database_is() -> None:
    """Goal: rows change only by news. Method: report, repeat, news without and with another role, gone."""
    cluster = Cluster()
    standby = DatabaseStatus(DatabaseRole.STANDBY, timeline=1, is_streaming=True, lag=Lag.CLOSE)
    first = cluster.apply(ReportDatabase(B, member(B).member, standby))
    assert Change(ChangeKind.DATABASE_MEMBER, B) in first.changed.changes
    assert cluster.do(ReportDatabase(B, member(B).member, standby)).unchanged
    since = cluster.state.database_members[B].since
    cluster.do(ReportDatabase(B, member(B).member, replace(standby, lag=Lag.FAR)))
    assert cluster.state.database_members[B].since == since == first.changed.index
    ill = DatabaseStatus(DatabaseRole.STOPPED, health="the disk is full")
    cluster.do(ReportDatabase(B, member(B).member, ill))
    assert cluster.state.database_members[B].since > since
    assert cluster.events("database-role") == [
        "the database of host2 is standby",
        "the database of host2 is stopped: the disk is full",
    ]
    cluster.do(ReportDatabase(B, member(B).member, None))
    assert B not in cluster.state.database_members
    assert cluster.do(ReportDatabase(B, member(B).member, None)).unchanged


def test_a_report_of_an_earlier_member_or_of_what_cannot_be_is_refused() -> None:
    """Goal: no row contradicts itself. Method: another incarnation; each impossible field."""
    cluster = Cluster()
    standby = DatabaseStatus(DatabaseRole.STANDBY)
    assert cluster.refuse(ReportDatabase(B, member(B, 2).member, standby)).reason == "STALE_TERM"
    for status, path in (
        (replace(standby, is_open=True), "status.is_open"),
        (replace(open_primary(), is_streaming=True), "status.is_streaming"),
        (replace(standby, timeline=-1), "status.timeline"),
        (replace(standby, system_identifier="x"), "status.system_identifier"),
        (replace(standby, address="x" * 300), "status"),
    ):
        assert cluster.refuse(ReportDatabase(B, member(B).member, status)).problems[0].path == path
    long = replace(standby, health="x" * 5_000)
    cluster.do(ReportDatabase(B, member(B).member, long))
    assert len(cluster.state.database_members[B].status.health) == limits.EVENT_CHARS_MAX


def test_what_a_lost_removed_or_new_host_said_no_longer_counts() -> None:
    """Goal: nobody is sent to a database that is gone. Method: lose, replace and remove a host."""
    cluster = made()
    cluster.do(ReportDatabase(A, member(A).member, open_primary()))
    effect = cluster.apply(SetHostStatus(A, member(A).member, HostStatus.LOST, "no beat"))
    assert Change(ChangeKind.DATABASE_MEMBER, A) in effect.changed.changes
    status = cluster.state.database_members[A].status
    assert (status.is_open, status.health, status.timeline) == (False, "host1 is lost", 1)
    for host in (B, C):
        cluster.do(ReportDatabase(host, member(host).member, DatabaseStatus(DatabaseRole.STANDBY)))
    cluster.do(AdmitMember(member(B, 2)))
    cluster.do(RemoveMember(member(C).member))
    assert list(cluster.state.database_members) == [A]
    cluster.do(SetHostStatus(B, member(B, 2).member, HostStatus.ALIVE))
    cluster.do(SetHostStatus(B, member(B, 2).member, HostStatus.LOST, "no beat"))
    assert B not in cluster.state.database_members


def test_a_class_of_lag_is_kept_until_it_is_missed_by_half() -> None:
    """Goal: a lag around a bound is not news each time. Method: over both bounds, from either side."""
    close, behind = limits.LAG_CLOSE_BYTES_MAX, limits.LAG_BEHIND_BYTES_MAX
    assert [lag_class(size) for size in (0, close, close + 1, behind, behind + 1)] == [
        Lag.CLOSE, Lag.CLOSE, Lag.BEHIND, Lag.BEHIND, Lag.FAR,
    ]  # fmt: skip
    assert lag_class(close + 1, Lag.CLOSE) is Lag.CLOSE
    assert lag_class(close * 2, Lag.CLOSE) is Lag.BEHIND
    assert lag_class(behind + 1, Lag.BEHIND) is Lag.BEHIND
    assert lag_class(behind * 2, Lag.BEHIND) is Lag.FAR


# ---- whatever happens -----------------------------------------------------------------

hosts = st.sampled_from([A, B, C])
terms = st.integers(0, 4).map(term)
groups = st.lists(hosts, max_size=3).map(tuple)
small = st.integers(0, 4)
steps = st.lists(
    st.one_of(
        st.builds(DeclareDatabase, st.builds(DatabaseSpec, data_hosts=groups, standbys_needed=small)),
        st.builds(AssignOwner, st.just(PRIMARY), hosts, terms, st.one_of(st.none(), small)),
        st.builds(Unassign, st.just(PRIMARY), terms),
        st.builds(RecordBootstrap, hosts, st.sampled_from(["7", "8"]), st.integers(1, 2), terms),
        st.builds(PublishSyncSet, hosts, groups, small, small, terms),
        st.builds(RecordPromotion, hosts, small, terms),
        st.builds(AcceptDataLoss, terms, st.just("ann"), st.just("because")),
        hosts.map(lambda host: RemoveMember(member(host).member)),
        hosts.map(lambda host: ReportDatabase(host, member(host).member, open_primary())),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_no_sequence_of_commands_turns_the_database_back(commands: list[Command]) -> None:
    """Goal: the invariants of the row, and who may have changed it. Method: random commands, each compared.

    What a primary may say changes the row only when host and number are those of the ownership, taken
    from the ownership before the command, by a naive reading.
    """
    cluster = made()
    for command in commands:
        before, held = record(cluster), cluster.state.owners.get(PRIMARY)
        outcome = cluster.apply(command).outcome
        after = record(cluster)
        if before.is_bootstrapped:
            assert (after.system_identifier, after.bootstrap_host) == (IDENTIFIER, A)
        assert after.timeline >= before.timeline
        assert after.primary_term >= before.primary_term
        assert after.published_term >= before.published_term
        published = after.published
        assert (
            1 <= published.quorum <= len(published.voters) or published.quorum == len(published.voters) == 0
        )
        assert list(published.voters) == sorted(set(published.voters))
        if isinstance(command, PublishSyncSet | RecordPromotion | RecordBootstrap):
            may_speak = held is not None and (held.holder, held.fencing_term) == (
                command.host, command.fencing_term,
            )  # fmt: skip
            assert after == before or may_speak
        else:
            assert (published, after.timeline) == (before.published, before.timeline)
        if isinstance(command, PublishSyncSet) and isinstance(outcome, Applied):
            assert published.version == before.published.version + 1 == command.expected_version + 1
        if after.accepted_loss != before.accepted_loss:
            assert after.accepted_loss is not None
            assert after.accepted_loss.fencing_term == cluster.state.fencing_term(PRIMARY)
