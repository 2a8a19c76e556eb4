"""Faults of the disk that a sidecar's log is on: changed system calls, or a full file system."""

import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import ClassVar

import grpc
from trellis.config_sync.v1.config_sync_pb2 import PutDocumentRequest

from tests.chaos.fault import Fault
from tests.chaos.stage import Stage
from tests.harness.host import Host
from tests.harness.waiting import wait_for

SYNCS = "fsync,fdatasync"
LARGE_BYTES = 128 << 10
#: Until a sidecar has found out that its disk fails.
END_S = 60.0


class _Traced(Fault):
    """System calls of the target's sidecar are changed while a tracer is attached to it."""

    needs_others: ClassVar[bool] = True
    programs: ClassVar[tuple[str, ...]] = ("strace",)

    def injection(self) -> str:
        """As strace has it, after the names of the calls."""
        raise NotImplementedError

    def inject(self) -> None:
        out = f"strace-{time.monotonic_ns()}"
        log = self.stage.cluster.directory / out
        self._pid = self.stage.program(
            [
                *("strace", "-f", "-p", str(self.target.pid), "-o", str(log)),
                *("-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:{self.injection()}"),
            ],
            out,
        )
        self._log = log
        said = log.with_suffix(".out")
        wait_for(lambda: "attached" in said.read_text(), "the tracer is attached", 20.0)

    def hold(self, seconds: float) -> None:
        super().hold(seconds)
        changed = ("(DELAYED)", "(INJECTED)")
        wait_for(lambda: any(mark in self._log.read_text() for mark in changed), f"{self} has struck", 20.0)

    def heal(self) -> None:
        if hasattr(self, "_pid"):
            self.stage.end(self._pid)


class SlowDisk(_Traced):
    kind: ClassVar[str] = "slow-disk"
    about: ClassVar[str] = "each fsync of a sidecar takes up to half a second more"
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 10.0)

    def injection(self) -> str:
        return f"delay_enter={self.chance.choice((20, 100, 300, 500)) * 1000}"


class StalledDisk(_Traced):
    kind: ClassVar[str] = "stalled-disk"
    about: ClassVar[str] = "one fsync of a sidecar takes three seconds, longer than an election"
    lasts_s: ClassVar[tuple[float, float]] = (3.5, 5.0)

    def injection(self) -> str:
        return "delay_enter=3000000:when=1"


class FailingDisk(_Traced):
    kind: ClassVar[str] = "failing-disk"
    about: ClassVar[str] = "one fsync of a sidecar fails (EIO): it must end, and a start must mend it"
    lasts_s: ClassVar[tuple[float, float]] = (0.0, 4.0)
    ends_target: ClassVar[bool] = True

    def injection(self) -> str:
        return "error=EIO:when=1"

    def hold(self, seconds: float) -> None:
        wait_storage_failed(self)
        super().hold(seconds)


class FullDisk(Fault):
    kind: ClassVar[str] = "full-disk"
    about: ClassVar[str] = "the file system of the first host's log is full: its sidecar must end"
    needs_others: ClassVar[bool] = True
    lasts_s: ClassVar[tuple[float, float]] = (0.0, 4.0)
    ends_target: ClassVar[bool] = True

    def __init__(self, stage: Stage, target: Host, chance: Random) -> None:
        """Always at the host with a small file system of its own, whoever was aimed at."""
        super().__init__(stage, stage.cluster.hosts[0], chance)

    def inject(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 64):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def hold(self, seconds: float) -> None:
        """Large documents by way of another host: what files had in reserve is soon used up."""
        stub = self.stage.others(self.target)[0].documents
        large = PutDocumentRequest(name="chaos/large", value=bytes(LARGE_BYTES))

        def has_ended() -> bool:
            with suppress(grpc.RpcError):
                stub.PutDocument(large, timeout=1.0)
            return not self.target.is_running()

        wait_for(has_ended, f"{self.target.name} needs more than its disk has", END_S)
        wait_storage_failed(self)
        super().hold(seconds)

    def heal(self) -> None:
        with suppress(FileNotFoundError):
            self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.target.data_dir / "ballast"


def wait_storage_failed(fault: Fault) -> None:
    """The sidecar ends by itself, and says why."""
    host = fault.target
    wait_for(lambda: not host.is_running(), f"{host.name} ends when its disk fails", END_S)
    reasons = [entry["reason"] for entry in host.logged("sidecar-ended")[-1:]]
    assert reasons == ["STORAGE_FAILED"], f"{host.name} ended for {reasons}"


ALL: tuple[type[Fault], ...] = (SlowDisk, StalledDisk, FailingDisk, FullDisk)
