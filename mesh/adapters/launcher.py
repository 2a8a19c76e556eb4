"""Sets what must be set in the new process itself, then becomes the command.

Runs in a fresh interpreter (`python3 -IS launcher.py PARENT [PROCS-FILE…] --
COMMAND…`) where setpriv(1) or sh(1) is missing; it imports nothing of Trellis.
PARENT is the process whose death kills this one, empty for none; each
PROCS-FILE is a cgroup to join.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(arguments: list[str]) -> None:
    """Never returns: the command takes the place of the interpreter."""
    border = arguments.index("--")
    parent, groups, command = arguments[0], arguments[1:border], arguments[border + 1 :]
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or (parent and prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if parent and os.getppid() != int(parent):
        sys.exit("the sidecar is gone already")
    for group in groups:
        with open(group, "w") as file:
            file.write("0")
    try:
        os.execvp(command[0], command)  # noqa: S606 - the operator's declared command, no shell
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
