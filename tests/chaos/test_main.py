"""The command: what it says of itself, and that it cleans up."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.chaos.kinds import KINDS
from tests.harness.namespaces import why_not
from tests.harness.processes import ROOT
from tests.harness.waiting import let_pass, wait_for


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_campaign_leaves_nothing_behind(number: signal.Signals) -> None:
    """Goal: no namespace, mount or process of it stays. Method: a signal while a fault lasts."""
    if reason := why_not():
        pytest.skip(reason)
    argv = [sys.executable, "-m", "tests.chaos", "--seed", "1", "--only", "late"]
    running = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tag = f"trl{running.pid}-"
    try:
        assert running.stderr is not None
        lines = iter(running.stderr.readline, "")
        assert any("round" in line for line in lines), "it ended before its first round"
        let_pass(1.5)  # into the fault, or its beginning
        assert tag in namespaces()
        left = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        assert len(left) > 10
        running.send_signal(number)
        out, err = running.communicate(timeout=90.0)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == (-number if number is signal.SIGKILL else 128 + number), err
    assert out == ""
    wait_for(lambda: not any(each.is_running() for each in left), "its processes have ended", 30.0)
    wait_for(lambda: tag not in namespaces(), "its namespaces are gone", 30.0)
    wait_for(lambda: f"trellis-chaos-{running.pid}" not in mounts(), "its mounts are gone", 30.0)


def test_help_names_every_kind() -> None:
    """Goal: --help suffices. Method: read it."""
    argv = [sys.executable, "-m", "tests.chaos", "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [name for name in KINDS if name not in done.stdout] == []
    assert "--seed" in done.stdout


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


def mounts() -> str:
    with open(f"/proc/{os.getpid()}/mounts") as table:
        return table.read()
