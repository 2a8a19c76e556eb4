"""Faults of processes: of the sidecar, of what stands beside it, and of the whole machine."""

import json
import os
import signal
import time
from contextlib import suppress
from typing import ClassVar

import psutil

from tests.chaos.fault import Fault
from tests.chaos.stage import STALE_NS
from tests.harness.host import VIRTUAL_PORT, Host
from tests.harness.waiting import let_pass, wait_for


class SidecarKilled(Fault):
    kind: ClassVar[str] = "sidecar-killed"
    about: ClassVar[str] = "SIGKILL to a sidecar; it stays away for a while"
    ends_target: ClassVar[bool] = True

    def inject(self) -> None:
        self.stage.kill(self.target)

    def heal(self) -> None:
        self.stage.start(self.target)


class SidecarFrozen(Fault):
    kind: ClassVar[str] = "sidecar-frozen"
    about: ClassVar[str] = "SIGSTOP to a sidecar for longer than its lease, then SIGCONT"
    lasts_s: ClassVar[tuple[float, float]] = (2.5, 6.0)

    def inject(self) -> None:
        self.target.freeze()

    def heal(self) -> None:
        if self.target.is_running():
            self.target.thaw()


class HostKilled(Fault):
    kind: ClassVar[str] = "host-killed"
    about: ClassVar[str] = "a machine loses power: link and every process gone at once; it boots again"
    ends_target: ClassVar[bool] = True

    def inject(self) -> None:
        self.stage.power_off(self.target)

    def heal(self) -> None:
        self.stage.network.link_up(self.number)
        self.stage.start(self.target)


class HostFrozen(Fault):
    kind: ClassVar[str] = "host-frozen"
    about: ClassVar[str] = "every process of a host stands still for longer than its lease, and goes on"
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 8.0)

    def inject(self) -> None:
        self.stage.network.paused.add(self.number)
        self._since_ns = time.monotonic_ns()
        wait_for(self._all_stand, f"every process of {self.target.name} stands still", 10.0)
        self._since_ns = time.monotonic_ns()

    def heal(self) -> None:
        for pid in self.stage.processes(self.number):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stage.stood_still(self.target, self._since_ns, time.monotonic_ns())
        network = self.stage.network
        # An address that it had is another's by now: for the moment until its fence sees that, it has both.
        wait_for(
            lambda: not (network.holds(self.number) and network.holders(VIRTUAL_PORT)),
            f"{self.target.name} gives up the virtual IP that it had",
            STALE_NS / 1e9,
        )
        network.paused.discard(self.number)

    def _all_stand(self) -> bool:
        """Whoever is started by one that still runs is found at the next look."""
        running = [pid for pid in self.stage.processes(self.number) if not stands_still(pid)]
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return not running


class AllKilled(Fault):
    kind: ClassVar[str] = "all-sidecars-killed"
    about: ClassVar[str] = "SIGKILL to all sidecars; all come back"
    lasts_s: ClassVar[tuple[float, float]] = (0.2, 4.0)

    def may_end(self, host: Host) -> bool:
        """See Fault."""
        return True

    def inject(self) -> None:
        for host in self.stage.cluster.hosts:
            self.stage.kill(host)

    def heal(self) -> None:
        for host in self.stage.cluster.hosts:
            self.stage.start(host)


class FenceKilled(Fault):
    kind: ClassVar[str] = "fence-killed"
    about: ClassVar[str] = "SIGKILL to the fence process, again and again"
    lasts_s: ClassVar[tuple[float, float]] = (2.0, 6.0)
    pauses_s: ClassVar[tuple[float, float]] = (0.3, 1.5)

    def inject(self) -> None:
        wait_for(self._kill, "there is a fence process to kill", 10.0)

    def hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            let_pass(self.chance.uniform(*self.pauses_s))
            self._kill()

    def heal(self) -> None:
        """The sidecar starts another by itself."""

    def _kill(self) -> bool:
        fences = fence_processes(self.target)
        for fence in fences:
            with suppress(psutil.NoSuchProcess):
                fence.kill()
        return bool(fences)


