"""Gives each instance a port of its own that stays the same over restarts.

A name's port is sought first where it was, then from a place that depends on
the name only: so it comes back after a restart of the sidecar too, without
anything being written down.
"""

import socket
import zlib

from mesh.errors import Unavailable


class PortAllocator:
    """Ports of one address, from `port_min` to `port_max` inclusive.

    Invariant: no two names hold the same port.
    """

    def __init__(self, address: str, port_min: int, port_max: int) -> None:
        self._address = address
        self._first = port_min
        self._count = port_max - port_min + 1
        self._of: dict[str, int] = {}
        self._taken: set[int] = set()

    def give(self, name: str) -> int:
        """The port of *name*, checked to be free: call only while nothing listens there.

        Fails: Unavailable when every port of the range is in use.
        """
        held = self._of.get(name)
        if held is not None and self._is_free(held):
            return held
        self.release(name)
        start = zlib.crc32(name.encode())
        for step in range(self._count):
            port = self._first + (start + step) % self._count
            if port not in self._taken and self._is_free(port):
                self.hold(name, port)
                return port
        raise Unavailable(
            f"no free port from {self._first} to {self._first + self._count - 1} on"
            f" {self._address}: widen the range in the settings",
        )

    def hold(self, name: str, port: int) -> None:
        """Note that *name* listens on *port* already."""
        self.release(name)
        self._of[name] = port
        self._taken.add(port)

    def release(self, name: str) -> None:
        """Take the port of *name* back, if it has one."""
        port = self._of.pop(name, None)
        if port is not None:
            self._taken.discard(port)

    def _is_free(self, port: int) -> bool:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A listener still forbids it; connections on their way out do not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._address, port))
            except OSError:
                return False
        return True
