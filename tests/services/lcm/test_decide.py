"""What requests make of deployments, without a database; and that what is stored is what was meant."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Conflict, NotFound, VersionConflict
from mesh.ids import ServiceName
from mesh.state.service import Probe, ProbeKind, Probes, ServiceMode, ServiceSpec
from services.lcm import codec, decide
from services.lcm.model import (
    DEPLOYMENTS_MAX,
    Change,
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Now,
    OperationState,
    is_selected,
)

SPEC = DeploymentSpec("shop", (ServiceSpec(ServiceName("api"), ("/usr/bin/run",)),))


def now(revision: int) -> Now:
    return Now(datetime(2026, 1, 1, tzinfo=UTC), revision, f"uid{revision}", f"op{revision}")


def created() -> tuple[Deployment, Change]:
    change = decide.create(None, 0, SPEC, now(1))
    assert change.deployment is not None
    return change.deployment, change


def test_there_is_a_bound_on_deployments() -> None:
    """Goal: the database does not grow without end. Method: the last place, and one more."""
    decide.create(None, DEPLOYMENTS_MAX - 1, SPEC, now(1))
    with pytest.raises(Conflict):
        decide.create(None, DEPLOYMENTS_MAX, SPEC, now(1))


def test_what_is_being_deleted_is_neither_updated_nor_created() -> None:
    """Goal: a deletion is not undone in passing. Method: update and create meanwhile."""
    deployment, _ = created()
    deleting = decide.delete(deployment, None, "shop", None, now(2)).deployment
    with pytest.raises(Conflict, match="being deleted"):
        decide.update(deleting, None, SPEC, None, now(3))
    with pytest.raises(Conflict, match="being deleted"):
        decide.create(deleting, 1, SPEC, now(3))


@pytest.mark.parametrize("expected", [0, 2])
def test_another_version_than_expected_is_refused_for_update_and_delete(expected: int) -> None:
    """Goal: nobody changes what they have not seen. Method: an older and a later version."""
    deployment, _ = created()
    with pytest.raises(VersionConflict):
        decide.update(deployment, None, SPEC, expected, now(2))
    with pytest.raises(VersionConflict):
        decide.delete(deployment, None, "shop", expected, now(2))


def test_what_is_not_there_cannot_be_changed() -> None:
    """Goal: a wrong name is told. Method: update, delete, cancel of nothing."""
    with pytest.raises(NotFound):
        decide.update(None, None, SPEC, None, now(1))
    with pytest.raises(NotFound):
        decide.delete(None, None, "shop", None, now(1))
    with pytest.raises(NotFound):
        decide.cancel(None, None, "op9", now(1))


def test_an_update_is_not_cancelled_and_neither_is_what_has_begun() -> None:
    """Goal: no cancelling that would not undo. Method: a pending update, a running creation."""
    deployment, change = created()
    update = decide.update(deployment, change.operations[0], SPEC, 1, now(2))
    assert [each.state for each in update.operations] == [OperationState.PENDING, OperationState.CANCELLED]
    with pytest.raises(Conflict, match="not kept"):
        decide.cancel(update.deployment, update.operations[0], "op2", now(3))
    running = replace(change.operations[0], state=OperationState.RUNNING)
    with pytest.raises(Conflict, match="has begun"):
        decide.cancel(deployment, running, "op1", now(3))


def test_cancelling_an_operation_that_is_not_the_newest_changes_no_deployment() -> None:
    """Goal: an old operation touches nothing new. Method: the deployment names a later one."""
    deployment, change = created()
    later = replace(deployment, operation_id="op7", revision=7)
    cancelled = decide.cancel(later, change.operations[0], "op1", now(8))
    assert cancelled.deployment == later
    assert cancelled.operations[0].state is OperationState.CANCELLED


def test_labels_select() -> None:
    """Goal: a selection asks for each label. Method: more, fewer, another value."""
    assert is_selected({"a": "1", "b": "2"}, {"a": "1"})
    assert not is_selected({"a": "1"}, {"a": "1", "b": "2"})
    assert not is_selected({"a": "2"}, {"a": "1"})


words = st.text(st.characters(codec="utf-8", min_codepoint=1), max_size=8)
probes = st.none() | st.builds(
    Probe,
    kind=st.sampled_from(ProbeKind),
    interval_ms=st.integers(0, 10_000),
    timeout_ms=st.integers(0, 10_000),
    rise=st.integers(1, 9),
    fall=st.integers(1, 9),
    target=words,
    command=st.lists(words, max_size=2).map(tuple),
)
workloads = st.builds(
    ServiceSpec,
    name=words.map(ServiceName),
    command=st.lists(words, max_size=3).map(tuple),
    mode=st.sampled_from(ServiceMode),
    instances_min=st.integers(1, 40),
    instances_max=st.integers(1, 40),
    directory=words,
    environment=st.dictionaries(words, words, max_size=3).map(lambda each: tuple(sorted(each.items()))),
    probes=st.builds(
        Probes, startup=probes, readiness=probes, liveness=probes, startup_deadline_ms=st.integers(0, 99_999)
    ),
    grace_ms=st.integers(0, 99_999),
    memory_bytes_max=st.integers(0, 1 << 40),
    depends_on=st.lists(words.map(ServiceName), max_size=2).map(tuple),
    routed=st.booleans(),
    grpc_services=st.lists(words, max_size=2).map(tuple),
)


@given(st.lists(workloads, max_size=2), st.sampled_from(DeploymentState), words)
def test_a_deployment_is_read_as_it_was_written(
    found: list[ServiceSpec], state: DeploymentState, reason: str
) -> None:
    """Goal: nothing of a request is lost in the database. Method: any workloads, to JSON and back."""
    spec = DeploymentSpec("shop", tuple(found), (("tier", reason),))
    deployment, change = created()
    written = replace(deployment, spec=spec, state=state, reason=reason)
    assert codec.deployment_of(codec.deployment_json(written)) == written
    operation = change.operations[0]
    assert codec.operation_of(codec.operation_json(operation)) == operation
