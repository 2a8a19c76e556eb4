"""A directory whose power can be cut: the tests' end of a mounted disk."""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.harness.processes import ROOT
from tests.harness.waiting import wait_for

END_S = 10.0


class PoweredDisk:
    """Mounted at *directory* from `with` to the end of its body."""

    def __init__(self, directory: Path, capacity: int = 256 << 20) -> None:
        self.directory = directory
        self._capacity = capacity

    def __enter__(self) -> Self:
        if reason := why_not():
            pytest.skip(reason)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = self.directory.with_suffix(".disk.log")
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.disks.mounted", str(self.directory), str(self._capacity)],
                stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        wait_for(lambda: self.directory.is_mount() or self._server.poll() is not None, "the disk is mounted")
        assert self._server.poll() is None, self._log.read_text()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.directory)], check=True)
        try:
            self._server.wait(END_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def cut_power(self, seed: int) -> None:
        """After every process on it was killed: what was not synced is lost, kept or torn."""
        self._order(f"off {seed}")

    def fail_syncs(self, count: int) -> None:
        """So many further calls of fsync fail, and lose what they were for."""
        self._order(f"fail {count}")

    def limit(self, size_bytes: int) -> None:
        """Beyond this size writes fail with ENOSPC."""
        self._order(f"capacity {size_bytes}")

    @property
    def pid(self) -> int:
        """Of the process that serves it: while it is stopped, every call stands still."""
        return self._server.pid

    def _order(self, text: str) -> None:
        descriptor = os.open(self.directory / ".power", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def why_not() -> str:
    """Why no file system of one's own can be mounted here; empty if it can."""
    if os.geteuid() != 0:
        return "mounting a file system of one's own needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse here"
    tried = subprocess.run(
        [sys.executable, "-c", "import mfusepy"], capture_output=True, text=True, check=False
    )
    return f"mfusepy cannot be used: {tried.stderr.strip().splitlines()[-1]}" if tried.returncode else ""
