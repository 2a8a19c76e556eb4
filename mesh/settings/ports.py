"""Whether the addresses and ports of a settings file can be had on this machine now."""

import errno
import socket
from typing import Final

import psutil

from mesh.errors import Problem
from mesh.settings.model import HostSettings
from mesh.settings.rules import listeners_of
from mesh.settings.values import Endpoint, parse_endpoint

_NOT_TRIED: Final = ("virtual_ip.port", "database.port")
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def check_ports(settings: HostSettings) -> tuple[Problem, ...]:
    """A problem for every listener whose address is not here or whose port is taken.

    Left out: the virtual address, which comes and goes with ownership, and that of the
    database, which may still be running.
    """
    tables = {name: getattr(settings, name) for name in HostSettings.model_fields}
    listeners = {key: at for key, at in listeners_of(tables).items() if key not in _NOT_TRIED}
    problems = [_try_to_bind(key, at) for key, at in listeners.items()]
    return tuple(problem for problem in problems if problem is not None)


def why_not(key: str, address: str) -> Problem:
    """Why "ip:port" could not be listened on a moment ago, with who has it and what to do."""
    now_free = Problem(key, f"{address} was in use; start again")
    return _try_to_bind(key, parse_endpoint(address)) or now_free


def _try_to_bind(key: str, endpoint: Endpoint) -> Problem | None:
    family = socket.AF_INET6 if ":" in endpoint.ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            # As a server would: a port in TIME_WAIT is free, one with a listener is not.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((endpoint.ip, endpoint.port))
            listener.listen(1)
    except OSError as error:
        return Problem(key, _reason(endpoint, error))
    return None


def _reason(endpoint: Endpoint, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = _owner_of(endpoint)
        return f"{endpoint} is taken{f' by {owner}' if owner else ''}; stop it or choose another port"
    if error.errno in _NOT_HERE:
        return f"{endpoint.ip} is not an address of this machine; see `ip address`"
    if error.errno == errno.EACCES:
        return f"{endpoint} needs a privilege this user does not have; choose a port above 1023"
    return f"{endpoint} cannot be used: {error.strerror}"


def _owner_of(endpoint: Endpoint) -> str:
    """Program and process that listen there, as far as this user may see; else empty."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.pid is None or not connection.laddr:
                continue
            if connection.laddr.port == endpoint.port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""
