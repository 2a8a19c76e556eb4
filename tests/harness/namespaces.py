"""Hosts in network namespaces on one bridge, and the faults of a network.

Two networks: one carries the mesh and the clients and is what gets cut; the
other leads to the fenced resource only and is never cut, so that a host that is
isolated from its peers could still do harm there.

Needs root and `ip` (iproute2): a netlink library would fork a process with gRPC threads for each namespace.
"""

import ctypes
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Thread
from typing import BinaryIO, TypeVar

from tests.harness.addresses import listeners

Made = TypeVar("Made")
MESH, RESOURCE = "10.77.0", "10.78.0"
PREFIX = 24
CLIENT, SWITCH = 50, 250
NOBODY_MAC = "02:00:00:00:00:01"
CLONE_NEWNET = 0x40000000


def ip(*words: str, batch: Sequence[str] = ()) -> None:
    """Run iproute2; *batch* are commands for its standard input."""
    done = subprocess.run(
        ["ip", *words, *(("-batch", "-") if batch else ())],
        input="\n".join(batch), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)} {batch}: {done.stderr.strip()}")


def why_not() -> str:
    """Why namespaces cannot be had here; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [program for program in ("ip", "nsenter") if shutil.which(program) is None]:
        return f"network namespaces need {' and '.join(missing)}"
    name = f"trl{os.getpid()}-probe"
    try:
        ip("netns", "add", name)
        ip("netns", "delete", name)
    except OSError as error:
        return f"network namespaces are not permitted here: {error}"
    return ""


class NamespaceNetwork:
    """A switch, hosts 1 to *hosts* and a client, each in a namespace of its own."""

    def __init__(self, hosts: int = 3) -> None:
        self._tag = f"trl{os.getpid()}-{next(_NUMBERS)}"
        self._numbers = [*range(1, hosts + 1), CLIENT]
        self._opened = ExitStack()
        #: Hosts that stand still whole; the kernel of a paused machine would not answer for its addresses.
        self.paused: set[int] = set()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        #: Of each host, kept open: they show its own namespace from anywhere.
        self._tables: dict[int, BinaryIO] = {
            number: self._opened.enter_context(self._enter(str(number), _open_addresses))
            for number in self._numbers[:-1]
        }

    def _make(self) -> None:
        for name in (self._name("sw"), *(self._name(str(number)) for number in self._numbers)):
            ip("netns", "add", name)
            self._opened.callback(ip, "netns", "delete", name)
        switch: list[str] = []
        for bridge, net in (("mesh", MESH), ("res", RESOURCE)):
            switch += [
                f"link add {bridge} type bridge",
                f"link set {bridge} up",
                f"address add {net}.{SWITCH}/{PREFIX} dev {bridge}",
            ]
            for number in self._numbers:
                inner, port = ("eth0" if net == MESH else "eth1"), f"{bridge}{number}"
                switch += [
                    f"link add {port} type veth peer name {inner} netns {self._name(str(number))}",
                    f"link set {port} master {bridge} up",
                ]
        ip("-n", self._name("sw"), batch=switch)
        for number in self._numbers:
            commands = [f"link set {interface} up" for interface in ("lo", "eth0", "eth1")]
            commands += [
                f"address add {net}.{number}/{PREFIX} dev {interface}"
                for net, interface in ((MESH, "eth0"), (RESOURCE, "eth1"))
            ]
            ip("-n", self._name(str(number)), batch=commands)

    def close(self) -> None:
        """Remove the namespaces; nothing may run in them any more."""
        self._opened.close()

    # ---- what a cluster needs of it --------------------------------------------------

    def ip(self, number: int) -> str:
        """The mesh address of a host."""
        return f"{MESH}.{number}"

    @property
    def virtual_ip(self) -> str:
        """Of the cluster."""
        return f"{MESH}.100"

    @property
    def interface(self) -> str:
        """That carries the mesh and the virtual IP on each host."""
        return "eth0"

    def inside(self, number: int) -> tuple[str, ...]:
        """Words before a command that is to run on a host."""
        return ("nsenter", f"--net=/var/run/netns/{self._name(str(number))}")

    @property
    def client(self) -> tuple[str, ...]:
        """Words before a command that is to run at the client."""
        return self.inside(CLIENT)

    @property
    def at_switch(self) -> tuple[str, ...]:
        """Words before a command that is to run where every host's cable ends."""
        return ("nsenter", f"--net=/var/run/netns/{self._name('sw')}")

    @property
    def removal(self) -> list[tuple[str, ...]]:
        """Commands that do what `close` does."""
        names = [self._name("sw"), *(self._name(str(number)) for number in self._numbers)]
        return [("ip", "netns", "delete", name) for name in names]

    def processes(self, number: int) -> list[int]:
        """Every process that runs on a host, the kernel's view."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self._name(str(number))], capture_output=True, text=True, check=True
        )
        return [int(word) for word in listed.stdout.split()]

    def forget_virtual_ip(self, number: int) -> None:
        """What a reboot does to the address."""
        if f"host{number}" in self.holders(0):
            ip("-n", self._name(str(number)), "address", "delete", f"{self.virtual_ip}/32", "dev", "eth0")

    def listen_for_resource(self) -> socket.socket:
        """A listening socket on the network that is never cut."""
        return self._enter("sw", lambda: socket.create_server((f"{RESOURCE}.{SWITCH}", 0), backlog=64))

    def holders(self, port: int) -> list[str]:
        """Hosts that have the virtual IP on their interface now."""
        del port
        held = [number for number, table in self._tables.items() if self._has_address(table)]
        return [f"host{number}" for number in held if number not in self.paused]

    def holds(self, number: int) -> bool:
        """A host has the virtual IP on its interface, also one that is paused."""
        return self._has_address(self._tables[number])

    def _has_address(self, table: BinaryIO) -> bool:
        table.seek(0)
        # A local address stands as "|-- 10.77.0.100", then "/32 host LOCAL" (fib_trie of proc(5)).
        lines = table.read().decode().splitlines()
        return any(
            line.strip() == f"|-- {self.virtual_ip}" and "host LOCAL" in after
            for line, after in itertools.pairwise(lines)
        )

    def listens(self, number: int, ip: str, port: int) -> bool:
        """A host has a socket that listens on the address."""
        return bool(self._enter(str(number), lambda: listeners("/proc/thread-self/net/tcp", ip, port)))

    # ---- faults -----------------------------------------------------------------------

    def isolate(self, number: int) -> None:
        """Cut a host off both ways and silently: its own link stays up, nothing passes."""
        ip("-n", self._name("sw"), "link", "set", f"mesh{number}", "nomaster")

    def rejoin(self, number: int) -> None:
        """Undo `isolate`."""
        ip("-n", self._name("sw"), "link", "set", f"mesh{number}", "master", "mesh")

    def link_down(self, number: int) -> None:
        """Take a host's cable out: it sees that its link is down."""
        ip("-n", self._name("sw"), "link", "set", f"mesh{number}", "down")

    def link_up(self, number: int) -> None:
        """Put it in again."""
        ip("-n", self._name("sw"), "link", "set", f"mesh{number}", "up")

    def mute(self, number: int, towards: Sequence[int]) -> None:
        """Nothing that the host sends to these arrives; what they send does (a one-way link)."""
        entries = [
            f"neigh replace {self.ip(other)} lladdr {NOBODY_MAC} dev eth0 nud permanent" for other in towards
        ]
        ip("-n", self._name(str(number)), batch=entries)

    def unmute_all(self, number: int) -> None:
        """Undo every `mute` of the host."""
        ip("-n", self._name(str(number)), "neigh", "flush", "dev", "eth0", "nud", "permanent")

    # ---- entering ---------------------------------------------------------------------

    def _name(self, part: str) -> str:
        return f"{self._tag}-{part}"

    def _enter(self, part: str, make: Callable[[], Made]) -> Made:
        """Call in a namespace, in a thread of its own that ends there; sockets made so stay in it."""
        made: list[Made] = []

        def enter() -> None:
            with open(f"/var/run/netns/{self._name(part)}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = Thread(target=enter)
        thread.start()
        thread.join()
        return made[0]


def _open_addresses() -> BinaryIO:
    return open("/proc/thread-self/net/fib_trie", "rb", buffering=0)


_NUMBERS = itertools.count(1)
