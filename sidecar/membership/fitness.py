"""What a machine must have before it may join: memory, disk, the cluster's subnet, free ports.

The version and the clock are compared by the host that admits it.
"""

import ipaddress
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from mesh import limits
from mesh.errors import Problem
from mesh.settings.model import HostSettings
from mesh.settings.ports import check_ports
from mesh.settings.values import parse_endpoint


def check_fitness(settings: HostSettings, cluster_addresses: tuple[str, ...]) -> tuple[Problem, ...]:
    """Everything that keeps this machine from joining the hosts at *cluster_addresses*."""
    return (
        *_memory(settings),
        *_disk(settings),
        *_subnet(settings, cluster_addresses),
        *check_ports(settings),
    )


def _memory(settings: HostSettings) -> Iterator[Problem]:
    present_mib = psutil.virtual_memory().available // limits.MIB
    if present_mib < settings.join.memory_mib_min:
        yield Problem(
            "join.memory_mib_min",
            f"{present_mib} MiB of memory are available, {settings.join.memory_mib_min} are needed",
        )


def _disk(settings: HostSettings) -> Iterator[Problem]:
    folder = _existing(settings.host.data_dir)
    present_mib = shutil.disk_usage(folder).free // limits.MIB
    if present_mib < settings.join.disk_mib_min:
        yield Problem(
            "join.disk_mib_min",
            f"{present_mib} MiB are free at {folder}, {settings.join.disk_mib_min} are needed",
        )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _subnet(settings: HostSettings, addresses: tuple[str, ...]) -> Iterator[Problem]:
    own = settings.mesh.address
    network = _network_of(own.ip)
    if network is None:
        return  # not an address of this machine: check_ports says so
    for text in addresses:
        other = ipaddress.ip_address(parse_endpoint(text).ip)
        if other not in network:
            yield Problem(
                "mesh.address",
                f"{own.ip} is in {network}, and {other} of the cluster is not:"
                " the virtual address can only move inside one subnet",
            )


def _network_of(ip: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    wanted = ipaddress.ip_address(ip)
    if wanted.is_loopback and wanted.version == 4:
        return ipaddress.IPv4Network("127.0.0.0/8")
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.netmask and each.address.partition("%")[0] == str(wanted):
                return ipaddress.ip_network(f"{wanted}/{_prefix(each.netmask)}", strict=False)
    return None


def _prefix(netmask: str) -> int:
    return int(ipaddress.ip_address(netmask)).bit_count()
