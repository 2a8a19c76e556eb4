"""Patroni with etcd beside Trellis: three hosts, each with a member of etcd, Patroni and PostgreSQL.

etcd is the installed program at its own defaults. Patroni is the installed one, or the newest of
the package registry, put into a folder of the benchmark's own. Quorum commit of one standby, as Trellis does
it; without TLS, which favours Patroni a little.
"""

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.command import CannotMeasure
from benchmarks.database_hosts import (
    PASSWORD,
    ROLE,
    ask,
    inside,
    make_table,
    outside,
    wait_whole,
)
from benchmarks.namespaces import PREFIX, Network
from benchmarks.programs import Programs, find, output_of
from benchmarks.trellis_database import check_programs
from mesh.errors import Unavailable
from sidecar.postgres.engine.binaries import find_binaries
from sidecar.postgres.engine.layout import choose_user

#: In seconds. The second set is the least that Patroni 4 takes.
DEFAULTS: Final = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}
TIGHT: Final = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}

PORT: Final = 5432
SCOPE: Final = "bench"
USER: Final = "postgres"
PACKAGES: Final = ("patroni[etcd3]==4.*", "psycopg[binary]")
_AS_USER: Final = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups")
_INSTALL_S: Final = 180.0
_COMMAND_S: Final = 10.0
_SWITCH_S: Final = 60.0


@dataclass
class Patroni:
    """See `benchmarks.database_hosts.Databases`."""

    lan: Network
    programs: Programs
    directory: Path
    program: Path
    name: str

    def socket(self, host: str) -> tuple[Path, int, str]:
        """Everybody on the host is superuser there."""
        return self._own(host), PORT, "postgres"

    def data(self, host: str) -> Path:
        """Its data directory."""
        return self._own(host) / "data"

    def client(self, primary: str, *, inside: bool = False) -> tuple[Sequence[str], list[str]]:
        """On a host of its own; lanes begin with different servers, so not all with a lost one."""
        addresses = [f"{self._ip(host)}:{PORT}" for host in self.lan.hosts]
        turned = [addresses[first:] + addresses[:first] for first in range(len(addresses))]
        urls = [
            f"postgresql://{ROLE}:{PASSWORD}@{','.join(each)}/{ROLE}"
            "?target_session_attrs=read-write&sslmode=disable"
            for each in turned
        ]
        return (_inside(self.lan, primary) if inside else outside(self.lan)), urls

    async def start(self, host: str) -> None:
        """etcd, then Patroni."""
        await self.programs.start(f"etcd-{host}", (*_inside(self.lan, host), *self._etcd(host)))
        home = ("env", f"HOME={self._own(host)}", f"--chdir={self._own(host)}")
        argv = (*_inside(self.lan, host), *_AS_USER, *home, str(self.program), str(self._settings(host)))
        await self.programs.start(f"patroni-{host}", argv)

    async def is_ready(self, primary: str) -> bool:
        """Commits wait for one of two standbys, which Patroni does once they may take over."""
        ((names,),) = await ask(self, primary, "SHOW synchronous_standby_names")
        return all(host in names for host in self.lan.hosts if host != primary)

    async def switch_over(self, primary: str, to: str) -> None:
        """By its own command."""
        control = str(self.program.with_name("patronictl"))
        words = ("switchover", SCOPE, "--leader", primary, "--candidate", to, "--force")
        argv = (*_inside(self.lan, to), control, "-c", str(self._settings(to)), *words)
        await output_of(argv, within_s=_SWITCH_S)

    # ---- its files ------------------------------------------------------------------

    def _ip(self, host: str) -> str:
        return f"{PREFIX}{self.lan.hosts.index(host) + 1}"

    def _own(self, host: str) -> Path:
        return self.directory / host

    def _settings(self, host: str) -> Path:
        return self._own(host) / "patroni.json"

    def write(self, host: str, timers: Mapping[str, int]) -> None:
        """The host's folder and settings. YAML reads JSON."""
        self._own(host).mkdir(mode=0o755)
        self._settings(host).write_text(json.dumps(self._shape(host, timers)))
        shutil.chown(self._own(host), USER)

    def _shape(self, host: str, timers: Mapping[str, int]) -> dict[str, Any]:
        ip = self._ip(host)
        binaries = find_binaries("", choose_user(""))
        return {
            "scope": SCOPE,
            "name": host,
            "restapi": {"listen": f"{ip}:8008", "connect_address": f"{ip}:8008"},
            "etcd3": {"hosts": [f"{self._ip(each)}:2379" for each in self.lan.hosts]},
            "bootstrap": {
                "dcs": {
                    **timers,
                    "synchronous_mode": "quorum",
                    "synchronous_node_count": 1,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True},
                },
                "initdb": ["data-checksums", {"encoding": "UTF8"}, {"auth-local": "trust"}],
            },
            "postgresql": {
                "listen": f"{ip}:{PORT}",
                "connect_address": f"{ip}:{PORT}",
                "data_dir": str(self.data(host)),
                "bin_dir": str(binaries.folder),
                "pgpass": str(self._own(host) / "pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": PASSWORD},
                    "replication": {"username": "replicator", "password": PASSWORD},
                    "rewind": {"username": "rewinder", "password": PASSWORD},
                },
                "parameters": {"unix_socket_directories": str(self._own(host))},
                "pg_hba": [
                    "local all all trust",
                    "host all all all scram-sha-256",
                    "host replication replicator all scram-sha-256",
                ],
            },
            "watchdog": {"mode": "off"},
        }

    def _etcd(self, host: str) -> list[str]:
        ip = self._ip(host)
        peers = ",".join(f"{each}=http://{self._ip(each)}:2380" for each in self.lan.hosts)
        return [
            find("etcd", "apt install etcd-server"),
            *("--name", host, "--data-dir", str(self.directory / f"etcd-{host}.data")),
            *(
                "--listen-peer-urls",
                f"http://{ip}:2380",
                "--initial-advertise-peer-urls",
                f"http://{ip}:2380",
            ),
            *("--listen-client-urls", f"http://{ip}:2379", "--advertise-client-urls", f"http://{ip}:2379"),
            *("--initial-cluster", peers, "--initial-cluster-state", "new", "--logger", "zap"),
        ]


