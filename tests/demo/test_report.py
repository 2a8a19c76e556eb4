"""The object and the verdict at the end of a demo."""

import pytest
from rich.console import Console

from sidecar.demo.calls import Call, CallLedger
from sidecar.demo.phases import MS, STEPS, Failover
from sidecar.demo.report import Outcome, as_json, as_view


def outcome(*, lost: int = 0, took_over: bool = True, returned_ms: float | None = 900.0) -> Outcome:
    failover = Failover(0, "host1", 3, {}, new_leader="host3")
    for number, step in enumerate(STEPS, start=1):
        failover.note_step(step, number * 20 * MS)
    ledger = CallLedger(0)
    ledger.add(Call(0, 5 * MS, idempotent=True, code="OK", host="host2"))
    ledger.add(Call(0, 6 * MS, idempotent=False, code="UNAVAILABLE", host=""))
    return Outcome(failover, ledger, (2 * MS, 160 * MS), 50, lost, took_over, returned_ms)


def test_the_object_has_the_promised_fields() -> None:
    """Goal: scripts can judge a demo. Method: a made-up outcome against the object."""
    shape = as_json(outcome())
    assert {
        "leader_ms": 40.0,
        "outage_ms": 158.0,
        "calls": 2,
        "failed_calls": 1,
        "failed_idempotent_calls": 0,
        "acknowledged_lost": 0,
    }.items() <= shape.items()
    phases = shape["phases_ms"]
    assert isinstance(phases, dict)
    assert list(phases) == list(STEPS)


@pytest.mark.parametrize(
    "bad",
    [outcome(lost=1), outcome(took_over=False), outcome(returned_ms=None)],
    ids=["lost", "dead", "gone"],
)
def test_a_lost_write_or_a_cluster_that_did_not_recover_is_a_failure(bad: Outcome) -> None:
    """Goal: a bad demo does not end with 0. Method: one flaw at a time."""
    assert outcome().exit_code == 0
    assert bad.exit_code == 1


def test_people_read_who_leads_and_what_it_cost() -> None:
    """Goal: the last screen tells the story. Method: render it, look for each fact."""
    console = Console(width=120, no_color=True)
    with console.capture() as printed:
        console.print(as_view(outcome()))
    for text in ("Recovered", "new leader: host3", "40 ms", "1 failed", "50 acknowledged writes: 0 lost"):
        assert text in printed.get()
