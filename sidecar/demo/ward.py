"""The process that owns everything a demo started, and ends all of it.

`python -m sidecar.demo.ward RECORD` reads orders as JSON lines on standard
input and answers each on standard output:

    {"start": NAME, "argv": [...], "log": PATH}  ->  {"pid": N}
    {"kill": NAME, "signal": N}                  ->  {"at_ns": N}  (monotonic)
    {"keep": true}                               ->  {"kept": true}

When its input ends and it was not told to keep, or on SIGTERM, it stops
everything and ends; kept, it also ends when nothing that it owns is left. It is
a child subreaper, so that what a killed sidecar leaves behind becomes its own
child and is ended with the rest.

Bound: sidecars get `GRACE_S` to end by themselves, then everything gets SIGKILL.
Their data is thrown away, so they need not end in good order.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, TextIO

import psutil

GRACE_S: Final = 2.0
_PR_SET_CHILD_SUBREAPER: Final = 36
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ward:
    """What was started, and the pipes that orders and signals come through."""

    def __init__(self, orders: TextIO, answers: TextIO) -> None:
        self.orders = orders
        self.answers = answers
        self.pids: dict[str, int] = {}
        self.kept = False
        self.stopping = False
        self.wake_read, self.wake_write = os.pipe()

    def listen_to_signals(self) -> None:
        """Signals only wake the loop; it does the work."""
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def serve(self) -> None:
        """Carry out orders until told to stop."""
        while not self.stopping:
            watched: list[int | TextIO] = [self.wake_read] if self.kept else [self.wake_read, self.orders]
            ready, _, _ = select.select(watched, [], [])
            if self.wake_read in ready:
                os.read(self.wake_read, 4096)
                self._reap()
                self.stopping |= self.kept and not psutil.Process().children()
            if self.orders in ready:
                self._take_order(self.orders.readline())

    def _take_order(self, line: str) -> None:
        if not line:
            self.stopping = not self.kept
            return
        order = json.loads(line)
        if "start" in order:
            answer: dict[str, object] = {"pid": self._start(order)}
        elif "kill" in order:
            at_ns = time.monotonic_ns()
            os.kill(self.pids[order["kill"]], order["signal"])
            answer = {"at_ns": at_ns}
        else:
            self.kept = True
            answer = {"kept": True}
        print(json.dumps(answer), file=self.answers, flush=True)

    def _start(self, order: dict[str, object]) -> int:
        argv = [str(word) for word in order["argv"]]  # type: ignore[attr-defined]  # JSON array
        with Path(str(order["log"])).open("ab") as log:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pids[str(order["start"])] = child.pid
        # Reaped by _reap(); without this, the object would complain that it was not waited for.
        child.returncode = 0
        return child.pid

    def end_all(self) -> None:
        """Stop every sidecar together, then whatever is left of what they started."""
        own = psutil.Process()
        for process in own.children():
            if process.pid in self.pids.values():
                _signal(process, signal.SIGTERM)
        self._wait_gone(GRACE_S, only_started=True)
        deadline = time.monotonic() + GRACE_S
        # What a killed program leaves behind becomes a child only now, so look again.
        while (left := own.children(recursive=True)) and time.monotonic() < deadline:
            for process in left:
                _signal(process, signal.SIGKILL)
            self._wait_gone(0.1)

    def _wait_gone(self, patience_s: float, *, only_started: bool = False) -> None:
        deadline = time.monotonic() + patience_s
        while (self.pids if only_started else psutil.Process().children()) and time.monotonic() < deadline:
            ready, _, _ = select.select([self.wake_read], [], [], 0.1)
            if ready:
                os.read(self.wake_read, 4096)
            self._reap()

    def _reap(self) -> None:
        """Collect every child that has ended, started here or inherited."""
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.pids = {name: other for name, other in self.pids.items() if other != pid}


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def main() -> int:
    """Own what is started until told to stop; then end it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print(f"cannot become a child subreaper: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    record = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    Path(sys.argv[1]).write_text(json.dumps(record))
    ward = Ward(sys.stdin, sys.stdout)
    ward.listen_to_signals()
    try:
        ward.serve()
    finally:
        ward.end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
