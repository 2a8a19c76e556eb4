"""The reconciler's decisions, without a database or a mesh."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mesh.errors import InvalidRequest
from mesh.ids import ServiceName
from mesh.state.service import ServiceSpec
from services.lcm import decide as requests
from services.lcm.model import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Now,
    Operation,
    OperationKind,
    OperationState,
)
from services.reconciler import decide
from services.reconciler.model import MARK, Apply, Declared, Plan, Stop

START = datetime(2026, 1, 1, tzinfo=UTC)
OURS = "inst"


def workload(name: str, *depends_on: str) -> ServiceSpec:
    return ServiceSpec(
        ServiceName(name), ("/usr/bin/run",), depends_on=tuple(ServiceName(each) for each in depends_on)
    )


def now(revision: int = 10, after_s: float = 0) -> Now:
    return Now(START + timedelta(seconds=after_s), revision, "uid", f"op{revision}")


def requested(*workloads: ServiceSpec) -> tuple[Deployment, Operation]:
    change = requests.create(None, 0, DeploymentSpec("shop", workloads or (workload("api"),)), now(1))
    assert change.deployment is not None
    return change.deployment, change.operations[0]


def begun(*workloads: ServiceSpec) -> tuple[Deployment, Operation]:
    change = decide.begin(*requested(*workloads), now(2))
    assert change.deployment is not None
    return change.deployment, change.operations[0]


def declared(deployment: Deployment, ready: int = 1) -> dict[str, Declared]:
    return {spec.name: Declared(spec, 3, ready=ready) for spec in decide.wanted(deployment, OURS)}


def test_nothing_is_done_before_it_is_durable_that_it_has_begun() -> None:
    """Goal: what is cancelled before it has begun was never done. Method: a pending operation."""
    assert decide.plan(*requested(), {}, OURS, START) == Plan(begin=True)


def test_services_are_declared_after_those_they_depend_on() -> None:
    """Goal: the mesh accepts each declaration. Method: the dependent workload stands first."""
    planned = decide.plan(*begun(workload("web", "api"), workload("api")), {}, OURS, START)
    assert [
        (each.spec.name, each.expected_version) for each in planned.actions if isinstance(each, Apply)
    ] == [
        ("shop-api", 0),
        ("shop-web", 0),
    ]


def test_what_is_as_wanted_is_left_alone_and_what_differs_is_applied() -> None:
    """Goal: healing changes no more than it must. Method: same, stopped, changed by hand."""
    deployment, operation = begun()
    services = declared(deployment)
    assert decide.plan(deployment, operation, services, OURS, START) == Plan()
    (name, found), *_ = services.items()
    wanted = found.spec
    for other in (replace(found, stopped=True), replace(found, spec=replace(wanted, grace_ms=1))):
        assert decide.plan(deployment, None, {name: other}, OURS, START).actions == (Apply(wanted, 3),)


def test_a_service_without_the_mark_is_a_refusal() -> None:
    """Goal: nothing of others is overwritten. Method: the same name, unmarked and marked otherwise."""
    deployment, operation = begun()
    for environment in ((), ((MARK, "inst/shop-a"),), ((MARK, "other/shop"),)):
        theirs = Declared(replace(workload("shop-api"), environment=environment), 1)
        planned = decide.plan(deployment, operation, {"shop-api": theirs}, OURS, START)
        assert planned.actions == ()
        assert planned.refusal is not None


def test_left_out_workloads_are_stopped_after_the_others_are_applied() -> None:
    """Goal: an update leaves nothing behind. Method: a marked service that no workload names."""
    deployment, operation = begun()
    services = declared(deployment)
    extra = replace(services["shop-api"].spec, name=ServiceName("shop-old"))
    planned = decide.plan(deployment, operation, {**services, "shop-old": Declared(extra, 1)}, OURS, START)
    assert planned.actions == (Stop("shop-old", 1),)


def test_a_refused_deployment_rests_before_it_is_tried_again() -> None:
    """Goal: a refusal is no busy loop. Method: at once, and after the pause."""
    deployment, operation = begun()
    refusal = InvalidRequest("The program is not there.")
    change = decide.judge(deployment, operation, {}, OURS, refusal, now(3))
    assert change is not None
    assert change.deployment is not None
    assert (change.deployment.state, change.deployment.reason) == (
        DeploymentState.FAILED,
        "The program is not there.",
    )
    assert change.operations[0].state is OperationState.FAILED
    assert change.operations[0].reason == "INVALID_REQUEST"
    assert decide.plan(change.deployment, None, {}, OURS, START) == Plan(resting=True)
    later = START + decide.REFUSED_PAUSE
    assert decide.plan(change.deployment, None, {}, OURS, later).actions


def test_an_operation_that_takes_too_long_is_given_up_and_healed_further() -> None:
    """Goal: whoever waits gets an answer. Method: ten minutes and more without an instance."""
    deployment, operation = begun()
    services = declared(deployment, ready=0)
    late = now(3, after_s=decide.OPERATION_MAX.total_seconds() + 1)
    change = decide.judge(deployment, operation, services, OURS, None, late)
    assert change is not None
    assert (change.operations[0].state, change.operations[0].reason) == (OperationState.FAILED, "DEADLINE")
    assert change.deployment is not None
    assert change.deployment.state is DeploymentState.DEPLOYING


def test_the_time_of_an_operation_counts_from_when_it_has_begun() -> None:
    """Goal: what waited for a reconciler is not given up at the first look. Method: begun an hour after it
    was requested, by this version and by one that did not note when."""
    deployment, operation = requested()
    change = decide.begin(deployment, operation, now(2, after_s=3600))
    assert change.deployment is not None
    for begun_then, expected in (
        (change.operations[0], OperationState.RUNNING),
        (replace(change.operations[0], begun=None), OperationState.FAILED),
    ):
        judged = decide.judge(change.deployment, begun_then, {}, OURS, None, now(3, after_s=3601))
        assert judged is not None
        assert judged.operations[0].state is expected
    late = now(4, after_s=3600 + decide.OPERATION_MAX.total_seconds() + 1)
    judged = decide.judge(change.deployment, change.operations[0], {}, OURS, None, late)
    assert judged is not None
    assert judged.operations[0].state is OperationState.FAILED


def test_nothing_new_is_not_written() -> None:
    """Goal: an idle cluster writes nothing. Method: judge what was judged."""
    deployment, operation = begun()
    services = declared(deployment)
    change = decide.judge(deployment, operation, services, OURS, None, now(3))
    assert change is not None
    assert change.deployment is not None
    assert change.operations[0].state is OperationState.SUCCEEDED
    assert change.deployment.state is DeploymentState.RUNNING
    assert decide.judge(change.deployment, None, services, OURS, None, now(4)) is None


def test_a_deletion_stops_dependents_first_and_ends_when_nothing_is_left() -> None:
    """Goal: nothing outlives its deployment. Method: two services, then none."""
    deployment, _ = begun(workload("web", "api"), workload("api"))
    change = requests.delete(deployment, None, "shop", None, now(3))
    assert change.deployment is not None
    deleting, operation = change.deployment, replace(change.operations[0], state=OperationState.RUNNING)
    services = declared(deployment)
    planned = decide.plan(deleting, operation, services, OURS, START)
    assert planned.actions == (Stop("shop-web", 3), Stop("shop-api", 3))
    under_way = decide.judge(deleting, operation, services, OURS, None, now(4))
    assert under_way is not None
    assert under_way.operations[0].message == "Stopping shop-api, shop-web."
    done = decide.judge(deleting, operation, {}, OURS, None, now(5))
    assert done is not None
    assert (done.deployment, done.operations[0].state) == (None, OperationState.SUCCEEDED)
    assert done.operations[0].kind is OperationKind.DELETE


def test_orphans_are_ours_and_of_no_deployment() -> None:
    """Goal: only what this installation declared is ever stopped. Method: marks of all kinds."""
    marks = {"a": "inst/gone", "b": "inst/shop", "c": "other/gone", "d": ""}
    services = {
        name: Declared(replace(workload(name), environment=((MARK, mark),)), 1)
        for name, mark in marks.items()
    }
    assert decide.orphans(services, OURS, ["shop"]) == ("a",)