_inside = inside


@asynccontextmanager
async def running_patroni(lan: Network, directory: Path, timers: Mapping[str, int]) -> AsyncIterator[Patroni]:
    """Patroni on three hosts. Fails: `CannotMeasure` when it, etcd or PostgreSQL cannot be had."""
    check_programs()
    find("etcd", "apt install etcd-server")
    program = await _program(directory.parent / "patroni")
    # PostgreSQL is not root and must reach its data.
    directory.parent.chmod(0o755)
    directory.chmod(0o755)
    async with Programs(directory) as programs:
        kind = "defaults" if timers == DEFAULTS else "tight"
        patroni = Patroni(lan, programs, directory, program, f"patroni_{kind}")
        for host in lan.hosts:
            patroni.write(host, timers)
            await patroni.start(host)
        await wait_whole(patroni)
        await make_table(patroni)
        yield patroni


async def _program(folder: Path) -> Path:
    """Patroni's program. Fails: `CannotMeasure`."""
    if found := shutil.which("patroni"):
        return Path(found)
    if not folder.exists():
        pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
        try:
            make = (await _python(), "-m", "venv", "--without-pip", str(folder))
            await output_of(make, within_s=_INSTALL_S)
            await output_of((*pip, "install", "-q", *PACKAGES), within_s=_INSTALL_S)
        except (Unavailable, OSError) as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise CannotMeasure(f"Patroni can be neither found nor installed: {error}") from None
    return folder / "bin" / "patroni"


async def _python() -> str:
    """An interpreter that PostgreSQL's user may run, too. Fails: `CannotMeasure`."""
    for program in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(Unavailable):
            # setpriv may still run what its user may not: env does it as that user.
            argv = (*_AS_USER, "env", program, "-c", "print(1)")
            said = await output_of(argv, within_s=_COMMAND_S)
            if said.strip() == "1":
                return program
    raise CannotMeasure(f"no Python can be run by the user {USER}")
