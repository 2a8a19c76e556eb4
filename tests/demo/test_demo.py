"""The demo itself, as a newcomer runs it."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration

DEMO = [sys.executable, "-m", "sidecar.cli.main", "demo"]
DEADLINE_S = 120.0


def left_of(directory: Path) -> list[str]:
    """Command lines of processes that know the directory, and so belong to its demo."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(directory) in line]


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short, as sockets lie below it; the demo makes it.
    with tempfile.TemporaryDirectory(prefix="tr-", dir="/tmp") as parent:
        # Another user runs PostgreSQL when this one is root.
        Path(parent).chmod(0o711)
        yield Path(parent) / "demo"


def test_the_demo_kills_a_leader_loses_nothing_and_leaves_nothing(directory: Path) -> None:
    """Goal: its claims hold where it is run.

    Method: the command itself, its object, directory and processes.
    """
    argv = [*DEMO, "--json", "--seconds", "1", "--directory", str(directory)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["acknowledged_lost"] == 0
    assert found["failed_idempotent_calls"] == 0
    assert found["recovered"]
    assert found["calls"] > 50
    assert found["acknowledged"] > 10
    assert found["deployments"]["acknowledged"] > 5
    assert found["deployments"]["lost"] == 0
    assert found["phases_ms"]["deployed"] > 0
    assert found["old_leader"] != found["new_leader"]
    assert 0 < found["leader_ms"] <= found["phases_ms"]["vip_owned"]
    assert 0 < found["outage_ms"] < 10_000
    assert not directory.exists()
    assert left_of(directory) == []


def test_a_kept_demo_can_be_asked_and_is_ended_by_its_directory(directory: Path) -> None:
    """Goal: a newcomer can play with it and clean up. Method: keep, call, stop."""
    argv = [*DEMO, "--json", "--keep", "--seconds", "1", "--directory", str(directory)]
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S)
        assert ran.returncode == 0, ran.stderr
        assert f"demo --stop {directory}" in ran.stderr
        asked = subprocess.run(
            [sys.executable, str(directory / "call.py")], capture_output=True, text=True, timeout=30
        )
        assert "echo@host" in asked.stdout, asked.stderr
    finally:
        stopped = subprocess.run(
            [*DEMO, "--stop", str(directory)], capture_output=True, text=True, timeout=60
        )
    assert stopped.returncode == 0, stopped.stderr
    assert not directory.exists()
    assert left_of(directory) == []


def test_a_directory_that_exists_is_not_used(tmp_path: Path) -> None:
    """Goal: it removes nothing of anybody's. Method: an existing directory."""
    ran = subprocess.run([*DEMO, "--directory", str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 64
    assert "--directory" in ran.stderr


def test_there_is_nothing_to_stop_where_no_demo_is(tmp_path: Path) -> None:
    """Goal: --stop with a wrong path touches nothing. Method: an empty directory."""
    ran = subprocess.run([*DEMO, "--stop", str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 1
