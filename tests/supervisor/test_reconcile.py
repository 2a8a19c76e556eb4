"""What an assignment changes, and in which order."""

from dataclasses import replace

from mesh.ids import InstanceId, ServiceName
from mesh.state.service import InstanceState
from sidecar.supervisor.model import Assignment
from sidecar.supervisor.reconcile import Present, Step, compare, may_stop, waits_for
from tests.supervisor.conftest import assigned

RUNNING = InstanceState.RUNNING


def on(name: str, *services: str) -> Assignment:
    """A service that depends on others."""
    return assigned(name, depends_on=tuple(ServiceName(s) for s in services))


def present(*entries: Present) -> dict[InstanceId, Present]:
    return {entry.assignment.instance: entry for entry in entries}


def test_each_difference_has_its_step() -> None:
    """Goal: nothing is restarted that need not be, and a new term is never a soft restart.

    Method: one of each, all steps.
    """
    keep, gone, new = assigned("keep"), assigned("gone"), assigned("new")
    again, nonce, term = assigned("again"), assigned("nonce"), assigned("term", fencing_term=3)
    was = {a.instance: a for a in (keep, gone, again, nonce, term)}
    wanted = [
        new,
        keep,
        replace(again, spec_version=2),
        replace(nonce, restart_nonce=1),
        replace(term, fencing_term=4, spec_version=2),
    ]
    steps = {name.partition("@")[0]: step for name, step in compare(was, wanted)}
    assert steps == {
        "keep": Step.KEEP,
        "gone": Step.REMOVE,
        "again": Step.RESTART,
        "nonce": Step.RESTART,
        "term": Step.REPLACE,
        "new": Step.ADD,
    }


def test_a_dependency_elsewhere_is_not_waited_for() -> None:
    """Goal: no deadlock between hosts. Method: a dependency that does not run here."""
    assert waits_for(on("web", "db"), {}) == ()


def test_a_dependency_here_is_waited_for_until_one_instance_is_ready() -> None:
    """Goal: order at the start, without waiting for all. Method: two instances, none ready, then one."""
    first, second = assigned("db"), assigned("db", ordinal=1)
    unready = present(Present(first, RUNNING, False, True), Present(second, RUNNING, False, True))
    assert waits_for(on("web", "db"), unready) == ("db",)
    ready = present(Present(first, RUNNING, True, True), Present(second, RUNNING, False, True))
    assert waits_for(on("web", "db"), ready) == ()


def test_a_dependency_on_its_way_out_is_not_waited_for() -> None:
    """Goal: a leaving service holds nobody up. Method: present, not wanted, not ready."""
    leaving = present(Present(assigned("db"), RUNNING, False, False))
    assert waits_for(on("web", "db"), leaving) == ()


def test_a_dependency_stops_after_what_depends_on_it() -> None:
    """Goal: nobody loses its database before its own end. Method: both leaving, then the dependent gone."""
    database, web = assigned("db"), on("web", "db")
    both = present(Present(database, RUNNING, True, False), Present(web, RUNNING, True, False))
    assert not may_stop(database, both)
    assert may_stop(web, both)
    gone = present(Present(database, RUNNING, True, False), Present(web, InstanceState.STOPPED, False, False))
    assert may_stop(database, gone)


def test_a_dependency_alone_on_its_way_out_does_not_wait_for_those_who_stay() -> None:
    """Goal: a move of the database does not hang. Method: the dependent stays wanted."""
    database, web = assigned("db"), on("web", "db")
    staying = present(Present(database, RUNNING, True, False), Present(web, RUNNING, True, True))
    assert may_stop(database, staying)
