"""The table of the database: an empty one is enough, and a bad one says what would be right."""

import socket
import tomllib
from pathlib import Path

import pytest

from mesh.errors import Problem, SettingsError
from mesh.settings import Endpoint, HostSettings, parse_settings
from mesh.settings.ports import check_ports

SMALLEST = '[host]\nname = "host1"\n[mesh]\naddress = "10.0.0.1:7400"\n'
ON_LOOPBACK = SMALLEST.replace("10.0.0.1", "127.0.7.2")


def parse(table: str, smallest: str = SMALLEST) -> HostSettings:
    return parse_settings(tomllib.loads(f"{smallest}{table}\n"))


def problem_of(table: str) -> Problem:
    with pytest.raises(SettingsError) as refused:
        parse(table)
    (problem,) = refused.value.problems
    return problem


def test_a_host_without_the_table_carries_no_database() -> None:
    """Goal: files of before work, and mean what they meant. Method: the smallest file."""
    settings = parse("")
    assert settings.database is None
    assert settings.database_dir == Path("/var/lib/trellis/postgres")


def test_an_empty_table_is_enough() -> None:
    """Goal: carrying the database needs one line. Method: compare what follows from it."""
    settings = parse("[database]")
    assert settings.database is not None
    assert settings.database.listen == "10.0.0.1"
    assert settings.database.client_address == Endpoint("127.0.0.1", 6432)
    assert settings.database.port is None
    assert settings.database_dir == Path("/var/lib/trellis/postgres")
    given = parse('[database]\ndata_dir = "/srv/pg"\nport = 5433\nrecovery_s_max = 60')
    assert given.database_dir == Path("/srv/pg")


def test_hosts_that_share_a_machine_keep_their_databases_apart() -> None:
    """Goal: three hosts on one machine do not clash. Method: another loopback address."""
    settings = parse("[database]", ON_LOOPBACK)
    assert settings.database is not None
    assert (settings.database.listen, settings.database.client_address.ip) == ("127.0.7.2", "127.0.7.2")


@pytest.mark.parametrize(
    ("line", "path", "says"),
    [
        ('user = "root"', "database.user", "refuses to run as root"),
        ('listen = "0.0.0.0"', "database.listen", "by which the other hosts can reach it"),
        ('listen = "127.0.0.1"', "database.listen", "cannot be reached"),
        ('listen = "db.example"', "database.listen", "not an IP address"),
        ("port = 0", "database.port", "at least 1"),
        ("port = 7400", "database.port", "already taken by mesh.address"),
        ("port = 20001", "database.port", "services.port_min"),
        ('client_address = "127.0.0.1:9464"', "database.client_address", "already taken by telemetry"),
        ('bin_dir = "bin"', "database.bin_dir", "absolute path"),
        ('data_dir = "/var/lib/trellis"', "database.data_dir", "holds host.data_dir"),
        ('data_dir = "/run/trellis/postgres"', "database.data_dir", "may vanish at boot"),
        ('archive_dir = "wal"', "database.archive_dir", "absolute path"),
        ('archive_dir = "/var/lib/trellis/postgres/wal"', "database.archive_dir", "would be lost with it"),
        ("recovery_s_max = 0", "database.recovery_s_max", "at least 1"),
        ("recovery_ms = 5", "database.recovery_ms", "recovery_s_max"),
    ],
)
def test_each_mistake_is_told_with_a_line_that_would_be_right(line: str, path: str, says: str) -> None:
    """Goal: one round of mending. Method: one mistake at a time; then the example of it instead."""
    problem = problem_of(f"[database]\n{line}")
    assert problem.path == path
    assert says in problem.problem
    if problem.example:
        parse(f"[database]\n{problem.example}")


def test_a_folder_above_others_is_told_for_each_that_it_holds() -> None:
    """Goal: no copy of the database ever replaces the log. Method: the root of the host's folders."""
    with pytest.raises(SettingsError) as refused:
        parse('[database]\ndata_dir = "/var"')
    assert [each.path for each in refused.value.problems] == ["database.data_dir"] * 2


def test_a_database_that_still_runs_does_not_keep_its_sidecar_from_starting() -> None:
    """Goal: a sidecar that is started again adopts it. Method: listen on both ports, and try them."""
    settings = parse("[database]\nport = 5433", ON_LOOPBACK)
    with socket.create_server(("127.0.7.2", 5433)), socket.create_server(("127.0.7.2", 6432)):
        taken = [each.path for each in check_ports(settings)]
    assert taken == ["database.client_address"]
