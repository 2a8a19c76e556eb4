"""IPv6 neighbour discovery packets as whole Ethernet frames.

Source: RFC 4861 §4.3, §4.4 (messages), RFC 4862 §5.4 (duplicate detection),
RFC 8200 §8.1 (checksum), RFC 2464 §7 (multicast MAC addresses).
"""

import struct
from ipaddress import IPv6Address
from typing import Final

ETHERTYPE: Final = 0x86DD
ICMPV6: Final = 58
SOLICITATION: Final = 135
ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x20000000
_TARGET_MAC_OPTION: Final = 2
ALL_NODES: Final = IPv6Address("ff02::1")
_UNSPECIFIED: Final = IPv6Address("::")
_ETHERNET: Final = struct.Struct("!6s6sH")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_MESSAGE: Final = struct.Struct("!BBHI16s")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def solicited_node(address: IPv6Address) -> IPv6Address:
    """The multicast group that a holder of `address` listens to (RFC 4291 §2.7.1)."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def _frame(mac: bytes, source: IPv6Address, to: IPv6Address, message: bytes) -> bytes:
    pseudo = source.packed + to.packed + struct.pack("!IxxxB", len(message), ICMPV6)
    summed = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    header = _IPV6.pack(0x60000000, len(message), ICMPV6, 255, source.packed, to.packed)
    return _ETHERNET.pack(b"\x33\x33" + to.packed[12:], mac, ETHERTYPE) + header + summed


def probe(mac: bytes, address: IPv6Address) -> bytes:
    """Asks who has the address, as duplicate detection does: from ::, without an option."""
    message = _MESSAGE.pack(SOLICITATION, 0, 0, 0, address.packed)
    return _frame(mac, _UNSPECIFIED, solicited_node(address), message)


def announcement(mac: bytes, address: IPv6Address) -> bytes:
    """Unsolicited advertisement with the override flag: neighbours replace what they know."""
    option = struct.pack("!BB6s", _TARGET_MAC_OPTION, 1, mac)
    message = _MESSAGE.pack(ADVERTISEMENT, 0, 0, _OVERRIDE, address.packed) + option
    return _frame(mac, address, ALL_NODES, message)


def claimant(frame: bytes, address: IPv6Address) -> bytes | None:
    """The MAC address whose advertisement says it has `address`; None if it says nothing of it."""
    if len(frame) < _ETHERNET.size + _IPV6.size + _MESSAGE.size:
        return None
    _, source_mac, ethertype = _ETHERNET.unpack_from(frame)
    _, _, following, hops, _, _ = _IPV6.unpack_from(frame, _ETHERNET.size)
    kind, _, _, _, target = _MESSAGE.unpack_from(frame, _ETHERNET.size + _IPV6.size)
    # A hop limit below 255 came through a router and proves nothing (RFC 4861 §7.1.2).
    fits = (ethertype, following, hops, kind) == (ETHERTYPE, ICMPV6, 255, ADVERTISEMENT)
    return bytes(source_mac) if fits and target == address.packed else None
