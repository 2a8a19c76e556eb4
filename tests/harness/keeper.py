"""The process that owns everything a cluster under test has started, and ends all of it.

`python -m tests.harness.keeper` reads orders as JSON lines and answers each:

    {"start": [...], "log": PATH}      ->  {"pid": N}
    {"signal": PID, "number": N}       ->  {"at_ns": N}   (monotonic; 0: it had ended)
    {"code": PID}                      ->  {"code": N | null}   (negative: the signal)
    {"last": [[...], ...]}             ->  {"last": N}   (commands to run when all has ended)

It is a child subreaper: what a killed sidecar leaves behind (Envoy, instances, a
fence process) becomes its own child. So everything below it is of this cluster,
whoever started it, and it ends all of it by process id when its input ends,
which it does however the tests end.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
END_S = 10.0


class Keeper:
    """What was started, and how it ended."""

    def __init__(self) -> None:
        self.started: set[int] = set()
        self.codes: dict[int, int] = {}
        #: What takes down what processes do not hold: namespaces, mounts.
        self.last: list[list[str]] = []

    def take(self, order: dict[str, object]) -> dict[str, object]:
        if "start" in order:
            return {"pid": self._start(order)}
        if "last" in order:
            words = order["last"]
            assert isinstance(words, list)
            self.last = words
            return {"last": len(words)}
        self.reap()
        if "signal" in order:
            pid, at_ns = int(str(order["signal"])), time.monotonic_ns()
            # Not reaped yet, so the number is still this process's own.
            if pid not in self.started or pid in self.codes:
                return {"at_ns": 0}
            os.kill(pid, int(str(order["number"])))
            return {"at_ns": at_ns}
        return {"code": self.codes.get(int(str(order["code"])))}

    def _start(self, order: dict[str, object]) -> int:
        words = order["start"]
        assert isinstance(words, list)
        with Path(str(order["log"])).open("ab") as log:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        child.returncode = 0  # collected by reap(), not by the object
        self.started.add(child.pid)
        return child.pid

    def reap(self) -> None:
        """Collect every child that has ended, started here or inherited."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.started:
                self.codes[pid] = os.waitstatus_to_exitcode(status)

    def end_all(self) -> None:
        """Kill whatever is left: the sidecars first, then what became a child by that."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            left = psutil.Process().children(recursive=True)
            if not left:
                return
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            select.select([], [], [], 0.02)
            self.reap()
        print("left behind:", psutil.Process().children(recursive=True), file=sys.stderr)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    keeper = Keeper()
    try:
        while True:
            # Orphans are collected while it is quiet, or a dead Envoy would look like a living one.
            while not select.select([sys.stdin], [], [], 0.05)[0]:
                keeper.reap()
            line = sys.stdin.buffer.raw.readline()  # type: ignore[union-attr]  # unbuffered, or select would wait
            if not line:
                return
            print(json.dumps(keeper.take(json.loads(line))), flush=True)
    finally:
        keeper.end_all()
        for words in keeper.last:
            subprocess.run(words, stdin=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
