"""Ports that stay with their instance."""

import socket

import pytest

from mesh.errors import Unavailable
from sidecar.supervisor.ports import PortAllocator

FIRST, LAST = 20_500, 20_503


def listener(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def test_a_port_comes_back_after_a_restart_of_the_sidecar() -> None:
    """Goal: addresses stay when the sidecar does not. Method: new allocators, in another order."""
    names = ["a", "b", "c"]
    before = {name: PortAllocator("127.0.0.1", FIRST, FIRST + 400).give(name) for name in names}
    after = {name: PortAllocator("127.0.0.1", FIRST, FIRST + 400).give(name) for name in reversed(names)}
    assert before == after


def test_no_two_names_hold_the_same_port_and_an_empty_range_says_so() -> None:
    """Goal: no two instances on one port. Method: use up four ports, ask, release, ask."""
    ports = PortAllocator("127.0.0.1", FIRST, LAST)
    given = {ports.give(name) for name in "abcd"}
    assert given == set(range(FIRST, LAST + 1))
    with pytest.raises(Unavailable, match="no free port from 20500 to 20503"):
        ports.give("e")
    ports.release("a")
    assert ports.give("e") in given


def test_a_port_that_somebody_else_took_is_passed_over() -> None:
    """Goal: a foreign program costs a port, not a crash loop. Method: listen on it in between."""
    ports = PortAllocator("127.0.0.1", FIRST, LAST)
    mine = ports.give("a")
    with listener(mine):
        assert ports.give("a") != mine


def test_a_port_noted_as_held_is_given_to_nobody_else() -> None:
    """Goal: an adopted instance keeps its address. Method: a range of one port."""
    ports = PortAllocator("127.0.0.1", FIRST, FIRST)
    ports.hold("adopted", FIRST)
    ports.hold("adopted", FIRST)
    with pytest.raises(Unavailable):
        ports.give("other")
