"""Services: declarations, placements, and what hosts report of instances."""

from dataclasses import replace

import pytest

from mesh.ids import HostId, ServiceName
from mesh.state import applying, services
from mesh.state.commands import (
    ApplyService,
    ReportInstances,
    RestartService,
    SetPlacement,
    StopService,
)
from mesh.state.model import Change, ChangeKind, Slot
from mesh.state.service import InstanceState, ServiceMode, ServiceSpec
from tests.state.model_state import ECHO, A, B, Cluster, member, spec, status

M = member(A).member


def test_a_declaration_applied_twice_changes_nothing_the_second_time() -> None:
    """Goal: `apply` can be repeated without a restart.

    Method: the same, a changed and a reordered declaration.
    """
    cluster = Cluster()
    assert cluster.do(ApplyService(spec(), expected_version=0)).version == 1
    again = cluster.do(ApplyService(spec()))
    assert (again.version, again.unchanged) == (1, True)
    changed = replace(spec(), environment=(("B", "2"), ("A", "1")))
    assert cluster.do(ApplyService(changed, expected_version=1)).version == 2
    reordered = replace(spec(), environment=(("A", "1"), ("B", "2")))
    assert cluster.do(ApplyService(reordered)).unchanged
    assert cluster.refuse(ApplyService(spec(), expected_version=1)).reason == "VERSION_CONFLICT"


def test_versions_of_a_declaration_go_on_after_it_was_forgotten() -> None:
    """Goal: an instance of the old service is not taken for the new one's.

    Method: forget and declare again.
    """
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    cluster.do(StopService(ECHO))
    assert ECHO not in cluster.state.services
    assert cluster.do(ApplyService(spec(), expected_version=0)).version == 2


def test_a_stopped_service_is_revived_by_apply_and_by_restart() -> None:
    """Goal: `stop --keep` can be undone either way. Method: stop, apply, stop, restart."""
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    cluster.do(StopService(ECHO, keep=True))
    assert cluster.do(StopService(ECHO, keep=True)).unchanged
    assert cluster.state.services[ECHO].stopped
    assert cluster.do(ApplyService(spec())).version == 1
    assert not cluster.state.services[ECHO].stopped
    cluster.do(StopService(ECHO, keep=True))
    cluster.do(RestartService(ECHO))
    declared = cluster.state.services[ECHO]
    assert (declared.stopped, declared.restart_nonce, declared.version) == (False, 1, 1)


def test_what_is_not_declared_is_neither_stopped_restarted_nor_placed() -> None:
    """Goal: a typing error is told. Method: each command on an empty state."""
    cluster = Cluster()
    for command in (StopService(ECHO), RestartService(ECHO), SetPlacement(ECHO, (Slot(A, 0),))):
        assert cluster.refuse(command).reason == "NOT_FOUND"


def test_a_service_that_others_depend_on_is_not_forgotten() -> None:
    """Goal: no dependency points nowhere. Method: forget one that is needed; stopping it is allowed."""
    cluster = Cluster()
    cluster.do(ApplyService(spec("store")))
    cluster.do(ApplyService(spec("echo", "store")))
    refusal = cluster.refuse(StopService(ServiceName("store")))
    assert dict(refusal.metadata) == {"dependents": "echo"}
    cluster.do(StopService(ServiceName("store"), keep=True))


def test_a_cycle_of_dependencies_is_refused_with_its_path() -> None:
    """Goal: no services that wait for each other for ever.

    Method: a long circle beside a dead end, and a self loop.
    """
    cluster = Cluster()
    cluster.do(ApplyService(spec("c", "b", "b2")))
    cluster.do(ApplyService(spec("b", "a")))
    refusal = cluster.refuse(ApplyService(spec("a", "c", "b")))
    assert refusal.problems[0].path == "depends_on"
    assert "a → b → a" in refusal.message
    assert cluster.refuse(ApplyService(spec("a", "a"))).problems[0].problem == "has a cycle: a → a"


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (replace(spec(), name=ServiceName("Echo")), "name"),
        (replace(spec(), command=()), "command"),
        (replace(spec(), instances_min=0), "instances_min"),
        (replace(spec(), instances_max=2), "instances_min"),
        (replace(spec(), instances_max=33), "instances_min"),
        (replace(spec(), mode=ServiceMode.ACTIVE_STANDBY), "instances_max"),
        (replace(spec(), environment=(("A", "x" * 40_000),)), "environment"),
        (replace(spec(), command=("x" * 140_000,)), "spec"),
    ],
)
def test_what_the_state_relies_on_is_checked_again(wrong: ServiceSpec, path: str) -> None:
    """Goal: a host with lax checks cannot poison the log.

    Method: table of declarations the service check refuses.
    """
    refusal = Cluster().refuse(ApplyService(wrong))
    assert refusal.problems[0].path == path


