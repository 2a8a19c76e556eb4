"""Loopback networks for clusters under test, so that several run beside each other on one machine."""

import socket
from types import TracebackType
from typing import Self

FIRST, LAST = 60, 239
LOCK_PORT = 7399
VIRTUAL, RESOURCE = 100, 200


class LoopbackNetwork:
    """One 127.0.N.0/24 for one cluster, as long as this object is open.

    Invariant: its lock is a bound port, so no other process has the same network,
    and it is free again however this one ends.
    """

    def __init__(self) -> None:
        for number in range(FIRST, LAST):
            lock = socket.socket()
            try:
                lock.bind((f"127.0.{number}.254", LOCK_PORT))
            except OSError:
                lock.close()
                continue
            self._lock, self._prefix = lock, f"127.0.{number}"
            return
        raise AssertionError("no loopback network is free: too many clusters run on this machine")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give it back."""
        self._lock.close()

    def ip(self, number: int) -> str:
        """The address of host *number*, from 1."""
        return f"{self._prefix}.{number}"

    @property
    def virtual_ip(self) -> str:
        """Of the cluster."""
        return self.ip(VIRTUAL)

    @property
    def interface(self) -> str:
        """None: on loopback the owner's Envoy only listens."""
        return ""

    def inside(self, number: int) -> tuple[str, ...]:
        """Words before a command that is to run on host *number*: none."""
        return ()

    def listen_for_resource(self) -> socket.socket:
        """A listening socket that every host reaches, whatever is cut."""
        return socket.create_server((self.ip(RESOURCE), 0), backlog=64)

    def holders(self, port: int) -> list[str]:
        """Who listens on the virtual IP now, as socket inodes."""
        return listeners("/proc/net/tcp", self.virtual_ip, port)


def listeners(table: str, ip: str, port: int) -> list[str]:
    """Inodes of the sockets that listen on the address, from a /proc table (proc(5))."""
    wanted = f"{int.from_bytes(socket.inet_aton(ip), 'little'):08X}:{port:04X}"
    with open(table) as lines:
        rows = [line.split() for line in lines]
    return [row[9] for row in rows if row[1] == wanted and row[3] == "0A"]
