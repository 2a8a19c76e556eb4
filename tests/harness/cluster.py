"""A cluster of real sidecars: made, watched, and ended with everything it started.

On loopback addresses each host is a directory and an address; in network
namespaces (network.py) also a namespace.
"""

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from trellis.cluster.v1 import cluster_pb2
from trellis.membership.v1 import membership_pb2
from trellis.supervisor.v1 import supervisor_pb2

from mesh.ids import VIP
from mesh.settings.declaration import load_declarations
from mesh.wire.service import encode_spec
from tests.harness.host import VIRTUAL_PORT, Host
from tests.harness.processes import ROOT, Processes
from tests.harness.resource import FencedResource
from tests.harness.waiting import wait_for

#: Of a busy machine of two cores: a sidecar alone needs one second of processor time to start.
SETUP_S = 40.0
LOG_LINES = 40
ENVOY_LINES = 4


class Network(Protocol):
    """Where the hosts of a cluster are."""

    @property
    def virtual_ip(self) -> str: ...
    @property
    def interface(self) -> str: ...
    def ip(self, number: int) -> str: ...
    def inside(self, number: int) -> tuple[str, ...]: ...
    def listen_for_resource(self) -> socket.socket: ...
    def holders(self, port: int) -> list[str]: ...
    def close(self) -> None: ...