def test_services_and_names_ever_used_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: neither many services nor endless renaming grows the state.

    Method: each bound at one, known names still pass.
    """
    monkeypatch.setattr(services, "SERVICES_MAX", 1)
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    assert cluster.refuse(ApplyService(spec("two"))).reason == "QUEUE_FULL"
    cluster.do(StopService(ECHO))
    monkeypatch.setattr(applying, "COUNTERS_MAX", len(cluster.state.counters))
    assert cluster.refuse(ApplyService(spec("two"))).reason == "QUEUE_FULL"
    cluster.do(ApplyService(spec()))


# ---- placement ----------------------------------------------------------------------


def test_a_placement_is_set_only_from_the_present_one() -> None:
    """Goal: two leaders' plans are never mixed.

    Method: set from the present version, from an old one, and the same again.
    """
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    slots = (Slot(B, 0), Slot(A, 0), Slot(A, 0))
    version = cluster.do(SetPlacement(ECHO, slots, expected_version=0)).version
    assert cluster.state.placements[ECHO].slots == (Slot(A, 0), Slot(B, 0))
    assert cluster.refuse(SetPlacement(ECHO, (), expected_version=0)).reason == "VERSION_CONFLICT"
    assert cluster.do(SetPlacement(ECHO, slots, expected_version=version)).unchanged
    later = cluster.do(SetPlacement(ECHO, (), expected_version=version)).version
    assert later > version
    assert cluster.events("placement-changed") == [
        "echo is placed on host1, host2",
        "echo is placed on no host",
    ]


def test_a_placement_on_an_unknown_host_or_of_too_many_instances_is_refused() -> None:
    """Goal: no instance that nobody can run. Method: a stranger and one slot too many."""
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    assert cluster.refuse(SetPlacement(ECHO, (Slot(HostId("host9"), 0),))).reason == "NOT_FOUND"
    many = tuple(Slot(A, ordinal) for ordinal in range(33))
    assert cluster.refuse(SetPlacement(ECHO, many)).reason == "INVALID_REQUEST"
    assert cluster.do(SetPlacement(ServiceName("gone"), ())).unchanged


def test_forgetting_a_service_forgets_its_placement() -> None:
    """Goal: no host starts what is no longer declared. Method: place, forget, look at the changes."""
    cluster = Cluster()
    cluster.do(ApplyService(spec()))
    cluster.do(SetPlacement(ECHO, (Slot(A, 0),)))
    changes = cluster.apply(StopService(ECHO)).changed.changes
    assert Change(ChangeKind.PLACEMENT, ECHO) in changes
    assert not cluster.state.placements


# ---- instances ----------------------------------------------------------------------


def test_reports_change_only_what_is_news() -> None:
    """Goal: repeated reports cost no watch. Method: the same report twice."""
    cluster = Cluster()
    report = ReportInstances(A, M, (status(A),))
    assert cluster.apply(report).changed.changes[0] == Change(ChangeKind.INSTANCE, "echo@host1#0")
    assert cluster.do(report).unchanged
    assert cluster.state.instances_of(ECHO) == (status(A),)


def test_a_complete_report_forgets_what_it_does_not_name_on_that_host_only() -> None:
    """Goal: leftovers vanish, other hosts' instances stay. Method: an empty complete report."""
    cluster = Cluster()
    cluster.do(ReportInstances(A, M, (status(A),)))
    cluster.do(ReportInstances(B, member(B).member, (status(B),)))
    cluster.do(ReportInstances(A, M, (), complete=True))
    assert cluster.state.instances_of(ECHO) == (status(B),)


def test_a_stopped_instance_is_forgotten() -> None:
    """Goal: the state does not pile up the dead. Method: stopped before and after it was known."""
    cluster = Cluster()
    stopped = status(A, InstanceState.STOPPED, ready=False)
    assert cluster.do(ReportInstances(A, M, (stopped,))).unchanged
    cluster.do(ReportInstances(A, M, (status(A),)))
    assert not cluster.do(ReportInstances(A, M, (stopped,))).unchanged
    assert not cluster.state.instances


def test_the_journal_tells_failures_and_readiness_once_each() -> None:
    """Goal: a crash loop does not flood the journal.

    Method: nine reports of one life, then count the events.
    """
    cluster = Cluster()
    failed = replace(status(A, InstanceState.BACKOFF, ready=False), reason="exited with code 1")
    for each in (
        status(A, InstanceState.STARTING, ready=False),
        status(A),
        replace(status(A), restarts=1),
        failed,
        failed,
        replace(failed, restarts=2),
        replace(failed, generation=2),
        status(A, generation=3),
        status(A, ready=False, generation=3),
    ):
        cluster.do(ReportInstances(A, M, (each,)))
    assert cluster.events("instance-ready") == ["echo@host1#0 takes traffic"] * 2
    assert cluster.events("instance-failed") == ["echo@host1#0 is backoff: exited with code 1"] * 2
    assert cluster.events("instance-unready") == ["echo@host1#0 takes no traffic"]


def test_a_report_about_another_host_or_of_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a host speaks for itself only, and not without end.

    Method: a foreign instance; a bound of none.
    """
    cluster = Cluster()
    assert cluster.refuse(ReportInstances(A, M, (status(B),))).reason == "INVALID_REQUEST"
    monkeypatch.setattr(services, "INSTANCES_PER_HOST_MAX", 0)
    assert cluster.refuse(ReportInstances(A, M, (status(A),))).reason == "QUEUE_FULL"


def test_what_a_host_reports_is_cut_or_refused_beyond_any_sense() -> None:
    """Goal: a host's text cannot fill the state. Method: a long reason is cut, a long address refused."""
    cluster = Cluster()
    cluster.do(ReportInstances(A, M, (replace(status(A), reason="x" * 5_000),)))
    assert len(cluster.state.instances_of(ECHO)[0].reason) == 1_000
    assert cluster.refuse(ReportInstances(A, M, (replace(status(A), address="x" * 256),))).problems
