"""Long runs can be ended and gone on with, and many seeds are clean."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.campaign import Kept, Progress, run_campaign
from tests.sim.running import Job
from tests.sim.summary import CLEAN, Summary

ROOT = Path(__file__).parents[2]
JOBS = [Job(seed, 0.002, True) for seed in (1, 2, 3)]
HOURS_MIN, SEEDS = 20, 500
FIRST = 1000


def nothing(_: Summary) -> None:
    """Nobody is told."""


def test_results_that_are_kept_are_not_run_again(tmp_path: Path) -> None:
    """Goal: a long run may be ended at any time. Method: two seeds, whose file then claims what no run gives,
    and a torn line; the sum of three seeds has the claim. A third time, nothing is torn any more."""
    path = tmp_path / "kept.jsonl"
    first, _ = run_campaign(JOBS[:2], 1, Kept(path), nothing)
    events = [json.loads(line)["outcome"]["events"] for line in path.read_text().splitlines()[1:]]
    text = path.read_text().replace(f'"events": {events[0]},', '"events": 1000000000,', 1)
    path.write_text(text + '{"job": "torn')
    total, _ = run_campaign(JOBS, 1, Kept(path), nothing)
    assert total.seeds == 3
    assert total.line(0)["events"] > 1_000_000_000 + events[1]
    again, _ = run_campaign(JOBS, 1, Kept(path), nothing)
    assert again.line(0) == total.line(0)
    assert first.seeds == 2


def test_keeping_results_changes_none(tmp_path: Path) -> None:
    """Goal: the sum is the one of a run in one go. Method: both ways."""
    kept, _ = run_campaign(JOBS[:2], 1, Kept(tmp_path / "kept.jsonl"), nothing)
    loaded, _ = run_campaign(JOBS[:2], 1, Kept(tmp_path / "kept.jsonl"), nothing)
    plain, _ = run_campaign(JOBS[:2], 1, None, nothing)
    assert kept.line(0) == plain.line(0) == loaded.line(0)


def test_results_of_other_code_do_not_count(tmp_path: Path) -> None:
    """Goal: no claim about code that has changed. Method: a file whose first line names other code."""
    path = tmp_path / "kept.jsonl"
    run_campaign(JOBS[:1], 1, Kept(path), nothing)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({"code": "another"}), *lines[1:]]) + "\n")
    assert Kept(path).results == {}
    assert len(path.read_text().splitlines()) == 1


def test_progress_says_how_fast_and_how_long() -> None:
    """Goal: one knows whether to wait. Method: half of the seeds done in ten seconds."""
    said: list[str] = []
    total = Summary()
    progress = Progress(100, said.append)
    progress.tell(total)
    total.seeds, total.simulated_s = 50, 7_200.0
    began = progress._first[0] if progress._first else 0.0
    assert progress.line(total, began + 10) == (
        "50 of 100 seeds, 2.0 cluster-hours, 720 simulated s/s, 0 violations, 0:00:10 left"
    )


@pytest.mark.integration
def test_cluster_hours_over_many_seeds_are_clean() -> None:
    """Goal: every change is judged by many lives of clusters. Method: the command, on two processors; what it
    finds comes with the command that repeats it."""
    done = subprocess.run(
        f"{sys.executable} -m tests.sim --seed {FIRST} --seeds {SEEDS} --hours 0.04 --jobs 2".split(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    line = json.loads(done.stdout.splitlines()[-1])
    again = [each["again"] for each in line["violations"]]
    print(f"{line['simulated_seconds'] / 3_600:.1f} cluster-hours in {line['wall_seconds']:.0f} s")
    assert (done.returncode, again) == (CLEAN, [])
    assert line["seeds"] == SEEDS
    assert line["simulated_seconds"] >= HOURS_MIN * 3_600
    assert line["elections"] > SEEDS
    assert sum(line["faults"].values()) > 100 * SEEDS
