"""Runs a Python module under a faked wall clock that the programs it starts do not inherit.

`python -m tests.chaos.faked_clock PYTHON -m MODULE …`, with LD_PRELOAD set to libfaketime. All processes
under that library share a semaphore; one that is killed while it holds it stops the others, and
what a sidecar starts is killed often.

`time.sleep` is replaced by one that asks for no clock: the library makes of clock_nanosleep(2), which
Python uses for it, an invalid argument.
"""

import os
import runpy
import select
import sys
import time
from typing import SupportsIndex


def pause(seconds: float | SupportsIndex) -> None:
    """As time.sleep."""
    select.select([], [], [], float(seconds))


def main() -> None:
    """As the module ends."""
    for name in ("LD_PRELOAD", "FAKETIME_SHARED"):
        os.environ.pop(name, None)
    time.sleep = pause
    module, sys.argv = sys.argv[3], sys.argv[3:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
