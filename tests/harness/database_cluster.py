"""A cluster of real sidecars with a database, and what can happen to PostgreSQL on a host of it."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil
import psycopg
from trellis.database.v1 import database_pb2, database_pb2_grpc
from trellis.supervisor.v1 import supervisor_pb2

from mesh.ids import ServiceName
from mesh.state.service import ServiceSpec
from mesh.wire.service import encode_spec
from sidecar.postgres.engine.process import processes_in
from tests.harness.armed import start_armed, strikes
from tests.harness.cluster import Cluster, Network
from tests.harness.host import Host
from tests.harness.postgres import NAMED, why_not
from tests.harness.waiting import NotInTimeError, wait_for


def settings_with(programs: str) -> str:
    """Of a host with the database; *programs*: PostgreSQL's folder, empty for the one that is found."""
    named = f'bin_dir = "{programs}"\n' if programs else ""
    return f"[database]\n{named}[development]\nmode = true\n"


SETTINGS = settings_with(NAMED)
PORT = 5432
CLIENT_PORT = 6432
#: Of a busy machine; a copy or a rewind is in it.
WHOLE_S = 45.0
TABLE = """
CREATE TABLE entries (client text NOT NULL, number bigint NOT NULL);
GRANT SELECT, INSERT ON entries TO trellis_app
"""

__all__ = ["DatabaseCluster", "settings_with", "why_not"]


