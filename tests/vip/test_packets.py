"""ARP and neighbour discovery frames, byte by byte, and what is read from them."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from sidecar.vip import arp, ndp
from sidecar.vip.rawlink import link_states

MAC = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("020000000002")
V4 = IPv4Address("10.77.0.100")
V6 = IPv6Address("fd77::100")


def test_gratuitous_arp_goes_out_as_request_and_reply() -> None:
    """RFC 5227 §3: sender and target address are both the announced one."""
    request, reply = arp.announcements(MAC, V4)
    head = "ffffffffffff 020000000001 0806 0001 0800 06 04"
    assert request == bytes.fromhex(head + "0001 020000000001 0a4d0064 000000000000 0a4d0064")
    assert reply == bytes.fromhex(head + "0002 020000000001 0a4d0064 ffffffffffff 0a4d0064")


def test_an_arp_probe_names_no_sender_address() -> None:
    """RFC 5227 §2.1.1: nobody may learn anything from a probe."""
    head = "ffffffffffff 020000000001 0806 0001 0800 06 04"
    assert arp.probe(MAC, V4) == bytes.fromhex(head + "0001 020000000001 00000000 000000000000 0a4d0064")
    assert arp.claimant(arp.probe(MAC, V4), V4) is None


def test_any_arp_frame_with_the_address_as_sender_claims_it() -> None:
    """Goal: a holder is recognised, padding or not, and noise is not.

    Method: sound frames, cut ones, other types.
    """
    for frame in arp.announcements(OTHER, V4):
        assert arp.claimant(frame + b"\0" * 18, V4) == OTHER
        assert arp.claimant(frame, IPv4Address("10.77.0.101")) is None
        assert arp.claimant(frame[:-1], V4) is None
        assert arp.claimant(frame[:12] + b"\x86\xdd" + frame[14:], V4) is None


def test_a_probe_of_another_host_is_a_rival_and_the_own_one_is_not() -> None:
    """Goal: two that ask at once do not both take it. Method: probes of both, other frames."""
    assert arp.rival_probe(arp.probe(OTHER, V4), MAC, V4) == OTHER
    assert arp.rival_probe(arp.probe(MAC, V4), MAC, V4) is None
    assert arp.rival_probe(arp.probe(OTHER, V4), MAC, IPv4Address("10.77.0.101")) is None
    assert arp.rival_probe(arp.announcements(OTHER, V4)[0], MAC, V4) is None
    assert arp.rival_probe(b"", MAC, V4) is None


def test_an_unsolicited_advertisement_overrides_at_all_nodes() -> None:
    """RFC 4861 §7.2.6; the checksum was computed by hand from the pseudo header."""
    frame = ndp.announcement(MAC, V6)
    source = "fd770000000000000000000000000100"
    assert frame[:14] == bytes.fromhex("333300000001 020000000001 86dd")
    assert frame[14:54] == bytes.fromhex("60000000 0020 3a ff" + source + "ff02" + "00" * 13 + "01")
    assert frame[54:56] == bytes.fromhex("8800")
    assert frame[58:] == bytes.fromhex("20000000" + source + "0201 020000000001")


@pytest.mark.parametrize("frame", [ndp.announcement(MAC, V6), ndp.probe(MAC, V6)])
def test_the_checksum_over_pseudo_header_and_message_is_zero(frame: bytes) -> None:
    """RFC 8200 §8.1: summing with the checksum in place gives all ones."""
    message = frame[54:]
    pseudo = frame[22:54] + len(message).to_bytes(4, "big") + b"\0\0\0\x3a"
    assert ndp.checksum(pseudo + message) == 0


def test_the_checksum_matches_the_example_of_rfc_1071() -> None:
    """Goal: the sum is the standard's, odd lengths included. Method: the RFC's example."""
    assert ndp.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2
    assert ndp.checksum(b"\x01") == 0xFFFF ^ 0x0100


def test_an_ipv6_probe_comes_from_nowhere_and_goes_to_the_solicited_node() -> None:
    """RFC 4862 §5.4.2."""
    frame = ndp.probe(MAC, V6)
    assert ndp.solicited_node(V6) == IPv6Address("ff02::1:ff00:100")
    assert frame[:6] == bytes.fromhex("3333ff000100")
    assert frame[22:38] == b"\0" * 16
    assert frame[54] == ndp.SOLICITATION


def test_only_advertisements_of_the_address_from_this_link_claim_it() -> None:
    """Goal: no router or other address is taken for a holder. Method: each flaw in one frame."""
    frame = ndp.announcement(OTHER, V6)
    assert ndp.claimant(frame, V6) == OTHER
    assert ndp.claimant(frame, IPv6Address("fd77::101")) is None
    assert ndp.claimant(frame[:60], V6) is None
    assert ndp.claimant(ndp.probe(OTHER, V6), V6) is None
    routed = frame[:21] + b"\xfe" + frame[22:]
    assert ndp.claimant(routed, V6) is None


def test_link_states_are_read_from_every_message_of_a_datagram() -> None:
    """Goal: no flap is missed when news come together.

    Method: several messages, other kinds, too short ones.
    """

    def news(index: int, flags: int, kind: int = 16) -> bytes:
        body = b"\0" * 4 + index.to_bytes(4, "little") + flags.to_bytes(4, "little") + b"\0" * 4
        head = (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + b"\0" * 10
        return head + body

    up, down = 1 << 16, 0
    assert link_states(news(2, up) + news(3, up) + news(2, down), 2) == [True, False]
    assert link_states(news(2, up, kind=17), 2) == []
    assert link_states(b"\0" * 20, 2) == []
