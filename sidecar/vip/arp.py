"""ARP packets as whole Ethernet frames.

Source: RFC 826 (layout), RFC 5227 (probe, announcement).
"""

import struct
from ipaddress import IPv4Address
from typing import Final

ETHERTYPE: Final = 0x0806
REQUEST: Final = 1
REPLY: Final = 2
BROADCAST: Final = b"\xff" * 6
_NOBODY: Final = b"\0" * 6
_LAYOUT: Final = struct.Struct("!6s6sHHHBBH6s4s6s4s")


def _frame(mac: bytes, operation: int, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    return _LAYOUT.pack(
        BROADCAST, mac, ETHERTYPE, 1, 0x0800, 6, 4, operation, mac, sender, target_mac, target
    )


def probe(mac: bytes, address: IPv4Address) -> bytes:
    """Asks who has the address, without entering anything into anybody's cache."""
    return _frame(mac, REQUEST, b"\0" * 4, _NOBODY, address.packed)


def announcements(mac: bytes, address: IPv4Address) -> tuple[bytes, bytes]:
    """Gratuitous request and reply: some neighbours learn from one, some from the other."""
    return (
        _frame(mac, REQUEST, address.packed, _NOBODY, address.packed),
        _frame(mac, REPLY, address.packed, BROADCAST, address.packed),
    )


def claimant(frame: bytes, address: IPv4Address) -> bytes | None:
    """The MAC address that this frame says has `address`; None if it says nothing of it."""
    if len(frame) < _LAYOUT.size:
        return None
    _, _, ethertype, hardware, protocol, _, _, _, sender_mac, sender, _, _ = _LAYOUT.unpack_from(frame)
    fits = (ethertype, hardware, protocol) == (ETHERTYPE, 1, 0x0800)
    return bytes(sender_mac) if fits and sender == address.packed else None


def rival_probe(frame: bytes, mac: bytes, address: IPv4Address) -> bytes | None:
    """The MAC address of another host that is probing for `address` right now (RFC 5227 §2.1.1)."""
    if len(frame) < _LAYOUT.size:
        return None
    _, _, ethertype, _, _, _, _, operation, sender_mac, sender, _, target = _LAYOUT.unpack_from(frame)
    fits = ethertype == ETHERTYPE and operation == REQUEST and sender == b"\0" * 4
    return bytes(sender_mac) if fits and target == address.packed and sender_mac != mac else None
