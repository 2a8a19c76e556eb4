"""A primary's account of its own primaryship, and what its host tells the cluster and the leader."""

from dataclasses import replace

from mesh.ids import FencingTerm, HostId
from mesh.state.database_model import (
    AcceptedLoss,
    DatabaseRecord,
    DatabaseRole,
    DatabaseSpec,
    Lag,
    SyncSet,
)
from sidecar.postgres.model import (
    DataKind,
    LocalData,
    LocalProcess,
    LocalState,
    Lsn,
    ProcessKind,
    SyncNames,
    Timeline,
    TimelineHistory,
)
from sidecar.postgres.port import ReceiverSight, Sight
from sidecar.postgres.primaryship import Primaryship
from sidecar.postgres.sync_set import Nothing, Publish, SetSyncNames
from sidecar.postgres.telling import is_final, report_of, status_of

A, B, C = HostId("a"), HostId("b"), HostId("c")
TERM = FencingTerm(3)
BOTH = SyncNames(1, (B, C))
DATA = LocalData(
    DataKind.PRESENT, system_identifier="7000", history=TimelineHistory(Timeline(2)), primary_term=TERM
)
RECORD = DatabaseRecord(
    DatabaseSpec(), 1, system_identifier="7000", timeline=2, primary=A, primary_term=TERM,
    published=SyncSet(5, (B, C), 2),
)  # fmt: skip


def primary(flushed: int, *receivers: tuple[HostId, int]) -> Sight:
    """A primary at *flushed*, and what its standbys have flushed."""
    process = LocalProcess(ProcessKind.PRIMARY, flushed=Lsn(flushed))
    local = LocalState(replace(DATA, was_primary=True), process)
    seen = tuple(ReceiverSight(host, "streaming", Lsn(at), is_standby=True) for host, at in receivers)
    return Sight(local, seen, started="now")


def ship(begun_at: int | None = 100, *, is_new: bool = True) -> Primaryship:
    return Primaryship(A, TERM, BOTH, begun_at=None if begun_at is None else Lsn(begun_at), is_new=is_new)


# ---- when clients are let in ----------------------------------------------------


def test_clients_wait_for_the_record_and_for_a_standby_that_has_everything() -> None:
    """Goal: nothing visible is taken back. Method: each reason in turn, and none."""
    found = ship()
    earlier = replace(RECORD, primary_term=FencingTerm(2))
    assert found.why_closed(earlier, primary(150)) == "its promotion is not recorded yet"
    assert "must have its WAL up to" in found.why_closed(RECORD, primary(150, (B, 99)))
    assert found.why_closed(RECORD, primary(150, (B, 100))) == ""


def test_what_a_recovery_ended_with_is_taken_from_the_first_look_at_it() -> None:
    """Goal: a crash restart shows commits that no standby has, so it waits for them. Method: two looks."""
    found = ship(None)
    assert found.why_closed(RECORD, primary(120, (B, 120))) == "the end of its recovery is not known yet"
    found.seen(primary(120))
    found.seen(primary(500))
    assert found.begun_at == 120
    assert found.why_closed(RECORD, primary(500, (B, 119))) != ""
    assert found.why_closed(RECORD, primary(500, (C, 120))) == ""


def test_an_accepted_loss_lets_clients_in_without_a_standby() -> None:
    """Goal: who accepted a loss can work. Method: accepted for the number before, and for another."""
    accepted = replace(RECORD, accepted_loss=AcceptedLoss(FencingTerm(2), "olga", "fire"))
    assert ship().why_closed(accepted, primary(150)) == ""
    other = replace(RECORD, accepted_loss=AcceptedLoss(FencingTerm(1), "olga", "fire"))
    assert ship().why_closed(other, primary(150)) != ""


# ---- the synchronous set --------------------------------------------------------


def test_names_are_uncertain_from_before_a_change_until_it_is_seen_in_force() -> None:
    """Goal: never believed to be more than it is. Method: a change that is begun, and its end."""
    found = ship()
    alone = SyncNames(1, (B,))
    found.setting(alone)
    step = found.next_step(RECORD, (A, B, C), primary(150, (B, 150), (C, 150)))
    assert isinstance(step, SetSyncNames)
    assert step.names == alone
    assert found.why_closed(RECORD, primary(150, (B, 150))) == "its synchronous standbys are being set"
    found.set(Lsn(160))
    assert found.in_force.barrier == 160
    assert found.why_closed(RECORD, primary(150, (B, 150))) == ""


def test_a_publication_of_unknown_fate_holds_back_other_names() -> None:
    """Goal: what is under way is dead before anything else is in force. Method: a new process."""
    later = ship(is_new=False)
    step = later.next_step(RECORD, (A, B, C), primary(150, (B, 150)))
    assert isinstance(step, Publish)
    assert (step.voters, step.expected_version) == ((B, C), 5)
    later.publishing()
    later.published()
    raised = replace(RECORD, published=SyncSet(6, (B, C), 2))
    assert isinstance(later.next_step(raised, (A, B, C), primary(150, (B, 150))), SetSyncNames)