class DatabaseCluster:
    """Three hosts that carry one database, declared and whole. Closing ends everything."""

    def __init__(self, network: Network, settings: str = SETTINGS, *, dies_at: str = "") -> None:
        """*dies_at*: a failpoint at which the sidecar that makes the database dies once."""
        self.cluster = Cluster(network)
        self._url = ""
        try:
            self.cluster.directory.chmod(0o755)  # PostgreSQL runs as a user of its own
            for host in self.hosts:
                host.write_settings(settings)
            self.cluster.found(services=False)
            if dies_at:
                self._declare_and_die(dies_at)
            self._declare()
        except BaseException:
            self.close()
            raise

    def _declare(self) -> None:
        declared = self.hosts[0].trellis("db", "declare", "--wait", "--timeout", "60")
        assert declared.returncode == 0, declared.stderr
        primary = self.wait_whole()
        self.ask(primary, TABLE)
        self._url = self._ask_for_url()

    def _declare_and_die(self, place: str) -> None:
        for host in self.hosts:
            host.kill()
            start_armed(host, f"{place}=crash")
        self.cluster.wait_whole()
        declared = self.hosts[0].trellis("db", "declare")
        assert declared.returncode == 0, declared.stderr
        dead = wait_for(lambda: [each for each in self.hosts if not each.is_running()], f"death at {place}")
        assert strikes(dead[0].log_path) == [place]
        for host in self.hosts:
            if host.is_running():
                host.kill()
            host.start()
        self.cluster.wait_whole()

    @classmethod
    def over(cls, cluster: Cluster) -> Self:
        """The database that a test has declared in *cluster* itself."""
        made = cls.__new__(cls)
        made.cluster, made._url = cluster, ""
        return made

    @classmethod
    def declared_in(cls, cluster: Cluster) -> Self:
        """A database declared in a cluster that is founded; whoever made that closes it."""
        made = cls.over(cluster)
        made._declare()
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.cluster.close()

    @property
    def hosts(self) -> list[Host]:
        return self.cluster.hosts

    def others(self, *but: Host) -> list[Host]:
        return self.cluster.others(*but)

    # ---- looking ------------------------------------------------------------------------

    def status(self, host: Host, *, stale: bool = False) -> database_pb2.GetStatusResponse | None:
        """What a host says of the database; None when it does not answer."""
        stub = database_pb2_grpc.DatabaseServiceStub(host.channel)
        try:
            return stub.GetStatus(database_pb2.GetStatusRequest(stale_ok=stale), timeout=2.0)
        except grpc.RpcError:
            return None

    def find_open(self, *but: Host) -> Host | None:
        """The host that takes writes as primary, as the present primaryship has it."""
        for host in self.hosts:
            status = self.status(host, stale=True) if host.is_running() and host not in but else None
            if status is None:
                continue
            for row in status.members:
                is_it = row.host == status.primary and row.status.fencing_term == status.fencing_term
                if is_it and row.status.is_open and self.cluster.host(row.host) not in but:
                    return self.cluster.host(row.host)
        return None

    def wait_open(self, *but: Host, within_s: float = 30.0) -> Host:
        """The primary, once there is one, other than *but*."""
        return wait_for(lambda: self.find_open(*but), "a host takes writes", within_s)

    def find_whole(self) -> Host | None:
        """The primary, if every host is alive and the database is as it should be."""
        leader = self.cluster.leader()
        status = self.status(leader) if leader is not None else None
        return self.cluster.host(status.primary) if status is not None and is_whole(status) else None

    def wait_whole(self, within_s: float = WHOLE_S) -> Host:
        """The primary of a database that is as it should be: two standbys that stream, and both count."""
        self.cluster.wait_whole(within_s)
        seen: list[object] = []

        def look() -> Host | None:
            status = self.status(self.hosts[0])
            seen[:] = [status]
            return self.cluster.host(status.primary) if status is not None and is_whole(status) else None

        try:
            return wait_for(look, "the database is whole", within_s)
        except NotInTimeError as error:
            raise NotInTimeError(f"{error}: {seen}") from error

    def is_primary(self, host: Host) -> bool:
        """Its server is no standby."""
        return self.ask(host, "SELECT pg_is_in_recovery()") == [(False,)]

    def ask(self, host: Host, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows, from the server of this host itself, as its superuser; it waits for no standby."""
        with psycopg.connect(
            host=str(host.run_dir / "postgres"), port=PORT, user="trellis_admin", dbname="trellis",
            autocommit=True, connect_timeout=3,
        ) as connection:  # fmt: skip
            connection.execute("SET synchronous_commit = local")
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def url(self, host: Host) -> str:
        """What a service on this host is given to connect to."""
        return self._url.replace("@HOST/", f"@{self._listener(host)}/")

    def _listener(self, host: Host) -> str:
        ip = host.ip if host.ip.startswith("127.") else "127.0.0.1"
        return f"{ip}:{CLIENT_PORT}"

    def _ask_for_url(self) -> str:
        """From the environment of a service that needs the database."""
        told = self.cluster.directory / "url"
        script = f'umask 077; printf %s "$DATABASE_URL" > {told}.new; mv {told}.new {told}; exec sleep 1000'
        needy = ServiceSpec(ServiceName("url"), ("/bin/sh", "-c", script), database=True)
        spec = encode_spec(needy)
        services = self.hosts[0].services
        services.ApplyService(supervisor_pb2.ApplyServiceRequest(spec=spec), timeout=10.0)
        wait_for(told.exists, "a service has its URL", 20.0)
        services.StopService(supervisor_pb2.StopServiceRequest(name="url"), timeout=10.0)
        url = told.read_text()
        assert url.count("@") == 1, f"no URL: {url!r}"
        return f"{url.partition('@')[0]}@HOST/{url.rpartition('/')[2]}"

    # ---- processes ------------------------------------------------------------------------

    def data(self, host: Host) -> Path:
        """The data directory."""
        return host.data_dir / "postgres" / "data"

    def postmaster(self, host: Host) -> int:
        """The main process."""
        return int((self.data(host) / "postmaster.pid").read_text().split("\n", 1)[0])

    def servers(self, host: Host) -> list[int]:
        """Every process of its PostgreSQL."""
        return processes_in(self.data(host))

    def of_kind(self, host: Host, kind: str) -> list[int]:
        """Processes of its PostgreSQL that call themselves so."""
        return [pid for pid in self.servers(host) if f" {kind}" in _title(pid)]

    def conninfo(self, host: Host) -> str:
        """How a standby's server connects to the primary, by its certificate."""
        text = (host.data_dir / "postgres" / "conf" / "postgresql.conf").read_text()
        found = next(line for line in text.splitlines() if line.startswith("primary_conninfo = "))
        return found.removeprefix("primary_conninfo = '").removesuffix("'").replace("''", "'")

    def freeze_whole(self, host: Host) -> list[int]:
        """Sidecar, fence, Envoy, instances and PostgreSQL stand still; their process ids."""
        host.freeze()
        stopped: dict[int, psutil.Process] = {host.pid: psutil.Process(host.pid)}
        while new := [each for each in self._processes(host) if each.pid not in stopped]:
            for process in new:
                _send(process, signal.SIGSTOP)
                stopped[process.pid] = process
        return sorted(stopped)

    def power_off(self, *hosts: Host) -> None:
        """Sidecars, fences, Envoys and PostgreSQL die, all in one instant; a reboot's losses too."""
        left = [process for host in hosts for process in self._processes(host)]
        # All stand still first: nobody sees another one die and does something about it.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for host in hosts:
                if host.is_running():
                    host.signal(number)
            for process in left:
                _send(process, number)
        for host in hosts:
            host.wait_exit()
        names = ", ".join(host.name for host in hosts)
        wait_for(lambda: not any(map(_lives, left)) and not any(map(self.servers, hosts)), f"{names} off")
        for host in hosts:
            shutil.rmtree(host.run_dir)
            host.close()

    def _processes(self, host: Host) -> list[psutil.Process]:
        """What runs below its sidecar, and what an earlier sidecar of it left running."""
        mine = str(host.directory)
        found = psutil.Process(host.pid).children(recursive=True)
        below = psutil.Process(self.cluster.processes.pid).children(recursive=True)
        return found + [each for each in below if each not in found and _names(each, mine)]

    def heal(self) -> None:
        """After a test that failed halfway."""
        for host in self.hosts:
            if host.is_running():
                host.thaw()
            else:
                host.start()


def is_whole(status: database_pb2.GetStatusResponse) -> bool:
    """Somebody takes writes, and all others stream from it and count."""
    standbys = [row for row in status.members if row.host != status.primary]
    primary = next((row.status for row in status.members if row.host == status.primary), None)
    return (
        primary is not None
        and primary.is_open
        and primary.fencing_term == status.fencing_term
        and not status.successor
        and len(standbys) == len(status.published.voters) == 2
        and all(row.status.is_streaming for row in standbys)
        and len([view for view in status.servers if view.receives_from == status.primary]) == 2
        and any(len(view.sync_standbys) == 2 for view in status.servers if view.host == status.primary)
    )


def each_signal(pids: list[int], number: signal.Signals) -> None:
    """To each of these; one that is gone is left out."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _names(process: psutil.Process, folder: str) -> bool:
    """It is of this host, by its command or where it is."""

    def said(what: Callable[[], object]) -> str:
        try:
            return str(what())
        except (psutil.Error, OSError):
            return ""

    return f"{folder}/" in f"{said(process.cmdline)} {said(process.cwd)}/"


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
