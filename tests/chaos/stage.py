"""What faults act on: three hosts in namespaces on a switch, and what is known of them while faults last."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

from trellis.certificate.v1 import certificate_pb2, certificate_pb2_grpc
from trellis.cluster.v1 import cluster_pb2

from mesh import errors
from mesh.identity.keys import key_to_pem, make_csr, new_key
from mesh.identity.names import tls_name
from mesh.ids import ClusterId, HostId
from tests.chaos.clients import Door, Plan
from tests.harness.cluster import Cluster
from tests.harness.database_cluster import DatabaseCluster
from tests.harness.host import PORT, Host
from tests.harness.inserts import Inserts, Standstill
from tests.harness.namespaces import NamespaceNetwork
from tests.harness.waiting import wait_for

DISK_MIB = 48
#: Until a host that goes on after its lease has given everything up.
STALE_NS = 2_000_000_000
#: With a database on it.
DATA_MIB = 640


class Stage:
    """A founded cluster on a network, and its clients. Closing is up to whoever made the cluster."""

    def __init__(
        self, cluster: Cluster, network: NamespaceNetwork, database: DatabaseCluster | None = None
    ) -> None:
        self.cluster = cluster
        self.network = network
        self.database = database
        #: Clients of it, while there are some: they are on hosts, and no part of them.
        self.inserts: Inserts | None = None
        self._seen: dict[str, int] = {}

    # ---- looking --------------------------------------------------------------------

    def number(self, host: Host) -> int:
        """Of a host in its network."""
        return self.cluster.hosts.index(host) + 1

    def others(self, host: Host) -> list[Host]:
        return self.cluster.others(host)

    def primary(self) -> Host | None:
        """The host that takes writes of the database."""
        return self.database.find_open() if self.database is not None else None

    def processes(self, number: int) -> list[int]:
        """Every process of a host but the clients on it."""
        spared = {client.pid for client in self.inserts.clients} if self.inserts is not None else set()
        return [pid for pid in self.network.processes(number) if pid not in spared]

    def stood_still(self, host: Host, from_ns: int, to_ns: int) -> None:
        """No process of it ran: what was under way there then arrives late, and nobody could stop it."""
        self.cluster.resource.excused.append((host.name, from_ns, to_ns + STALE_NS))
        if self.inserts is not None:
            self.inserts.standstills.append(Standstill(host, from_ns, to_ns))

    def ended(self) -> list[Host]:
        """Hosts whose sidecar does not run."""
        return [host for host in self.cluster.hosts if not host.is_running()]

    def complaints(self) -> list[str]:
        """Bugs that sidecars have ended of since the last look."""
        found = []
        for host in self.cluster.hosts:
            entries = host.log()
            before, self._seen[host.name] = self._seen.get(host.name, 0), len(entries)
            fatal = [entry for entry in entries[before:] if entry.get("event") == "fatal"]
            found += [f"{host.name} ended of a bug: {entry}" for entry in fatal if not is_operating(entry)]
        return found

    # ---- acting ---------------------------------------------------------------------

    def run(self, *words: str, at: Sequence[str] = ()) -> str:
        """What a short command of the operating system says, at a host or at the switch. Fails: OSError."""
        done = subprocess.run([*at, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def program(self, argv: Sequence[str], name: str) -> int:
        """Start a program that ends with the cluster at the latest; its process id."""
        return self.cluster.processes.start(argv, self.cluster.directory / f"{name}.out")

    def end(self, pid: int) -> None:
        """End a program of `program`, unless it has."""
        self.cluster.processes.signal(pid, signal.SIGTERM)
        self.cluster.processes.wait_exit(pid, 30.0)

    def start(self, host: Host, *wrapped_in: str) -> None:
        """Run its sidecar, unless it does."""
        if not host.is_running():
            host.start(wrapped_in)

    def kill(self, host: Host) -> None:
        """Its sidecar, unless it has ended."""
        if self.cluster.processes.signal(host.pid, signal.SIGKILL):
            host.wait_exit()

    def power_off(self, host: Host) -> None:
        """The whole machine: silent at once, then no process of it is left, nor what a reboot loses."""
        number = self.number(host)
        self.network.link_down(number)
        self.kill_all(number)
        host.wait_exit()
        self.network.forget_virtual_ip(number)
        host.close()
        shutil.rmtree(host.run_dir)

    def kill_all(self, number: int) -> None:
        """Every process on a host; a process that is starting another is looked for again."""

        def none_left() -> bool:
            left = self.processes(number)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        wait_for(none_left, f"no process runs on host {number}", 10.0)

    # ---- clients --------------------------------------------------------------------

    def plans(self, seed: str, pause_s: float) -> list[Plan]:
        """Clients on every host by its socket, and clients elsewhere on the network by TLS."""
        directory = self.cluster.directory
        sockets = [Door(host.name, f"unix:{host.run_dir / 'admin.sock'}") for host in self.cluster.hosts]
        cluster_id = ClusterId(self._status().cluster_id)
        mesh = [
            Door(host.name, f"{host.ip}:{PORT}", tls_name(HostId(host.name), cluster_id))
            for host in self.cluster.hosts
        ]
        return [
            Plan("s", tuple(sockets), str(directory / "s.jsonl"), "chaos", seed, pause_s),
            Plan("t", tuple(mesh), str(directory / "t.jsonl"), "chaos", seed, pause_s, self._operator()),
        ]

    def _status(self) -> cluster_pb2.GetStatusResponse:
        status = self.cluster.hosts[0].status()
        assert status is not None
        return status

    def _operator(self) -> tuple[str, ...]:
        """Paths of an operator's key, certificate, and what to trust."""
        key = new_key()
        stub = certificate_pb2_grpc.CertificateServiceStub(self.cluster.hosts[0].channel)
        request = certificate_pb2.IssueOperatorCertificateRequest(
            name="chaos", csr_pem=make_csr(key, "chaos")
        )
        issued = stub.IssueOperatorCertificate(request, timeout=10.0)
        directory = self.cluster.directory
        files = {
            "operator.key": key_to_pem(key),
            "operator.pem": issued.certificate_pem,
            "trusted.pem": issued.ca_pem,
        }
        for name, content in files.items():
            (directory / name).write_bytes(content)
        return tuple(str(directory / name) for name in files)


def is_operating(entry: dict[str, object]) -> bool:
    """The error that ended a sidecar is one that an operator can act on."""
    kind = getattr(errors, str(entry.get("kind")), None)
    return isinstance(kind, type) and issubclass(kind, errors.TrellisError)