def test_a_restart_in_place_lets_nobody_in_before_earlier_publications_are_dead() -> None:
    """Goal: a late publication must not drop a standby that acknowledges by the names of the start.

    Method: the same number goes on with other names; closed until the version has risen.
    """
    later = ship(is_new=False)
    seen = primary(150, (B, 150), (C, 150))
    assert "under way" in later.why_closed(RECORD, seen)
    step = later.next_step(RECORD, (A, B, C), seen)
    assert isinstance(step, Publish)
    assert (step.voters, step.quorum, step.expected_version) == ((B, C), 2, 5)
    later.publishing()
    later.published()
    assert later.why_closed(replace(RECORD, published=SyncSet(6, (B, C), 2)), seen) == ""


def test_a_new_number_settles_whatever_was_under_way_under_the_last() -> None:
    """Goal: the fencing term bars earlier publications. Method: one under way, then a new number."""
    found = ship()
    found.publishing()
    found.renewed(FencingTerm(4))
    assert found.is_settled
    assert found.why_closed(RECORD, primary(150, (B, 150))) == "its promotion is not recorded yet"


def test_with_all_standbys_streaming_there_is_nothing_to_do() -> None:
    """Goal: a quiet primary proposes nothing. Method: both stream; what is published rests on both."""
    found = ship()
    assert isinstance(found.next_step(RECORD, (A, B, C), primary(150, (B, 150), (C, 150))), Nothing)


# ---- telling --------------------------------------------------------------------


def test_a_standby_that_streams_is_final_and_one_that_reads_its_own_wal_is_not() -> None:
    """Goal: the leader compares ends, not positions on the way. Method: both, and one that is stopped."""
    process = LocalProcess(ProcessKind.STANDBY, as_standby=True, flushed=Lsn(700))
    sight = Sight(LocalState(DATA, process, sealed_under=TERM))
    report = report_of(B, sight)
    assert (report.flushed, report.fencing_term, report.primary_term) == (700, TERM, 0)
    assert is_final(report)
    assert not is_final(report_of(B, replace(sight, is_catching_up=True)))
    assert not is_final(report_of(B, Sight(LocalState(DATA, sealed_under=TERM))))


def test_a_former_primary_says_how_it_ended() -> None:
    """Goal: only a clean end speaks for its WAL. Method: stopped cleanly, and killed."""
    ended = LocalState(replace(DATA, was_primary=True, is_clean=True, end=Lsn(900)), sealed_under=TERM)
    report = report_of(A, Sight(ended))
    assert (report.ended_cleanly, report.flushed, report.primary_term) == (True, 900, TERM)
    killed = replace(ended, data=replace(ended.data, is_clean=False, end=Lsn(0)))
    assert not report_of(A, Sight(killed)).ended_cleanly
    assert is_final(report_of(A, Sight(killed)))


def test_a_host_without_whole_data_says_so() -> None:
    """Goal: it is never counted. Method: none, a copy that was interrupted, damage."""
    for data in (LocalData(), LocalData(DataKind.PARTIAL), replace(DATA, damaged="torn")):
        report = report_of(B, Sight(LocalState(data, sealed_under=TERM)))
        assert report.damaged
        assert is_final(report)


def test_the_status_keeps_its_class_of_lag_while_it_moves_around_a_bound() -> None:
    """Goal: a lag is not news every second. Method: a standby, behind by a little more than close."""
    process = LocalProcess(ProcessKind.STANDBY, as_standby=True, receives_from=A, flushed=Lsn(700))
    sight = Sight(LocalState(DATA, process))
    told = status_of(sight, is_preparing=False, fencing_term=TERM, address="b:5432", health="", before=None)
    assert (told.role, told.is_streaming, told.lag) == (DatabaseRole.STANDBY, True, Lag.CLOSE)
    little_more = replace(sight, behind=1_200_000)
    again = status_of(
        little_more, is_preparing=False, fencing_term=TERM, address="b:5432", health="", before=told
    )
    assert again == told
    copying = status_of(Sight(), is_preparing=True, fencing_term=TERM, address="", health="", before=told)
    assert (copying.role, copying.is_streaming) == (DatabaseRole.PREPARING, False)


def test_other_names_wait_until_clients_are_in_where_they_would_not_let_them_in_sooner() -> None:
    """Goal: an outage is not longer than it must be. Method: what may keep clients out, one by one."""
    assert ship().waits_for_wal_only(RECORD)
    assert not ship(is_new=False).waits_for_wal_only(RECORD)
    more = Primaryship(A, TERM, SyncNames(2, (B, C)), begun_at=Lsn(100), is_new=True)
    assert not more.waits_for_wal_only(RECORD), "it may wait for one that never comes"
    uncovered = replace(RECORD, published=SyncSet(5, (B,), 1))
    assert not ship().waits_for_wal_only(uncovered)
