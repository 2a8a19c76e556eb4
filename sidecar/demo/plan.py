"""Where everything of a demo cluster lies: directories, addresses, ports, settings files.

Every address is of 127.0.0.0/8, which any user may bind, so no root is needed.

Absent here: starting anything (stage.py).
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.errors import InvalidRequest, Problem, Unavailable
from mesh.limits import SOCKET_PATH_BYTES_MAX
from sidecar.demo.database import DemoDatabase

HOSTS: Final = ("host1", "host2", "host3")
VIRTUAL_ADDRESS: Final = "127.0.0.100"
#: Ports of one host, moved together in steps of 100 until all are free.
MESH, JOIN, VIRTUAL, NORTHBOUND, XDS, PROMETHEUS = 7400, 7401, 7480, 8480, 18_400, 9464
SERVICES, PORTS_PER_RANGE = 20_400, 90
DATABASE, DATABASE_CLIENTS = 15_432, 16_432

_SETTINGS: Final = """\
# Made by `trellis demo`.
[host]
name = "{name}"
data_dir = "{directory}/data"
run_dir = "{directory}/run"
log_dir = "{directory}/log"

[mesh]
address = "{ip}:{mesh}"
join_address = "{ip}:{join}"

[northbound]
address = "{ip}:{northbound}"

[virtual_ip]
address = "{virtual_address}"
port = {virtual}

[envoy]
concurrency = 1

[xds]
address = "{ip}:{xds}"

[services]
listen = "{ip}"
port_min = {services}
port_max = {services_max}

[telemetry]
prometheus = "{ip}:{prometheus}"

[development]
mode = true
"""

_DATABASE: Final = """
[database]
user = "{user}"
bin_dir = "{folder}"
port = {database}
client_address = "{ip}:{clients}"
"""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host of the demo."""

    name: str
    ip: str
    directory: Path
    shift: int
    #: None: the demo has no database.
    database: DemoDatabase | None = None

    @property
    def settings_path(self) -> Path:
        """Its settings file."""
        return self.directory / "settings.toml"

    @property
    def admin_socket(self) -> Path:
        """Where its sidecar takes operators' calls."""
        return self.directory / "run" / "admin.sock"

    @property
    def log_path(self) -> Path:
        """What its sidecar prints."""
        return self.directory / "sidecar.log"

    @property
    def northbound(self) -> str:
        """Its own address for clients."""
        return f"{self.ip}:{NORTHBOUND + self.shift}"

    def settings(self) -> str:
        """The text of its settings file."""
        text = _SETTINGS.format(
            name=self.name,
            directory=self.directory,
            ip=self.ip,
            mesh=MESH + self.shift,
            join=JOIN + self.shift,
            northbound=NORTHBOUND + self.shift,
            virtual_address=VIRTUAL_ADDRESS,
            virtual=VIRTUAL + self.shift,
            xds=XDS + self.shift,
            prometheus=PROMETHEUS + self.shift,
            services=SERVICES + self.shift,
            services_max=SERVICES + self.shift + PORTS_PER_RANGE,
        )
        if self.database is None:
            return text
        return text + _DATABASE.format(
            user=self.database.user,
            folder=self.database.folder,
            ip=self.ip,
            database=DATABASE + self.shift,
            clients=DATABASE_CLIENTS + self.shift,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole demo."""

    directory: Path
    shift: int
    database: DemoDatabase | None = None

    @property
    def hosts(self) -> tuple[HostPlan, ...]:
        """Its hosts, in order."""
        return tuple(
            HostPlan(name, f"127.0.0.{number}", self.directory / name, self.shift, self.database)
            for number, name in enumerate(HOSTS, start=1)
        )

    @property
    def virtual_address(self) -> str:
        """Where clients call, whoever leads."""
        return f"{VIRTUAL_ADDRESS}:{VIRTUAL + self.shift}"

    @property
    def ward_path(self) -> Path:
        """Record of the process that owns everything the demo started."""
        return self.directory / "ward.json"


def make_plan(directory: Path) -> Plan:
    """A plan for a new directory, with ports that are free now.

    Fails: `InvalidRequest` when the directory's name is too long for sockets,
    `Unavailable` when no set of ports is free.
    """
    longest = directory / HOSTS[0] / "run" / "service.sock"
    if len(bytes(longest)) > SOCKET_PATH_BYTES_MAX:
        reason = f"makes socket paths of {len(bytes(longest))} bytes; at most {SOCKET_PATH_BYTES_MAX} fit"
        problem = Problem("--directory", reason, "demo, below a short path")
        raise InvalidRequest("The demo was not started.", [problem])
    for shift in range(0, 2000, 100):
        if all(_is_free(address, port) for address, port in _listeners(shift)):
            return Plan(directory, shift)
    raise Unavailable("No free ports for the demo on 127.0.0.1 to 127.0.0.3: end another demo first.")


def _listeners(shift: int) -> Iterator[tuple[str, int]]:
    for number in range(1, len(HOSTS) + 1):
        for port in (MESH, JOIN, NORTHBOUND, XDS, PROMETHEUS, SERVICES, DATABASE, DATABASE_CLIENTS):
            yield f"127.0.0.{number}", port + shift
    yield VIRTUAL_ADDRESS, VIRTUAL + shift


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
