"""Local ports that say where connections may lead: Envoy's health checks ask them.

Envoy closes the connections to a place of a layer-4 cluster when its health check fails, and at no other
time: not when the place is taken out. So each place gets a port of this process to ask, which is closed
when the place is the right one no longer.
"""

import asyncio
import socket

from sidecar.routing.model import DatabasePlace


class Pulses:
    """The place that connections lead to now, and the one before it. Used from one event loop."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._present: DatabasePlace | None = None
        self._former: DatabasePlace | None = None

    def lead_to(self, address: str) -> tuple[DatabasePlace, ...]:
        """Let connections lead to *address*, or with an empty one nowhere; what Envoy is to be told.

        Fails: `OSError` when no port is left.
        """
        if self._present is None or self._present.address != address:
            self.close()
            if address:
                self._open(address)
        return tuple(place for place in (self._present, self._former) if place is not None)

    def _open(self, address: str) -> None:
        if self._former is not None and self._former.address == address:
            self._former = None  # one place is told once
        listening = self._socket = socket.create_server(("127.0.0.1", 0), backlog=16)
        listening.setblocking(False)
        asyncio.get_running_loop().add_reader(listening, self._answer)
        self._present = DatabasePlace(address, listening.getsockname()[1])

    def _answer(self) -> None:
        """A health check: that it is let in is the answer."""
        assert self._socket is not None
        try:
            asking, _ = self._socket.accept()
        except OSError:  # it has gone already
            return
        asking.close()

    def close(self) -> None:
        """Connections lead nowhere."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        if self._present is not None:
            self._former = DatabasePlace(self._present.address, self._present.pulse_port, is_former=True)
        self._socket = self._present = None
