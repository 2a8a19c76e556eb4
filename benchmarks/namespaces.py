"""A small network on this machine: each host in a network namespace of its own, one bridge, one client.

The bridge is in a namespace too, so nothing of the machine's own network is touched.
Names carry this process's id; everything is removed at the end.

Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN).
"""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.cluster import Net
from benchmarks.command import CannotMeasure
from benchmarks.programs import find, output_of
from mesh.errors import Unavailable

PREFIX: Final = "10.80.0."
CLIENT: Final = "client"
BRIDGE: Final = "bridge"
COMMAND_S: Final = 10.0


@dataclass(frozen=True)
class Network:
    """A running network."""

    hosts: tuple[str, ...]

    def namespace(self, name: str) -> str:
        """Name of the namespace of a host, of the client or of the bridge."""
        return f"tb{os.getpid()}-{name}"

    @property
    def net(self) -> Net:
        """The hosts' addresses, and how to get there."""
        enter = ("ip", "netns", "exec", self.namespace("{host}"))
        return Net(PREFIX, "eth0", enter)

    async def link(self, host: str, *, up: bool) -> int:
        """Plug a host's cable in, or pull it out at the switch; the monotonic time of it."""
        at_ns = time.monotonic_ns()
        await _ip("-n", self.namespace(BRIDGE), "link", "set", host, "up" if up else "down")
        return at_ns


def client_namespace(network: Network) -> tuple[str, ...]:
    """What stands before the argv of a client."""
    return ("ip", "netns", "exec", network.namespace(CLIENT))


@asynccontextmanager
async def network(hosts: Sequence[str]) -> AsyncIterator[Network]:
    """The network for as long as the body runs. Fails: `CannotMeasure` without the right to make it."""
    find("ip", "apt install iproute2")
    lan = Network(tuple(hosts))
    names = [BRIDGE, CLIENT, *hosts]
    try:
        try:
            for name in names:
                await _ip("netns", "add", lan.namespace(name))
        except Unavailable as refused:
            raise CannotMeasure(
                f"network namespaces cannot be made here, root is needed: {refused}"
            ) from None
        await _wire_up(lan)
        yield lan
    finally:
        for name in names:
            with contextlib.suppress(Unavailable):  # was never made
                await _ip("netns", "delete", lan.namespace(name))


async def _wire_up(lan: Network) -> None:
    switch = lan.namespace(BRIDGE)
    await _ip("-n", switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
    await _ip("-n", switch, "link", "set", "br0", "up")
    for name, number in [(CLIENT, 200), *((host, number) for number, host in enumerate(lan.hosts, start=1))]:
        there = lan.namespace(name)
        await _ip("-n", switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", there)
        await _ip("-n", switch, "link", "set", name, "master", "br0", "up")
        await _ip("-n", there, "address", "add", f"{PREFIX}{number}/24", "dev", "eth0")
        await _ip("-n", there, "link", "set", "lo", "up")
        await _ip("-n", there, "link", "set", "eth0", "up")


async def _ip(*words: str) -> str:
    return await output_of(("ip", *words), within_s=COMMAND_S)
