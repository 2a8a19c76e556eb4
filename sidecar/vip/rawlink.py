"""Raw access to one interface: send and receive frames, notice that its link came up.

Both sockets stay open for the life of the driver: opening costs nothing that
matters, closing a packet socket waits 10 ms for the kernel.
"""

import ctypes
import socket
import struct
from typing import Final

from sidecar.vip import arp, ndp

_SO_ATTACH_FILTER: Final = 26
_FRAME_BYTES_MAX: Final = 2048
#: Frames and messages taken per call, so that a flood cannot hold the event loop.
_READS_MAX: Final = 64

_RTMGRP_LINK: Final = 1
_RTM_NEWLINK: Final = 16
_IFF_LOWER_UP: Final = 1 << 16

#: Classic BPF: IPv6 and next header ICMPv6 and type neighbour advertisement.
_ADVERTISEMENTS_ONLY: Final = (
    (0x28, 0, 0, 12),
    (0x15, 0, 5, ndp.ETHERTYPE),
    (0x30, 0, 0, 20),
    (0x15, 0, 3, ndp.ICMPV6),
    (0x30, 0, 0, 54),
    (0x15, 0, 1, ndp.ADVERTISEMENT),
    (0x06, 0, 0, _FRAME_BYTES_MAX),
    (0x06, 0, 0, 0),
)


class LinkSocket:
    """Sends any frame on an interface; receives ARP, or neighbour advertisements.

    Fails: PermissionError without CAP_NET_RAW, OSError when there is no such interface.
    """

    def __init__(self, interface: str, family: int) -> None:
        protocol = arp.ETHERTYPE if family == socket.AF_INET else ndp.ETHERTYPE
        # Protocol 0 receives nothing until the filter is in place and bind names the protocol.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            if family == socket.AF_INET6:
                self._filter()
            self._socket.bind((interface, protocol))
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self.mac: bytes = self._socket.getsockname()[4]

    def _filter(self) -> None:
        code = b"".join(struct.pack("=HBBI", *step) for step in _ADVERTISEMENTS_ONLY)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("@HP", len(_ADVERTISEMENTS_ONLY), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, frame: bytes) -> bool:
        """False when the link is down or busy; the next announcement repeats it."""
        try:
            self._socket.send(frame)
        except OSError:
            return False
        return True

    def receive(self) -> list[bytes]:
        """What has arrived, oldest first; at most `_READS_MAX`."""
        frames: list[bytes] = []
        while len(frames) < _READS_MAX:
            try:
                frames.append(self._socket.recv(_FRAME_BYTES_MAX))
            except OSError:  # nothing more, or the link went down
                break
        return frames

    def close(self) -> None:
        self._socket.close()


class LinkWatch:
    """Says when an interface's link comes up again."""

    def __init__(self, ifindex: int) -> None:
        self._ifindex = ifindex
        self._is_up = True
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, _RTMGRP_LINK))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def came_up(self) -> bool:
        """Read the news; True if the link went from down to up."""
        came_up = False
        for _ in range(_READS_MAX):
            try:
                news = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: news were lost, so an announcement too many is right
                came_up = True
                continue
            for is_up in link_states(news, self._ifindex):
                came_up = came_up or (is_up and not self._is_up)
                self._is_up = is_up
        return came_up

    def close(self) -> None:
        self._socket.close()


def link_states(news: bytes, ifindex: int) -> list[bool]:
    """Whether the link is up, for each RTM_NEWLINK about the interface in a netlink datagram."""
    states: list[bool] = []
    at = 0
    while at + 16 <= len(news):
        length, kind = struct.unpack_from("=IH", news, at)
        if length < 16:
            break
        if kind == _RTM_NEWLINK and length >= 32:
            index, flags = struct.unpack_from("=4xiI", news, at + 16)
            if index == ifindex:
                states.append(bool(flags & _IFF_LOWER_UP))
        at += (length + 3) & ~3
    return states
