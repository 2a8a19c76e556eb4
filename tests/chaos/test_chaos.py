"""A short run of each kind of fault, one after the other, on one cluster under load."""

from collections.abc import Iterator

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.fault import Fault
from tests.chaos.kinds import KINDS
from tests.chaos.main import staged
from tests.chaos.record import Records
from tests.chaos.verdict import violations_of
from tests.harness.namespaces import why_not
from tests.harness.waiting import wait_for
from tests.sim.history import Kind, Operation, Outcome

pytestmark = pytest.mark.integration

SEED = 20


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    """One that goes on until the last test of this module."""
    if reason := why_not():
        pytest.skip(reason)
    print(f"seed {SEED}")
    with staged() as stage:
        made = Campaign(stage, SEED, is_short=True)
        with made:
            yield made
        assert not made.report.violations, made.report.violations


@pytest.mark.parametrize(
    "kind", [each for each in KINDS.values() if not each.needs_database], ids=lambda each: each.kind
)
def test_a_cluster_keeps_its_promises_through(campaign: Campaign, kind: type[Fault]) -> None:
    """Goal: no fault costs an acknowledged write, a stale read or a second owner, and the cluster is whole
    after it. Method: inject, let it last, heal; what clients were told is judged slot by slot, and the
    rest, with the equality of states, when the module ends."""
    if reason := kind.why_not():
        pytest.skip(f"{kind.kind} {reason}")
    assert not campaign.one_round(kind)


def test_a_lost_write_in_a_real_history_is_reported(campaign: Campaign) -> None:
    """Goal: the judge can fail on what these clients record. Method: the record as it stands is fine; one
    read more, which misses an acknowledged write, is not."""
    directory = campaign.stage.cluster.directory

    def slot_with_writes() -> list[Operation] | None:
        records = Records([directory / "s.jsonl", directory / "t.jsonl"])
        records.follow()
        first = min(records.operations.values(), key=lambda each: each.invoked)
        found = records.take_away(first.name[: first.name.rindex("/") + 1])
        return found if sum(is_acknowledged(each) for each in found) > 20 else None

    operations = wait_for(slot_with_writes, "clients have written", 30.0)
    assert not violations_of(operations)
    newest = max((each for each in operations if is_acknowledged(each)), key=lambda each: each.version)
    end = max(each.returned for each in operations if each.outcome is not Outcome.UNKNOWN)
    lost = Operation("late", Kind.GET, newest.name, end + 1, end + 2, Outcome.OK)
    (told,) = violations_of([*operations, lost])
    assert "not linearizable" in told
    assert "late: get" in told


def is_acknowledged(operation: Operation) -> bool:
    return operation.kind is Kind.PUT and operation.outcome is Outcome.OK
