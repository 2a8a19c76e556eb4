"""Sidecars that are armed to die at a named place, and what makes them come to it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from trellis.cluster.v1 import cluster_pb2
from trellis.config_sync.v1 import config_sync_pb2
from trellis.membership.v1 import membership_pb2
from trellis.supervisor.v1 import supervisor_pb2

from mesh.adapters.armed import VARIABLE
from mesh.settings.declaration import load_declarations
from mesh.wire.service import encode_spec
from tests.harness.cluster import Cluster, owner
from tests.harness.host import Host
from tests.harness.processes import ROOT
from tests.harness.waiting import let_pass

#: Asked again and again, so each question is short.
ASK_S = 0.5
PAUSE_S = 0.05
DEATH_S = 60.0
BIG_BYTES = 512 * 1024

#: Done to an armed host again and again until it is dead.
Poke = Callable[["Pokes", Host], None]


def start_armed(host: Host, *armed: str) -> None:
    """Start its sidecar with these places armed."""
    host.start(("env", f"{VARIABLE}={','.join(armed)}"))


def strikes(log: Path) -> list[str]:
    """The places at which something happened, as a log has it, in order."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line.split('"')[7] for line in lines if line.startswith('{"event": "failpoint"')]


class Pokes:
    """What can be done to hosts of one cluster. What fails for now is done again."""

    def __init__(self, cluster: Cluster, steady: Host) -> None:
        self.cluster = cluster
        #: Never armed: leads when others may not.
        self.steady = steady
        self._made = 0

    def until_dead(self, host: Host, name: str, poke: Poke) -> float:
        """Poke a host that is armed as *name* until it dies there; how long it took."""
        began = time.monotonic()
        while host.is_running():
            assert time.monotonic() - began < DEATH_S, f"{host.name} never came to {name}"
            with contextlib.suppress(grpc.RpcError):
                poke(self, host)
            let_pass(PAUSE_S)
        assert host.wait_exit() == -signal.SIGKILL, (name, host.log()[-5:])
        assert strikes(host.log_path)[-1:] == [name], (name, strikes(host.log_path)[-3:])
        return time.monotonic() - began

    # ---- pokes ----------------------------------------------------------------------

    def use(self, host: Host) -> None:
        """A write and a linearizable read by way of it."""
        self._put(host, "poked", b"x")
        host.documents.GetDocument(config_sync_pb2.GetDocumentRequest(name="poked"), timeout=ASK_S)

    def use_following(self, host: Host) -> None:
        """The same on a host that does not lead."""
        if leads(host):
            self._transfer(host, self.steady)
        self.use(host)

    def lead(self, host: Host) -> None:
        """Have it lead, and propose something from another host."""
        if not leads(host):
            self._transfer(self.steady, host)
        self.use(self.steady)

    def lead_and_lose(self, host: Host) -> None:
        """Have it lead and own, and then another."""
        status = host.status()
        if status is not None and status.leader != host.name:
            self._transfer(self.steady, host)
        elif owner(status) == host.name:
            self._transfer(host, self.steady)

    def declare(self, host: Host) -> None:
        """A declaration that differs from the last."""
        spec = encode_spec(load_declarations(ROOT / "services/echo/echo.toml")[0])
        self._made += 1
        spec.environment["POKED"] = str(self._made)
        host.services.ApplyService(supervisor_pb2.ApplyServiceRequest(spec=spec), timeout=4 * ASK_S)

    def kill_instance(self, host: Host) -> None:
        """Kill what runs of echo on it."""
        status = host.status()
        for service in status.services if status is not None else ():
            for item in service.instances:
                if item.ready and item.pid and f"@{host.name}#" in item.instance:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(item.pid, signal.SIGKILL)

    def token(self, host: Host) -> None:
        """A join token that nobody uses."""
        request = membership_pb2.CreateTokenRequest(lifetime=Duration(seconds=60))
        host.membership.CreateToken(request, timeout=ASK_S)

    def grow(self, host: Host) -> None:
        """Much for the log."""
        del host
        for _ in range(4):
            self._put(self.steady, "big", bytes(BIG_BYTES), 4 * ASK_S)

    def end(self, host: Host) -> None:
        """SIGTERM, once it serves."""
        status = host.status()
        if status is not None and not status.fenced_reason and not self._is_ending(host):
            host.terminate()

    def _is_ending(self, host: Host) -> bool:
        marker = host.directory / f"ending-{host.pid}"
        if marker.exists():
            return True
        marker.touch()
        return False

    def kill_steady(self, host: Host) -> None:
        """Kill another host and start it again, once the two know each other."""
        if all((status := each.status()) and not status.fenced_reason for each in (host, self.steady)):
            self.steady.kill()
            self.steady.start()

    def freeze_steady(self, host: Host) -> None:
        """Let the leader stand still for longer than a lease, so that nobody else has one."""
        status = host.status()
        if status is None or status.fenced_reason:
            return
        if status.leader != self.steady.name:
            self._transfer(host, self.steady)
            return
        self.steady.freeze()
        try:
            deadline = time.monotonic() + 3.0
            while host.is_running() and time.monotonic() < deadline:
                let_pass(PAUSE_S)
        finally:
            self.steady.thaw()

    # ---- calls ----------------------------------------------------------------------

    def _put(self, host: Host, name: str, value: bytes, timeout_s: float = ASK_S) -> None:
        request = config_sync_pb2.PutDocumentRequest(name=name, value=value)
        host.documents.PutDocument(request, timeout=timeout_s)

    def _transfer(self, asked: Host, to: Host) -> None:
        request = cluster_pb2.TransferLeadershipRequest(host=to.name)
        asked.cluster.TransferLeadership(request, timeout=4 * ASK_S)


def leads(host: Host) -> bool:
    """As it says itself."""
    status = host.status()
    return status is not None and status.leader == host.name


def die_at_each(pokes: Pokes, host: Host, rows: Iterable[tuple[str, Poke]]) -> dict[str, float]:
    """One life after the other, each ending at the next place; then it runs unarmed."""
    took = {}
    for name, poke in rows:
        if host.is_running():
            host.kill()
        start_armed(host, f"{name}=crash")
        took[name] = pokes.until_dead(host, name, poke)
    host.start()
    return took