class Cluster:
    """Hosts from `hosts`; `found` makes them one cluster. Closing ends every process and file of it."""

    #: Open ones, so that a failing test can show their logs.
    opened: "list[Cluster]" = []  # noqa: RUF012 - of the class on purpose

    def __init__(self, network: Network, *, hosts: int = 3) -> None:
        self.network = network
        self.directory = Path(tempfile.mkdtemp(prefix="trl-", dir="/tmp"))
        self.processes = Processes()
        self.resource = FencedResource(network.listen_for_resource())
        self.hosts = [self.add_host(number) for number in range(1, hosts + 1)]
        Cluster.opened.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def add_host(self, number: int, name: str = "") -> Host:
        """A host with settings and nothing else."""
        called = name or f"host{number}"
        return Host(
            called, self.network.ip(number), self.directory / called, self.processes,
            inside=self.network.inside(number),
            virtual_ip=self.network.virtual_ip, interface=self.network.interface,
        )  # fmt: skip

    def close(self) -> None:
        """End it. Everything it started is below the keeper, so nothing is looked for by name."""
        Cluster.opened.remove(self)
        for host in self.hosts:
            host.close()
        self.processes.close()
        self.resource.close()
        self.network.close()
        for host in self.hosts:
            remove_cgroups(host)
        shutil.rmtree(self.directory, ignore_errors=True)

    def logs(self) -> str:
        """The ends of all logs, for a failing test."""
        parts = []
        for host in self.hosts:
            for path, kept in ((host.log_path, LOG_LINES), (host.run_dir / "envoy.log", ENVOY_LINES)):
                lines = path.read_text(errors="replace").splitlines() if path.exists() else []
                if lines:
                    parts.append(f"==> {path}\n" + "\n".join(line[:400] for line in lines[-kept:]))
        return "\n".join(parts)

    # ---- making it ------------------------------------------------------------------

    def found(self, *, services: bool = True) -> None:
        """From nothing to voters that know each other, with echo everywhere and reporter on one host."""
        first, *others = self.hosts
        done = first.trellis("init")
        assert done.returncode == 0, done.stderr
        first.start()
        wait_for(lambda: leads_itself(first), "the founding host leads itself", SETUP_S)
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda host: self.join(host, first), others))
        if services:
            self.apply_examples()
        self.wait_whole(SETUP_S)

    def token(self, member: Host, host: str = "") -> str:
        """A join token."""
        request = membership_pb2.CreateTokenRequest(host=host, lifetime=Duration(seconds=600))
        return member.membership.CreateToken(request, timeout=10.0).token

    def join(self, host: Host, member: Host) -> None:
        """Join a host by a member's token, and start its sidecar."""
        done = host.trellis("join", self.token(member, host.name))
        assert done.returncode == 0, done.stderr
        host.start()

    def apply_examples(self) -> None:
        """Declare echo, active-active, and reporter, active-standby, which acts on the resource."""
        echo = load_declarations(ROOT / "services/echo/echo.toml")
        reporter = load_declarations(ROOT / "services/reporter/reporter.toml")
        for spec in (encode_spec(spec) for spec in (*echo, *reporter)):
            if spec.name == "reporter":
                spec.environment["REPORTER_RESOURCE"] = self.resource.address
                spec.environment["REPORTER_PERIOD_S"] = "0.05"
            self.hosts[0].services.ApplyService(supervisor_pb2.ApplyServiceRequest(spec=spec), timeout=10.0)

    # ---- looking at it ----------------------------------------------------------------

    def host(self, name: str) -> Host:
        """The host of that name."""
        return next(host for host in self.hosts if host.name == name)

    def others(self, *but: Host) -> list[Host]:
        """All hosts but these."""
        return [host for host in self.hosts if host not in but]

    @property
    def virtual_address(self) -> str:
        """Where clients call."""
        return f"{self.network.virtual_ip}:{VIRTUAL_PORT}"

    def leader(self, among: Iterable[Host] | None = None) -> Host | None:
        """The leader that all these hosts agree on."""
        seen = [host.status() for host in (self.hosts if among is None else among)]
        leaders = {status.leader if status else "" for status in seen}
        name = leaders.pop() if len(leaders) == 1 else ""
        return self.host(name) if name else None

    def wait_leader(
        self, among: Iterable[Host] | None = None, *, but: Host | None = None, within_s: float = 10.0
    ) -> Host:
        """The leader on which these hosts agree, other than *but*."""
        asked = list(self.hosts if among is None else among)

        def look() -> Host | None:
            leader = self.leader(asked)
            return leader if leader is not but and leader in asked else None

        return wait_for(look, f"{[host.name for host in asked]} agree on a leader", within_s)

    def wait_owner(self, host: Host, name: str = VIP, within_s: float = 10.0) -> None:
        """A host owns a thing, as it says itself."""
        wait_for(lambda: owner(host.status(), name) == host.name, f"{host.name} owns {name}", within_s)

    def wait_whole(self, within_s: float = 30.0) -> Host:
        """All hosts vote, are alive, hold their leases and have applied the same; all services are ready.

        Returns the leader, which owns the virtual IP and takes calls on it.
        """
        expected = len(self.hosts)
        problem = ["nothing was seen"]

        def look() -> Host | None:
            seen = [host.status() for host in self.hosts]
            answered = [status for status in seen if status is not None]
            problem[0] = what_is_missing(answered, expected)
            if problem[0]:
                return None
            leader = self.host(answered[0].leader)
            if len(self.network.holders(VIRTUAL_PORT)) != 1:
                problem[0] = f"held by {self.network.holders(VIRTUAL_PORT)}: the virtual IP"
                return None
            return leader

        try:
            return wait_for(look, "the cluster is whole", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {problem[0]}") from error

    def heal(self) -> None:
        """After a test that failed halfway: let every host run, so that the next test can judge."""
        for host in self.hosts:
            if host.is_running():
                host.thaw()
            else:
                host.start()

    def check_same_state(self) -> None:
        """Where two hosts hashed their state at the same index, the hashes are the same."""
        hashes: dict[int, tuple[str, bytes]] = {}
        for host in self.hosts:
            status = host.status()
            assert status is not None, f"{host.name} does not answer"
            name, value = hashes.setdefault(status.state_hash_index, (host.name, status.state_hash))
            assert value == status.state_hash, f"{name} and {host.name} differ at {status.state_hash_index}"


def leads_itself(host: Host) -> bool:
    """It answers, leads and has its lease."""
    status = host.status()
    return (
        status is not None
        and status.leader == host.name
        and not status.fenced_reason
        and bool(status.cluster_id)
    )


def owner(status: cluster_pb2.GetStatusResponse | None, name: str = VIP) -> str:
    """The holder of a thing, as one host has applied it."""
    if status is None:
        return ""
    return next((row.host for row in status.owners if row.name == name), "")


def ready_hosts(status: cluster_pb2.GetStatusResponse, service: str) -> list[str]:
    """Hosts of the instances of a service that take traffic, one per instance."""
    found = next((item for item in status.services if item.spec.name == service), None)
    if found is None:
        return []
    return sorted(item.instance.partition("@")[2].partition("#")[0] for item in found.instances if item.ready)


def what_is_missing(seen: list[cluster_pb2.GetStatusResponse], expected: int) -> str:
    """Why this is not a whole cluster; empty when it is."""
    if len(seen) != expected:
        return f"only {[status.host_id for status in seen]} answer"
    checks: list[tuple[str, Callable[[cluster_pb2.GetStatusResponse], bool]]] = [
        ("agrees on the leader", lambda s: s.leader == seen[0].leader != ""),
        ("has its lease", lambda s: not s.fenced_reason),
        (
            "sees all alive and voting",
            lambda s: (
                [(h.role, h.status) for h in s.hosts]
                == expected * [(membership_pb2.MEMBER_ROLE_VOTER, membership_pb2.HOST_STATUS_ALIVE)]
            ),
        ),
        ("sees the leader own the virtual IP", lambda s: owner(s) == s.leader),
        ("sees nobody as successor", lambda s: not any(row.successor for row in s.owners)),
        ("has every service ready", lambda s: all(is_ready(service) for service in s.services)),
    ]
    for what, holds in checks:
        late = [status.host_id for status in seen if not holds(status)]
        if late:
            return f"not true of {late}: {what}"
    return ""


def is_ready(service: supervisor_pb2.Service) -> bool:
    """As many instances as declared take traffic."""
    return service.stopped or sum(item.ready for item in service.instances) >= service.spec.instances_min


def remove_cgroups(host: Host) -> None:
    """Delete the empty groups that a killed sidecar left."""
    from mesh.adapters.cgroup import find_hierarchies

    found = find_hierarchies(host.name, str(host.run_dir))
    for name in found.leaves():
        for root in (found.unified, found.memory):
            if root is not None:
                with contextlib.suppress(OSError):
                    (root / name).rmdir()
    found.remove()


def error_code(call: Callable[[], object]) -> grpc.StatusCode:
    """How a call ended."""
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
