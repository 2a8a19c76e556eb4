"""Where a demo puts its hosts."""

import socket
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import InvalidRequest
from mesh.settings import load_settings
from sidecar.demo.database import DemoDatabase
from sidecar.demo.plan import MESH, make_plan


def test_the_settings_of_every_host_can_be_loaded(tmp_path: Path) -> None:
    """Goal: the demo's files obey the rules of all files. Method: write and load each."""
    database = DemoDatabase("postgres", Path("/usr/lib/postgresql/15/bin"), "15.18")
    plan = replace(make_plan(Path("/tmp/d")), database=database)
    for host in plan.hosts:
        path = tmp_path / f"{host.name}.toml"
        path.write_text(host.settings())
        settings = load_settings(path)
        assert settings.host.name == host.name
        assert settings.admin_socket == host.admin_socket
        assert settings.virtual_ip is not None
        assert settings.virtual_ip.is_listener_only
        assert str(settings.virtual_ip.endpoint) == plan.virtual_address
        assert settings.database is not None
        assert settings.database.client_address.ip == host.ip


def test_hosts_share_no_address() -> None:
    """Goal: three hosts fit on one machine. Method: compare their addresses."""
    addresses = [
        f"{settings['services']['listen']}:{settings['mesh']['address']}"
        for settings in (tomllib.loads(host.settings()) for host in make_plan(Path("/tmp/d")).hosts)
    ]
    assert len(set(addresses)) == 3


def test_a_taken_port_moves_the_whole_demo_to_other_ports() -> None:
    """Goal: it runs beside another one. Method: listen on one of its ports."""
    first = make_plan(Path("/tmp/d"))
    with socket.create_server(("127.0.0.2", MESH + first.shift)):
        assert make_plan(Path("/tmp/d")).shift > first.shift


def test_a_directory_too_deep_for_sockets_is_refused() -> None:
    """Goal: told before hosts fail on it. Method: 90 characters."""
    with pytest.raises(InvalidRequest) as refused:
        make_plan(Path("/tmp") / ("d" * 90))
    assert refused.value.problems[0].path == "--directory"
