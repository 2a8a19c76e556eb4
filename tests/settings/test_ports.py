"""Addresses and ports are tried before anything is begun."""

import socket
import tomllib

from mesh.settings import HostSettings, parse_settings
from mesh.settings.ports import check_ports


def settings_with(base: int) -> HostSettings:
    text = f"""
        [host]
        name = "host1"
        [mesh]
        address = "127.0.7.1:{base}"
        [northbound]
        address = "127.0.7.1:{base + 2}"
        """
    return parse_settings(tomllib.loads(text))


def test_free_ports_are_no_problem() -> None:
    """Goal: the check refuses nothing sound, and leaves nothing bound. Method: an unused loopback address."""
    assert check_ports(settings_with(7400)) == ()


def test_a_taken_port_names_who_has_it() -> None:
    """Goal: an operator need not search. Method: listen on one of them."""
    with socket.create_server(("127.0.7.1", 7402)):
        (problem,) = check_ports(settings_with(7400))
    assert problem.path == "northbound.address"
    assert "is taken by" in problem.problem
    assert "pid" in problem.problem


def test_an_address_of_another_machine_is_refused() -> None:
    """Goal: a wrong address is found before anything is begun. Method: one from the documentation range."""
    text = '[host]\nname = "host1"\n[mesh]\naddress = "192.0.2.1:7400"\n'
    problems = check_ports(parse_settings(tomllib.loads(text)))
    foreign = {each.path for each in problems if "not an address of this machine" in each.problem}
    assert foreign == {"mesh.address", "mesh.join_address", "northbound.address"}
