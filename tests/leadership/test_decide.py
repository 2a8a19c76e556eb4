"""What a leader proposes from the applied state and what hosts reported."""

from dataclasses import replace

from mesh.ids import VIP, FencingTerm, HostId, ServiceName, Term, instance_id, owned_service
from mesh.lease.model import Assign, ElectedBy, Election, HostStanding, Verdict, VerdictChange, WaitUntil
from mesh.lease.model import RequestRelease as ReleaseDecision
from mesh.lease.model import Unassign as UnassignDecision
from mesh.state.commands import (
    ApplyService,
    AssignOwner,
    DrainHost,
    ReportInstances,
    RequestRelease,
    SetHostStatus,
    SetMemberRole,
    StopService,
    Unassign,
)
from mesh.state.model import HostStatus, MemberRole
from mesh.state.service import InstanceState, ServiceMode
from sidecar.leadership import decide
from sidecar.leadership.reports import Reports
from tests.state.model_state import ECHO, A, B, C, Cluster, member, spec, status

REPORTER = owned_service(ServiceName("reporter"))


def with_reporter() -> Cluster:
    cluster = Cluster()
    standby = replace(spec("reporter"), mode=ServiceMode.ACTIVE_STANDBY, instances_min=1, instances_max=1)
    cluster.do(ApplyService(standby))
    return cluster


def test_the_virtual_ip_and_every_running_active_standby_service_want_an_owner() -> None:
    """Goal: nothing exclusive is left ownerless, nothing else gets an owner.

    Method: one service of each mode, then stopped.
    """
    cluster = with_reporter()
    cluster.do(ApplyService(spec()))
    assert decide.wanted_names(cluster.state) == (VIP, REPORTER)
    cluster.do(StopService(ServiceName("reporter"), keep=True))
    assert decide.wanted_names(cluster.state) == (VIP,)
    assert decide.wanted_names(Cluster(empty=True).state) == ()


def test_a_witness_is_no_host_to_choose_from() -> None:
    """Goal: nothing is placed where nothing can run. Method: turn one of three into a witness."""
    cluster = with_reporter()
    cluster.do(SetMemberRole(member(C).member, MemberRole.WITNESS))
    seen = decide.situation(cluster.state, A, {})
    assert [host.host for host in seen.hosts] == [A, B]


def test_a_situation_counts_the_leader_as_alive_and_others_by_their_standing() -> None:
    """Goal: a decision rests on the leader's own account of hosts.

    Method: one suspect, one lost, then no account at all.
    """
    cluster = with_reporter()
    cluster.do(ReportInstances(B, member(B).member, (status(B),)))
    cluster.do(DrainHost(C, draining=True))
    cluster.do(AssignOwner(REPORTER, B, FencingTerm(0)))
    standings = {B: HostStanding(B, Verdict.SUSPECT, 0, 0), C: HostStanding(C, Verdict.LOST, 0, 0)}
    seen = decide.situation(cluster.state, A, standings)
    assert [(host.host, host.alive, host.draining, host.load) for host in seen.hosts] == [
        (A, True, False, 0),
        (B, True, False, 1),
        (C, False, True, 0),
    ]
    assert [(view.name, view.holder, view.fencing_term) for view in seen.ownerships] == [(REPORTER, B, 1)]
    unknown = decide.situation(cluster.state, A, {})
    assert [host.alive for host in unknown.hosts] == [True, False, False]


def test_a_host_whose_sidecar_is_about_to_end_counts_as_draining() -> None:
    """Goal: no new work for a host that is leaving. Method: name one as leaving."""
    cluster = with_reporter()
    seen = decide.situation(cluster.state, A, {}, leaving={B})
    assert {host.host: host.draining for host in seen.hosts} == {A: False, B: True, C: False}


def test_an_ownership_that_nobody_holds_is_no_ownership_to_decide_about() -> None:
    """Goal: the leader asks no release of nobody. Method: assign, release, look."""
    cluster = with_reporter()
    cluster.do(AssignOwner(REPORTER, B, FencingTerm(0)))
    cluster.do(Unassign(REPORTER, FencingTerm(1)))
    assert decide.ownership_views(cluster.state.owners.values()) == ()


def test_only_verdicts_that_differ_from_the_replicated_ones_are_proposed() -> None:
    """Goal: the log is not filled with what it says already.

    Method: a change, a known verdict, a stranger.
    """
    cluster = Cluster()
    stranger = HostId("host9")
    commands = decide.verdict_commands(
        cluster.state,
        [
            VerdictChange(B, Verdict.ALIVE, Verdict.LOST, "no beat for 2 s"),
            VerdictChange(C, Verdict.SUSPECT, Verdict.ALIVE, "it beats"),
            VerdictChange(stranger, Verdict.ALIVE, Verdict.LOST, ""),
        ],
    )
    assert commands == (SetHostStatus(B, member(B).member, HostStatus.LOST, "no beat for 2 s"),)


