"""One host of a cluster under test: its settings, its sidecar's process, its operators' door."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from trellis.cluster.v1 import cluster_pb2, cluster_pb2_grpc
from trellis.config_sync.v1 import config_sync_pb2_grpc
from trellis.membership.v1 import membership_pb2_grpc
from trellis.supervisor.v1 import supervisor_pb2_grpc

from mesh.limits import SOCKET_PATH_BYTES_MAX
from tests.harness.processes import Processes, environment
from tests.harness.waiting import wait_for

PORT = 7400
VIRTUAL_PORT = 8080

_SETTINGS = """\
[host]
name = "{name}"
data_dir = "{data}"
run_dir = "{directory}/run"
log_dir = "{directory}/log"
[mesh]
address = "{ip}:{port}"
[virtual_ip]
address = "{virtual_ip}"
interface = "{interface}"
[envoy]
concurrency = 1
[logs]
format = "json"
"""

TRELLIS = (sys.executable, "-m", "sidecar.cli.main")


class Host:
    """A host; `start` and the signals act on its sidecar only."""

    def __init__(
        self,
        name: str,
        ip: str,
        directory: Path,
        processes: Processes,
        *,
        inside: Sequence[str] = (),
        virtual_ip: str,
        interface: str = "",
    ) -> None:
        self.name = name
        self.ip = ip
        self.directory = directory
        self.data_dir = directory / "data"
        self.inside = tuple(inside)
        self._processes = processes
        self._virtual_ip = virtual_ip
        self._interface = interface
        self._pid: int | None = None
        directory.mkdir(parents=True, exist_ok=True)
        assert len(bytes(directory / "run" / "service.sock")) <= SOCKET_PATH_BYTES_MAX
        self.write_settings()
        self._channel: grpc.Channel | None = None

    # ---- files ----------------------------------------------------------------------

    @property
    def settings_path(self) -> Path:
        return self.directory / "settings.toml"

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    @property
    def log_path(self) -> Path:
        return self.directory / "sidecar.log"

    def write_settings(self, more: str = "") -> None:
        """Write the settings file; *more* is added at its end."""
        text = _SETTINGS.format(
            name=self.name, data=self.data_dir, directory=self.directory, ip=self.ip, port=PORT,
            virtual_ip=self._virtual_ip, interface=self._interface,
        )  # fmt: skip
        self.settings_path.write_text(text + more)

    def log(self) -> list[dict[str, object]]:
        """What its sidecar logged, over all its runs; lines that are not JSON come as "raw"."""
        if not self.log_path.exists():
            return []
        return [_parse(line) for line in self.log_path.read_text(errors="replace").splitlines()]

    def logged(self, event: str) -> list[dict[str, object]]:
        """The entries of one kind."""
        return [entry for entry in self.log() if entry.get("event") == event]

    # ---- the sidecar's process --------------------------------------------------------

    def start(self, wrapped_in: Sequence[str] = ()) -> None:
        """Run the sidecar; *wrapped_in* stands before its command (such as strace)."""
        argv = [*self.inside, *wrapped_in, *TRELLIS, "run", "--settings", str(self.settings_path)]
        self._pid = self._processes.start(argv, self.log_path)

    @property
    def pid(self) -> int:
        assert self._pid is not None, f"{self.name} was never started"
        return self._pid

    def signal(self, number: signal.Signals) -> int:
        """Signal the sidecar; the monotonic time of it."""
        at_ns = self._processes.signal(self.pid, number)
        assert at_ns, f"{self.name} had ended before it got {number.name}"
        return at_ns

    def kill(self) -> int:
        """SIGKILL the sidecar and nothing else; the monotonic time of it."""
        at_ns = self.signal(signal.SIGKILL)
        self.wait_exit()
        return at_ns

    def power_off(self) -> None:
        """Kill the sidecar and all it started, and lose what a reboot loses: the run directory."""
        self.kill()
        for record in (self.run_dir / "envoy.state.json", *(self.run_dir / "instances").glob("*.json")):
            left = json.loads(record.read_text()) if record.exists() else {}
            if left and start_ticks(left["pid"]) == left.get("start_ticks", left.get("start_time")):
                os.kill(left["pid"], signal.SIGKILL)
                pid = left["pid"]
                wait_for(lambda pid=pid: start_ticks(pid) is None, f"process {pid} is gone")  # type: ignore[misc]
        shutil.rmtree(self.run_dir)
        self.close()

    def freeze(self) -> int:
        return self.signal(signal.SIGSTOP)

    def thaw(self) -> int:
        return self.signal(signal.SIGCONT)

    def terminate(self) -> int:
        return self.signal(signal.SIGTERM)

    def wait_exit(self, within_s: float = 40.0) -> int:
        """The sidecar's exit code."""
        return self._processes.wait_exit(self.pid, within_s)

    def is_running(self) -> bool:
        return self._pid is not None and self._processes.code(self._pid) is None

    # ---- its operators' door ------------------------------------------------------------

    def trellis(self, *words: str, within_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run a command of the CLI with this host's settings."""
        return run_trellis(
            *words, "--settings", str(self.settings_path), inside=self.inside, within_s=within_s
        )

    @property
    def channel(self) -> grpc.Channel:
        """To the admin socket; reconnects by itself."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                f"unix:{self.run_dir / 'admin.sock'}",
                options=[
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.min_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 200),
                    ("grpc.use_local_subchannel_pool", 1),
                ],
            )
        return self._channel

    @property
    def cluster(self) -> cluster_pb2_grpc.ClusterServiceStub:
        return cluster_pb2_grpc.ClusterServiceStub(self.channel)

    @property
    def documents(self) -> config_sync_pb2_grpc.ConfigSyncServiceStub:
        return config_sync_pb2_grpc.ConfigSyncServiceStub(self.channel)

    @property
    def services(self) -> supervisor_pb2_grpc.SupervisorServiceStub:
        return supervisor_pb2_grpc.SupervisorServiceStub(self.channel)

    @property
    def membership(self) -> membership_pb2_grpc.MembershipServiceStub:
        return membership_pb2_grpc.MembershipServiceStub(self.channel)

    def status(self) -> cluster_pb2.GetStatusResponse | None:
        """How it sees itself and the others; None when it does not answer."""
        try:
            return self.cluster.GetStatus(cluster_pb2.GetStatusRequest(), timeout=1.0)
        except grpc.RpcError:
            return None

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def run_trellis(
    *words: str, inside: Sequence[str] = (), within_s: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run a command of the CLI."""
    return subprocess.run(
        [*inside, *TRELLIS, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s,
        env=environment({"COLUMNS": "200"}), check=False,
    )  # fmt: skip


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when only its exit code is left, or nothing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _parse(line: str) -> dict[str, object]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"raw": line}
    return parsed if isinstance(parsed, dict) else {"raw": line}
