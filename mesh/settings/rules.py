"""What the keys of a settings file demand of each other.

Each rule takes the tables that are right in themselves (a wrong one is left
out), so that one wrong key does not hide the others' problems.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Final, TypeVar

from mesh.errors import Problem
from mesh.failpoints.arming import arming_problems
from mesh.lease.timers import check_timers
from mesh.limits import SOCKET_PATH_BYTES_MAX
from mesh.settings.model import (
    Database,
    Development,
    Host,
    Mesh,
    Northbound,
    Section,
    Services,
    Telemetry,
    Timers,
    VirtualIp,
    Xds,
)
from mesh.settings.values import Endpoint

Tables = Mapping[str, Section]
Rule = Callable[[Tables], Iterator[Problem]]
S = TypeVar("S", bound=Section)
_LONGEST_SOCKET: Final = "envoy-admin.sock"


def check_rules(tables: Tables) -> tuple[Problem, ...]:
    """Every relation that does not hold."""
    return tuple(problem for rule in RULES for problem in rule(tables))


def _table(tables: Tables, name: str, kind: type[S]) -> S | None:
    found = tables.get(name)
    return found if isinstance(found, kind) else None


def sockets_fit(tables: Tables) -> Iterator[Problem]:
    """The longest path of a socket in run_dir is one that the kernel takes (unix(7))."""
    host = _table(tables, "host", Host)
    if host is None:
        return
    length = len(os.fsencode(host.run_dir / _LONGEST_SOCKET))
    if length > SOCKET_PATH_BYTES_MAX:
        yield Problem(
            "host.run_dir",
            f"makes paths of sockets of {length} bytes; the kernel takes {SOCKET_PATH_BYTES_MAX}",
            'run_dir = "/run/trellis"',
        )


def timers_fit(tables: Tables) -> Iterator[Problem]:
    """The rules of `mesh.lease.timers`, in the words of the file; and ticks divide heartbeats."""
    timers = _table(tables, "timers", Timers)
    if timers is None:
        return
    for problem in check_timers(
        heartbeat_ms=timers.heartbeat_ms,
        lease_ms=timers.lease_ms,
        clock_rate_error=timers.clock_rate_error,
        release_bound_ms=timers.release_bound_ms,
        election_min_ms=timers.election_ms_min,
        election_max_ms=timers.election_ms_max,
    ):
        path, sentence = _in_file_words(problem.path), _in_file_words(problem.problem)
        yield Problem(path, sentence, f"{path.rpartition('.')[2]} = {problem.example}")
    if timers.heartbeat_ms < timers.tick_ms or timers.heartbeat_ms % timers.tick_ms:
        yield Problem(
            "timers.tick_ms",
            f"heartbeat_ms = {timers.heartbeat_ms} is not a multiple of {timers.tick_ms}",
            f"tick_ms = {max(1, timers.heartbeat_ms // 2)}",
        )


def _in_file_words(text: str) -> str:
    return text.replace("election_min_ms", "election_ms_min").replace("election_max_ms", "election_ms_max")


def port_ranges_fit(tables: Tables) -> Iterator[Problem]:
    """The range that instances get their ports from is not empty."""
    services = _table(tables, "services", Services)
    if services and services.port_min > services.port_max:
        yield Problem(
            "services.port_max",
            f"{services.port_max} is less than port_min = {services.port_min}",
            f"port_max = {min(services.port_min + 999, 65_535)}",
        )


def listeners_of(tables: Tables) -> dict[str, Endpoint]:
    """Key path and endpoint of everything this host listens on, the virtual address included."""
    found: dict[str, Endpoint] = {}
    if mesh := _table(tables, "mesh", Mesh):
        found["mesh.address"] = mesh.address
        found["mesh.join_address"] = mesh.join_address
    if northbound := _table(tables, "northbound", Northbound):
        found["northbound.address"] = northbound.address
    if virtual_ip := _table(tables, "virtual_ip", VirtualIp):
        found["virtual_ip.port"] = virtual_ip.endpoint
    if xds := _table(tables, "xds", Xds):
        found["xds.address"] = xds.address
    if telemetry := _table(tables, "telemetry", Telemetry):
        found["telemetry.prometheus"] = telemetry.prometheus
    if database := _table(tables, "database", Database):
        found["database.client_address"] = database.client_address
        if database.port is not None:
            found["database.port"] = Endpoint(database.listen, database.port)
    return found


_ANY: Final = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound


def _clash(one: Endpoint, other: Endpoint) -> bool:
    return one.port == other.port and (one.ip == other.ip or one.ip in _ANY or other.ip in _ANY)


def ports_do_not_clash(tables: Tables) -> Iterator[Problem]:
    """No two listeners of the file want the same port."""
    listeners = listeners_of(tables)
    for (first, one), (second, other) in combinations(listeners.items(), 2):
        if _clash(one, other):
            yield Problem(
                second, f"{other} is already taken by {first} = {one}", _free(second, other, listeners)
            )
    yield from _inside_ranges(tables, listeners)


def _free(key: str, endpoint: Endpoint, listeners: Mapping[str, Endpoint]) -> str:
    taken = {each.port for each in listeners.values()}
    port = next(port for port in range(endpoint.port + 1, endpoint.port + 100) if port not in taken)
    name = key.rpartition(".")[2]
    return f"{name} = {port}" if name == "port" else f'{name} = "{endpoint.with_port(port)}"'


def _inside_ranges(tables: Tables, listeners: Mapping[str, Endpoint]) -> Iterator[Problem]:
    ranges = []
    if services := _table(tables, "services", Services):
        ranges.append(("services.port_min to port_max", services.port_min, services.port_max))
    for key, endpoint in listeners.items():
        for name, low, high in ranges:
            if low <= endpoint.port <= high:
                yield Problem(key, f"{endpoint} lies in the range of {name} ({low}-{high})")


def northbound_tls_is_whole(tables: Tables) -> Iterator[Problem]:
    """A certificate needs its key and a key its certificate."""
    northbound = _table(tables, "northbound", Northbound)
    if northbound and (northbound.tls_certificate is None) != (northbound.tls_key is None):
        missing = "tls_key" if northbound.tls_key is None else "tls_certificate"
        given = "tls_certificate" if missing == "tls_key" else "tls_key"
        suffix = "key" if missing == "tls_key" else "pem"
        yield Problem(
            f"northbound.{missing}",
            f"is needed because {given} is set",
            f'{missing} = "/etc/trellis/northbound.{suffix}"',
        )


def virtual_ip_has_an_interface(tables: Tables) -> Iterator[Problem]:
    """Only an address of 127.0.0.0/8 is there without being added to an interface."""
    virtual_ip = _table(tables, "virtual_ip", VirtualIp)
    if virtual_ip is None:
        return
    if not virtual_ip.is_listener_only and not virtual_ip.interface:
        yield Problem(
            "virtual_ip.interface",
            f"is needed to add {virtual_ip.address} to",
            'interface = "eth0"',
        )
    mesh = _table(tables, "mesh", Mesh)
    if mesh and mesh.address.ip == virtual_ip.address:
        yield Problem(
            "virtual_ip.address",
            f"{virtual_ip.address} is this host's own mesh address; the virtual address must be free to move",
            'address = "10.0.0.100"',
        )


def failpoints_can_be_armed(tables: Tables) -> Iterator[Problem]:
    """Faults on request never run in production by accident, and each is one that there is."""
    development = _table(tables, "development", Development)
    if development is None:
        return
    if development.failpoints and not development.mode:
        yield Problem("development.failpoints", "work in development mode only", "mode = true")
    yield from arming_problems(development.failpoints, "development.failpoints")


def database_can_be_reached_and_kept(tables: Tables) -> Iterator[Problem]:
    """Other hosts follow it at an address of its own, and its folder holds nothing else."""
    database, mesh = _table(tables, "database", Database), _table(tables, "mesh", Mesh)
    if database is None:
        return
    if database.user == "root":
        yield Problem("database.user", "PostgreSQL refuses to run as root", 'user = "postgres"')
    example = f'listen = "{mesh.address.ip if mesh else "10.0.0.1"}"'
    if database.listen in _ANY:
        yield Problem(
            "database.listen",
            f"{database.listen} is no address by which the other hosts can reach it",
            example,
        )
    elif mesh and Endpoint(database.listen, 1).is_loopback and not mesh.address.is_loopback:
        yield Problem("database.listen", f"{database.listen} cannot be reached by the other hosts", example)
    host = _table(tables, "host", Host)
    if host is None:
        return
    data_dir, archive = database.data_dir or host.data_dir / "postgres", database.archive_dir
    if archive is not None and (archive == data_dir or data_dir in archive.parents):
        yield Problem(
            "database.archive_dir",
            f"{archive} lies in the folder of the database ({data_dir}), and would be lost with it",
            'archive_dir = "/backups/wal"',
        )
    if database.data_dir is None:
        return
    for key in ("data_dir", "run_dir", "log_dir"):
        other = getattr(host, key)
        if other == database.data_dir or database.data_dir in other.parents:
            yield Problem(
                "database.data_dir",
                f"{database.data_dir} holds host.{key} ({other}), and is replaced as a whole",
                f'data_dir = "{host.data_dir / "postgres"}"',
            )
    if host.run_dir in database.data_dir.parents:
        yield Problem(
            "database.data_dir",
            f"{database.data_dir} lies in host.run_dir, which may vanish at boot",
            f'data_dir = "{host.data_dir / "postgres"}"',
        )


RULES: Final[tuple[Rule, ...]] = (
    sockets_fit,
    timers_fit,
    port_ranges_fit,
    ports_do_not_clash,
    northbound_tls_is_whole,
    virtual_ip_has_an_interface,
    failpoints_can_be_armed,
    database_can_be_reached_and_kept,
)