class FenceFrozen(Fault):
    kind: ClassVar[str] = "fence-frozen"
    about: ClassVar[str] = "SIGSTOP to the fence process; its sidecar replaces it"
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 6.0)

    def inject(self) -> None:
        self._frozen = wait_for(lambda: fence_processes(self.target), "there is a fence process", 10.0)
        for fence in self._frozen:
            fence.suspend()

    def heal(self) -> None:
        for fence in getattr(self, "_frozen", []):
            with suppress(psutil.NoSuchProcess):
                fence.resume()


class EnvoyKilled(Fault):
    kind: ClassVar[str] = "envoy-killed"
    about: ClassVar[str] = "SIGKILL to a host's Envoy, again and again"
    lasts_s: ClassVar[tuple[float, float]] = (2.0, 6.0)

    def inject(self) -> None:
        wait_for(self._kill, "there is an Envoy to kill", 10.0)

    def hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            let_pass(self.chance.uniform(0.5, 2.0))
            self._kill()

    def heal(self) -> None:
        """The sidecar starts another by itself."""

    def _kill(self) -> bool:
        record = self.target.run_dir / "envoy.state.json"
        if not record.exists():
            return False
        pid = int(json.loads(record.read_text())["pid"])
        if pid not in self.stage.processes(self.number):  # ended, and its number may be another's
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True


class SlowCpu(Fault):
    kind: ClassVar[str] = "slow-cpu"
    about: ClassVar[str] = (
        "every process of a host runs for a part of the time only (SIGSTOP and SIGCONT in turn)"
    )
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 10.0)
    #: Below the release bound (250 ms): what is asked of the fence can still be done in time.
    stopped_s: ClassVar[tuple[float, float]] = (0.02, 0.12)
    running_s: ClassVar[tuple[float, float]] = (0.02, 0.08)

    def inject(self) -> None:
        self._pids = self.stage.processes(self.number)

    def hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._pids = self.stage.processes(self.number)
            for pulse in (signal.SIGSTOP, signal.SIGCONT):
                self._signal(pulse)
                let_pass(
                    self.chance.uniform(*(self.stopped_s if pulse is signal.SIGSTOP else self.running_s))
                )

    def heal(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class RollingRestart(Fault):
    kind: ClassVar[str] = "rolling-restart"
    about: ClassVar[str] = "every sidecar is told to end and started again, one after the other"
    lasts_s: ClassVar[tuple[float, float]] = (0.0, 2.0)
    needs_others: ClassVar[bool] = True

    def may_end(self, host: Host) -> bool:
        """See Fault."""
        return True

    def inject(self) -> None:
        """Nothing yet: each is restarted in its turn."""

    def hold(self, seconds: float) -> None:
        first = self.number - 1
        hosts = self.stage.cluster.hosts
        for host in [*hosts[first:], *hosts[:first]]:
            host.terminate()
            code = host.wait_exit(60.0)
            assert code == 0, f"{host.name} was told to end and ended with {code}"
            self.stage.start(host)
            wait_for(lambda host=host: has_lease(host), f"{host.name} has its lease again", 60.0)  # type: ignore[misc]
            let_pass(seconds / len(hosts))

    def heal(self) -> None:
        for host in self.stage.cluster.hosts:
            self.stage.start(host)


def stands_still(pid: int) -> bool:
    """It is stopped, or gone."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def has_lease(host: Host) -> bool:
    """It takes part and may act."""
    status = host.status()
    return status is not None and not status.fenced_reason


def fence_processes(host: Host) -> list[psutil.Process]:
    """Children of the sidecar that run the fence program."""
    try:
        children = psutil.Process(host.pid).children()
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            if any(word.endswith("fence_process.py") for word in child.cmdline()):
                found.append(child)
    return found


ALL: tuple[type[Fault], ...] = (
    SidecarKilled, SidecarFrozen, HostKilled, HostFrozen, AllKilled, FenceKilled, FenceFrozen, EnvoyKilled,
    SlowCpu, RollingRestart,
)  # fmt: skip
