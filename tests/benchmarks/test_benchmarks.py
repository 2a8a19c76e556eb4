"""The benchmarks answer as their users expect: help, one JSON object, nothing left behind.

What they measure is not judged here: figures of a busy test machine mean nothing.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import NAMES
from benchmarks.figures import Target, at_least, at_most, percentile, ratio, summary
from benchmarks.northbound_load import Window
from sidecar.demo.calls import Call
from tests.harness import namespaces, postgres

ROOT = Path(__file__).resolve().parents[2]
MS = 10**6


def run(*words: str, within_s: float = 30) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=within_s
    )


def test_a_summary_is_the_median_between_the_extremes() -> None:
    """Goal: no figure is nicer than its samples. Method: three samples and none."""
    assert summary([3.0, 1.0, 8.0]) == {"median": 3.0, "min": 1.0, "max": 8.0, "samples": 3}
    assert summary([]) is None


def test_a_percentile_is_one_of_the_samples() -> None:
    """Goal: p99 is a time somebody waited. Method: 1 to 100 backwards, and one sample."""
    samples = [float(number) for number in range(100, 0, -1)]
    assert percentile(samples, 0.5) == 51
    assert percentile(samples, 0.99) == 100
    assert percentile([7.0], 0.99) == 7


def test_a_ratio_needs_both_figures() -> None:
    """Goal: a missing part is not compared. Method: leave out either."""
    assert ratio(2, 4) == 0.5
    assert ratio(None, 4) is None
    assert ratio(2, None) is None


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (at_most("gap", 100, 100), True),
        (at_most("gap", 101, 100), False),
        (at_least("share", 0.8, 0.8), True),
        (at_least("share", 0.79, 0.8), False),
        (at_least("share", None, 0.8), None),
    ],
)
def test_a_target_that_was_not_measured_is_neither_reached_nor_missed(
    target: Target, reached: bool | None
) -> None:
    """Goal: a skipped part never passes. Method: on, past and without a figure."""
    assert target.as_json()["reached"] is reached


def call(started_ms: float, took_ms: float, *, code: str = "OK", idempotent: bool = True) -> Call:
    return Call(int(started_ms * MS), int((started_ms + took_ms) * MS), idempotent, code, "host1")


def test_an_outage_is_the_longest_time_without_an_answer_less_the_normal_one() -> None:
    """Method: 200 calls/s, answers at 0 (before), 5, 105 and 110 ms; the window ends at 112 ms."""
    calls = [call(1, 4), call(6, 99), call(106, 4)]
    window = Window(1 * MS, 112 * MS, calls, 0, 200.0)
    assert window.outage_ms == 95
    assert window.over_ms == 104


def test_an_outage_that_does_not_end_reaches_to_the_end_of_the_window() -> None:
    """Goal: the worst outcome is not shown as none. Method: only failures after the first answer."""
    calls = [call(1, 4), call(6, 50, code="UNAVAILABLE"), call(7, 50, code="UNAVAILABLE", idempotent=False)]
    window = Window(1 * MS, 1000 * MS, calls, 0, 200.0)
    assert window.outage_ms == 990
    assert (window.failed_idempotent, window.failed_other) == (1, 1)
    assert window.codes() == {"UNAVAILABLE": 2}


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_measures(name: str) -> None:
    """Goal: --help is enough to repeat a figure. Method: run each with it."""
    said = run(f"benchmarks.{name}", "--help")
    assert said.returncode == 0, said.stderr
    assert "--json" in said.stdout
    assert "Parts" in said.stdout


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    """Goal: a typing error does not run nothing and pass. Method: a name that is none."""
    said = run("benchmarks", "latency")
    assert said.returncode == 2
    assert "failover, northbound, consensus, idle, supervision, db_failover, db_overhead" in said.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("failover", "transfer"),
        ("failover", "etcd"),
        ("supervision", "ten"),
        ("db_failover", "switchover"),
        ("db_overhead", "commit"),
    ],
)
def test_one_part_ends_with_one_json_object_and_leaves_nothing_behind(name: str, part: str) -> None:
    """Method: run it for real; afterwards no process has the benchmark's directory in its command line."""
    if part == "etcd" and shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    if name == "db_failover" and (reason := namespaces.why_not()):
        pytest.skip(reason)
    if name.startswith("db_") and (reason := postgres.why_not()):
        pytest.skip(reason)
    said = run(f"benchmarks.{name}", "--runs", "1", "--only", part, "--json", within_s=180)
    assert said.returncode == 0, said.stderr
    (line,) = said.stdout.splitlines()
    answer = json.loads(line)
    assert answer["benchmark"] == name
    assert answer[part]
    assert {"what", "measured", "wanted", "reached"} == set(answer["targets"][0])
    left = [process.cmdline() for process in psutil.process_iter() if _is_ours(process)]
    assert not left


def _is_ours(process: psutil.Process) -> bool:
    try:
        return any(word.startswith("/tmp/tb-") for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
