"""The simulator itself: it repeats exactly, says what it found, and a handful of seeds is clean."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sim.clock import Clock
from tests.sim.loop import Scheduler, SimLoop
from tests.sim.main import BUG, CLEAN, LIVENESS, SAFETY, Job, Quiet, exit_code, main, simulate

ROOT = Path(__file__).parents[2]
#: A run with restarts, cuts and operators, in a second or two.
SHORT = 0.008
KEYS = {"violations", "events", "simulated_seconds", "wall_seconds", "trace_hash", "faults"}


def one_line(output: str) -> dict[str, Any]:
    """The JSON line that a run ends with."""
    line: dict[str, Any] = json.loads(output.splitlines()[-1])
    return line


def test_the_same_seed_gives_the_same_trace() -> None:
    """Goal: a finding can be repeated. Method: one seed twice, another once; hashes and counts compared."""
    with Quiet():
        first, again, other = (simulate(Job(seed, SHORT, True))[0] for seed in (11, 11, 12))
    assert first == again
    assert first.trace_hash != other.trace_hash


def test_the_trace_does_not_depend_on_the_hash_seed() -> None:
    """Goal: no set of text is ever iterated. Method: the same seed in two processes with other hash seeds."""
    hashes = []
    for hash_seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "3", "--hours", f"{SHORT}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.append(one_line(done.stdout)["trace_hash"])
    assert hashes[0] == hashes[1]


def test_a_few_seeds_are_clean_and_end_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the promises hold, and the line can be read by a program. Method: some seeds, with everything
    that they draw; the line has every key, work was done and faults took effect."""
    assert main(["--seed", "100", "--seeds", "8", "--hours", f"{SHORT}"]) == CLEAN
    line = one_line(capsys.readouterr().out)
    assert set(line) >= KEYS
    assert line["violations"] == []
    assert line["requests_done"] > 50
    assert sum(line["faults"].values()) > 20


def test_a_wait_shorter_than_a_nanosecond_takes_time() -> None:
    """Goal: who waits out the rest of a deadline does not do so for ever. Method: the smallest wait that the
    clock's reading can tell, on a slow clock; a seed had stood still there."""
    scheduler = Scheduler()
    clock = Clock(lambda: scheduler.now, rate_ppm=-400, offset_ns=4_096 * 10**9, wall_ns=0)
    bugs: list[BaseException] = []
    loop = SimLoop(scheduler, clock, bugs.append)  # type: ignore[abstract]
    waits: list[float] = []

    async def wait() -> None:
        deadline = loop.time() + 1e-12
        while (left := deadline - loop.time()) > 0 and len(waits) < 10:
            waits.append(left)
            await asyncio.sleep(left)

    loop.create_task(wait(), name="wait")
    scheduler.run_until(1_000)
    assert 0 < len(waits) < 5
    assert not bugs


def test_the_exit_code_says_the_gravest_kind() -> None:
    """Goal: a script can tell findings apart. Method: every mixture of kinds."""
    assert exit_code([]) == CLEAN
    assert exit_code([{"kind": "liveness"}]) == LIVENESS
    assert exit_code([{"kind": "liveness"}, {"kind": "safety"}]) == SAFETY
    assert exit_code([{"kind": "safety"}, {"kind": "crash"}]) == BUG
