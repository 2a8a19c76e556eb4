"""What is said about a demo's calls follows from their records alone."""

from sidecar.demo.calls import MS, Call, CallLedger


def ledger_of(*answered_ms: int) -> CallLedger:
    ledger = CallLedger(started_ns=0)
    for at_ms in answered_ms:
        ledger.add(Call((at_ms - 2) * MS, at_ms * MS, idempotent=True, code="OK", host="host1"))
    return ledger


def gap_ms(ledger: CallLedger, from_ms: int, to_ms: int) -> tuple[int, int]:
    begin, end = ledger.largest_gap(from_ms * MS, to_ms * MS)
    return begin // MS, end // MS


def test_failed_calls_are_counted_apart_when_they_were_safe_to_repeat() -> None:
    """Goal: the demo claims nothing about calls that may fail. Method: one failure of each kind."""
    ledger = ledger_of(10, 20)
    ledger.add(Call(0, 30 * MS, idempotent=False, code="UNAVAILABLE", host=""))
    ledger.add(Call(0, 40 * MS, idempotent=True, code="DEADLINE_EXCEEDED", host=""))
    assert (ledger.calls, ledger.failed, ledger.failed_idempotent) == (4, 2, 1)
    assert ledger.by_host == {"host1": 2}


def test_the_largest_gap_begins_with_the_last_answer_before_the_window() -> None:
    """Goal: an outage is not shortened by when we look. Method: a window inside the gap."""
    assert gap_ms(ledger_of(10, 20, 30, 250, 260), 35, 300) == (30, 250)


def test_a_gap_outside_the_window_does_not_count() -> None:
    """Goal: a slow start is not charged to the failover. Method: a larger gap before it."""
    assert gap_ms(ledger_of(10, 900, 910, 920, 940), 905, 930) == (920, 940)


def test_answers_that_arrive_out_of_order_do_not_hide_a_gap() -> None:
    """Goal: a late straggler fills no hole. Method: answers recorded in the wrong order."""
    assert gap_ms(ledger_of(10, 300, 20, 310), 15, 305) == (20, 300)


def test_a_service_that_never_answers_again_has_a_gap_up_to_the_end_of_the_window() -> None:
    """Goal: the worst outcome is not shown as the best. Method: no answer after the kill."""
    assert gap_ms(ledger_of(10, 20), 15, 5_000) == (20, 5_000)


def test_the_rate_counts_the_last_two_seconds() -> None:
    """Goal: the screen shows the present. Method: four seconds at a known rate."""
    ledger = ledger_of(*range(0, 4_000, 20))
    assert ledger.rate_per_s(4_000 * MS) == 50


def test_latency_is_that_of_answered_calls() -> None:
    """Goal: a timeout is counted as failed, not as slow. Method: two answers, one timeout."""
    ledger = ledger_of(10, 20)
    ledger.add(Call(0, 5_000 * MS, idempotent=True, code="DEADLINE_EXCEEDED", host=""))
    assert (ledger.percentile_ms(0.5), ledger.percentile_ms(0.99)) == (2.0, 2.0)
