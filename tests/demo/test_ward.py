"""Whatever way a demo ends, nothing that it started is left."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

# Leaves a grandchild behind when it is killed; the grandchild ignores SIGTERM.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"],
    stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


class Running:
    """A ward and the way to order it about."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        argv = [sys.executable, "-m", "sidecar.demo.ward", str(directory / "ward.json")]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def order(self, **words: Any) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        return answer

    def start_family(self) -> tuple[psutil.Process, psutil.Process]:
        parent = self.order(start="one", argv=[sys.executable, "-c", PARENT], log=str(self.log))["pid"]
        deadline = time.monotonic() + 10
        while not (self.log.exists() and self.log.read_text().strip()):
            assert time.monotonic() < deadline, "the family did not start"
        return psutil.Process(parent), psutil.Process(int(self.log.read_text()))


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    with running.process:
        yield running
        running.process.terminate()
        running.process.wait(10)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.integration
def test_the_end_of_its_input_ends_everything_even_what_a_killed_program_left(ward: Running) -> None:
    """Goal: a demo that dies leaves no orphan.

    Method: kill a parent, close the pipe, look at its deaf grandchild.
    """
    parent, orphan = ward.start_family()
    assert ward.order(kill="one", signal=int(signal.SIGKILL))["at_ns"] > 0
    parent.wait(5)
    assert not is_gone(orphan)
    assert ward.process.stdin is not None
    ward.process.stdin.close()
    assert ward.process.wait(15) == 0
    assert is_gone(orphan)


@pytest.mark.integration
def test_what_is_kept_outlives_the_input_and_ends_on_sigterm(ward: Running) -> None:
    """Goal: --keep lasts until it is told to stop. Method: close the pipe, wait, SIGTERM."""
    parent, orphan = ward.start_family()
    assert ward.order(keep=True)["kept"] == 1
    assert ward.process.stdin is not None
    ward.process.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        ward.process.wait(1)
    assert not is_gone(parent)
    ward.process.terminate()
    assert ward.process.wait(15) == 0
    assert is_gone(parent)
    assert is_gone(orphan)


@pytest.mark.integration
def test_a_kept_ward_with_nothing_left_to_own_ends(ward: Running) -> None:
    """Goal: no guard without a ward. Method: kill both, wait for its end."""
    parent, orphan = ward.start_family()
    assert ward.order(keep=True)["kept"] == 1
    parent.kill()
    orphan.kill()
    assert ward.process.wait(15) == 0
