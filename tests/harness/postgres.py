"""A real PostgreSQL on loopback, in a directory of its own, ended by its process id.

The program refuses to run as root: started by root it runs as the user `postgres`.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from tests.harness.processes import Processes
from tests.harness.waiting import wait_for

#: Of another version than Debian's, for every test that runs PostgreSQL: the folder of its programs.
NAMED: Final = os.environ.get("TRELLIS_TEST_POSTGRES", "")
BINARIES: Final = Path(NAMED or "/usr/lib/postgresql/15/bin")
#: Where scripts/postgres.sh puts what it brings.
_BROUGHT: Final = Path(__file__).parents[2] / "build" / "postgres"
#: Of loopback, for this process of tests alone: nobody else takes its ports.
OWN_ADDRESS: Final = f"127.{64 + (os.getpid() >> 16) % 64}.{(os.getpid() >> 8) % 256}.{os.getpid() % 255 + 1}"
_USER: Final = "postgres"
_SETTINGS: Final = """
fsync = off
max_connections = 200
shared_buffers = 16MB
max_wal_senders = 4
autovacuum = off
"""


def why_not() -> str:
    """Why no server can be started here; empty when one can."""
    if not (BINARIES / "postgres").exists():
        return f"PostgreSQL is not installed at {BINARIES}"
    try:
        pwd.getpwnam(_USER)
    except KeyError:
        return f"there is no user {_USER} to run PostgreSQL as" if os.geteuid() == 0 else ""
    return ""


def brought(major: int) -> tuple[Path | None, str]:
    """The folder of the programs of another major version, or why there is none here."""
    found, why = _BROUGHT / str(major) / "bin_dir", _BROUGHT / str(major) / "why_not"
    if found.exists():
        return Path(found.read_text().strip()), ""
    reason = why.read_text().strip() if why.exists() else f"scripts/postgres.sh {major} brings it"
    return None, f"PostgreSQL {major} is not here: {reason}"


class Postgres:
    """One server; `new_database` gives each test a database of its own."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="trl-pg-", dir="/tmp"))
        self.port = free_port()
        self._numbers = iter(range(1, 1_000_000))
        as_user = ["/usr/bin/setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
        self._prefix = ["/usr/bin/env", f"--chdir={self.directory}", *(as_user if _is_root() else [])]
        self._processes = Processes()
        self._pid = 0
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        if _is_root():
            shutil.chown(self.directory, _USER, _USER)
        words = "-A trust -U postgres --no-sync -E UTF8 --locale=C"
        self._run("initdb", "-D", str(self.data), *words.split())
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
            settings.write(f"listen_addresses = '{OWN_ADDRESS}'\nport = {self.port}\n")
            settings.write(f"unix_socket_directories = '{self.directory}'\n")
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 127.0.0.0/8 trust\n")
        self.start()

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        argv = [*self._prefix, str(BINARIES / "postgres"), "-D", str(self.data)]
        self._pid = self._processes.start(argv, self.directory / "log")
        wait_for(self._answers, "PostgreSQL answers", 20.0)

    def kill(self) -> None:
        """As a crash: the postmaster and every backend, at once."""
        self._processes.signal(self._pid, signal.SIGQUIT)
        self._processes.wait_exit(self._pid, 20.0)

    def close(self) -> None:
        if self._pid and self._processes.code(self._pid) is None:
            self.kill()
        self._processes.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@{OWN_ADDRESS}:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def ask(self, query: str, *values: object, url: str = "") -> list[tuple[Any, ...]]:
        """Rows of a query; its own commit waits for nobody."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = local")
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def demand_standbys(self, names: str) -> None:
        """With a name that nobody has, every COMMIT waits for ever; empty: none waits."""
        self.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.ask("SELECT pg_reload_conf()")
        wait_for(lambda: self.ask("SHOW synchronous_standby_names") == [(names,)], "it is reloaded")

    def waiting_commits(self) -> list[int]:
        """Process ids of backends that wait for standbys."""
        rows = self.ask("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' ORDER BY pid")
        return [pid for (pid,) in rows]

    def _answers(self) -> bool:
        try:
            return self.ask("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def _run(self, program: str, *words: str) -> None:
        argv = [*self._prefix, str(BINARIES / program), *words]
        subprocess.run(argv, check=True, capture_output=True)


def free_port() -> int:
    """A port of `OWN_ADDRESS` where nobody listens now."""
    with socket.socket() as found:
        found.bind((OWN_ADDRESS, 0))
        return int(found.getsockname()[1])


def _is_root() -> bool:
    return os.geteuid() == 0