def test_decisions_become_commands_with_the_latest_fencing_term() -> None:
    """Goal: a decision from no holder still continues the terms. Method: all four kinds after a release."""
    cluster = with_reporter()
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    cluster.do(Unassign(VIP, FencingTerm(1)))
    commands = decide.ownership_commands(
        cluster.state,
        [
            Assign(VIP, B, FencingTerm(0)),
            UnassignDecision(REPORTER, FencingTerm(7)),
            ReleaseDecision(REPORTER, C, FencingTerm(7)),
            WaitUntil(VIP, 5),
        ],
    )
    assert commands == (
        AssignOwner(VIP, B, FencingTerm(1)),  # the term goes on although nobody held it
        Unassign(REPORTER, FencingTerm(7)),
        RequestRelease(REPORTER, C, FencingTerm(7)),
    )


def test_a_report_is_proposed_once_and_only_for_what_is_news() -> None:
    """Goal: hosts may repeat themselves at no cost. Method: the same report twice, then one changed field."""
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    reported = {status(B).instance: status(B)}
    command = decide.report_command(cluster.state, B, member(B).member, reported, complete=True)
    assert command == ReportInstances(B, member(B).member, (status(B),))
    cluster.do(command)
    assert decide.report_command(cluster.state, B, member(B).member, reported, complete=True) is None
    later = replace(status(B), ready=False)
    changed = decide.report_command(
        cluster.state, B, member(B).member, {later.instance: later}, complete=False
    )
    assert changed == ReportInstances(B, member(B).member, (later,))


def test_a_complete_report_makes_what_it_leaves_out_forgotten() -> None:
    """Goal: leftovers vanish only when the host has told everything.

    Method: an empty report, complete and not.
    """
    cluster = Cluster()
    cluster.do(ReportInstances(B, member(B).member, (status(B),)))
    gone = decide.report_command(cluster.state, B, member(B).member, {}, complete=True)
    assert gone == ReportInstances(B, member(B).member, (), complete=True)
    assert decide.report_command(cluster.state, B, member(B).member, {}, complete=False) is None


def test_a_stopped_instance_that_nobody_knew_is_no_news() -> None:
    """Goal: an end without a beginning costs no entry. Method: report it to an empty state."""
    cluster = Cluster()
    stopped = status(B, InstanceState.STOPPED, ready=False)
    assert (
        decide.report_command(cluster.state, B, member(B).member, {stopped.instance: stopped}, complete=False)
        is None
    )


def test_a_lost_host_and_an_earlier_incarnation_report_nothing() -> None:
    """Goal: closing a lost host's instances is not undone by its last words."""
    cluster = Cluster()
    reported = {status(B).instance: status(B)}
    cluster.do(ReportInstances(B, member(B).member, (status(B),)))
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.LOST))
    assert not cluster.state.instances[status(B).instance].ready
    assert decide.report_command(cluster.state, B, member(B).member, reported, complete=True) is None
    assert decide.report_command(cluster.state, B, member(B, 2).member, reported, complete=True) is None
    assert (
        decide.report_command(cluster.state, HostId("host9"), member(B).member, reported, complete=True)
        is None
    )
    cluster.do(SetHostStatus(B, member(B).member, HostStatus.ALIVE))
    assert decide.report_command(cluster.state, B, member(B).member, reported, complete=True) is not None


def test_reports_follow_deltas_and_begin_anew_with_a_new_stream_or_member() -> None:
    """Goal: the leader's picture is the host's. Method: full report, deltas, another incarnation, forget."""
    reports = Reports()
    first = member(B).member
    assert reports.take(B, first, (status(B),), complete=True)
    assert not reports.take(B, first, (status(B),), complete=True)
    assert not reports.take(B, first, (), complete=False)
    stopped = status(B, InstanceState.STOPPED, ready=False)
    assert reports.take(B, first, (stopped,), complete=False)
    assert dict(reports.items())[B].instances == {}
    other = replace(status(B), instance=instance_id(ECHO, B, 1))
    assert reports.take(B, first, (other,), complete=False)
    assert list(dict(reports.items())[B].instances) == [other.instance]
    second = member(B, 2).member
    assert reports.take(B, second, (), complete=False)
    assert dict(reports.items())[B].instances == {}
    reports.forget(B)
    assert reports.items() == ()


def test_the_journal_says_why_a_leadership_began() -> None:
    """Goal: an operator can tell a crash from a plan. Method: each way of being elected."""
    for by, words in (
        (ElectedBy.TIMEOUT, "no leader was heard"),
        (ElectedBy.CRASH_PROOF, "proven dead"),
        (ElectedBy.TRANSFER, "handed over"),
    ):
        event = decide.election_event(B, Term(4), Election(0, by, A, 0))
        assert (event.kind, event.subject) == ("leader-elected", B)
        assert words in event.message
        assert "term 4" in event.message
        assert dict(event.attributes) == {"by": by.value, "predecessor": A, "term": "4"}


def test_a_leader_that_fell_silent_is_judged_from_when_it_was_heard_last() -> None:
    """Goal: failover does not wait twice. Method: its standing after a timeout, against after a transfer."""
    silent = Election(at=9_000, by=ElectedBy.TIMEOUT, predecessor=A, predecessor_heard_at=5_000)
    assert decide.first_standing(A, 9_500, Verdict.ALIVE, silent).last_beat == 5_000
    assert decide.first_standing(C, 9_500, Verdict.ALIVE, silent).last_beat == 9_500
    for election in (replace(silent, by=ElectedBy.TRANSFER), replace(silent, predecessor_heard_at=0)):
        assert decide.first_standing(A, 9_500, Verdict.ALIVE, election).last_beat == 9_500
