"""The test's end of the keeper: starts, signals and asks after programs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from tests.harness.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
END_S = 20.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of every program under test: this Python's programs first, no settings of the caller's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRELLIS_")}
    own = str(Path(sys.executable).parent)
    return {**kept, "PATH": f"{own}:{os.environ.get('PATH', os.defpath)}", **(extra or {})}


class Processes:
    """Programs of one cluster under test; `close` ends every one of them and what they started."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.keeper"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=environment(), cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        self._one_order = Lock()

    @property
    def pid(self) -> int:
        """Of the keeper."""
        return self._keeper.pid

    def start(self, argv: Sequence[str], log: Path) -> int:
        """Start a program; its process id."""
        return int(str(self._order({"start": list(argv), "log": str(log)})["pid"]))

    def signal(self, pid: int, number: signal.Signals) -> int:
        """Signal it; the monotonic time of it in nanoseconds, 0 when it had ended before."""
        return int(str(self._order({"signal": pid, "number": int(number)})["at_ns"]))

    def code(self, pid: int) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        code = self._order({"code": pid})["code"]
        return None if code is None else int(str(code))

    def wait_exit(self, pid: int, within_s: float = 10.0) -> int:
        """Its exit code, once it has ended."""
        wait_for(lambda: self.code(pid) is not None, f"process {pid} has ended", within_s)
        code = self.code(pid)
        assert code is not None
        return code

    def do_last(self, commands: Sequence[Sequence[str]]) -> None:
        """Commands to run once all has ended, also if these tests are killed; replaces earlier ones."""
        self._order({"last": [list(words) for words in commands]})

    def close(self) -> None:
        """End everything."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.close()
        self._keeper.wait(END_S)
        self._keeper.stdout.close()

    def _order(self, order: Mapping[str, object]) -> dict[str, object]:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with self._one_order:
            self._keeper.stdin.write(json.dumps(order) + "\n")
            line = self._keeper.stdout.readline()
        assert line, "the keeper of the cluster's programs has ended"
        answer: dict[str, object] = json.loads(line)
        return answer
