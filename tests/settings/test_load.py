"""A settings file is used whole or refused with every problem at once."""

import tomllib
from pathlib import Path

import pytest

from mesh.errors import Problem, SettingsError
from mesh.settings import Endpoint, HostSettings, load_settings, parse_settings
from mesh.settings.example import example_settings

SMALLEST = '[host]\nname = "host1"\n[mesh]\naddress = "10.0.0.1:7400"\n'


def parse(text: str) -> HostSettings:
    return parse_settings(tomllib.loads(text))


def problems_of(text: str) -> dict[str, Problem]:
    with pytest.raises(SettingsError) as refused:
        parse(text)
    return {problem.path: problem for problem in refused.value.problems}


def test_name_and_address_are_enough() -> None:
    """Goal: a first host needs two lines. Method: compare what follows from them."""
    settings = parse(SMALLEST)
    assert str(settings.mesh.join_address) == "10.0.0.1:7401"
    assert str(settings.northbound.address) == "10.0.0.1:8080"
    assert str(settings.xds.address) == "127.0.0.1:18000"
    assert settings.services.listen == "127.0.0.1"
    assert settings.virtual_ip is None
    assert settings.admin_socket == Path("/run/trellis/admin.sock")


def test_hosts_that_share_a_machine_keep_to_their_own_loopback_address() -> None:
    """Goal: three hosts on one machine do not clash. Method: another loopback address."""
    settings = parse(SMALLEST.replace("10.0.0.1", "127.0.0.2"))
    assert settings.services.listen == "127.0.0.2"
    assert str(settings.telemetry.prometheus) == "127.0.0.2:9464"


def test_ipv6_addresses_are_written_in_brackets() -> None:
    """Goal: one spelling, and the port is never misread.

    Method: odd spelling in, normal form out; without brackets.
    """
    settings = parse(SMALLEST.replace("10.0.0.1:7400", "[FD00:0::1]:7400"))
    assert settings.mesh.address == Endpoint("fd00::1", 7400)
    assert str(settings.mesh.address) == "[fd00::1]:7400"
    assert (
        "brackets" in problems_of(SMALLEST.replace("10.0.0.1:7400", "fd00::1:7400"))["mesh.address"].problem
    )


def test_the_example_is_accepted_as_it_is() -> None:
    """Goal: what `init` writes can be loaded. Method: both kinds of example."""
    text = example_settings(
        "host2", Endpoint("127.0.0.2", 7400), virtual_ip=Endpoint("127.0.0.100", 8080), development=True
    )
    settings = parse(text)
    assert settings.host_id == "host2"
    assert settings.development.mode
    assert settings.virtual_ip is not None
    assert settings.virtual_ip.is_listener_only
    assert parse(example_settings("host1", Endpoint("10.0.0.1", 7400))).virtual_ip is None


def test_what_the_example_shows_as_defaults_are_the_defaults() -> None:
    """Method: take the comment sign from every key that is shown with its default."""
    not_defaults = ("tls_", "path", "otlp", "address", "port", "interface")
    lines = [
        line[2:]
        if line.startswith("# ") and " = " in line and not line[2:].startswith(not_defaults)
        else line
        for line in example_settings("host1", Endpoint("10.0.0.1", 7400)).splitlines()
    ]
    assert lines[0].startswith("# Settings")
    assert parse("\n".join(lines)) == parse(SMALLEST)


def test_every_problem_is_reported_at_once_with_a_correct_example() -> None:
    """Goal: one round of mending. Method: ten mistakes of all kinds."""
    found = problems_of("""
        [host]
        nam = "host1"
        data_dir = "var/lib"
        [mesh]
        address = "server.example:7400"
        [timers]
        heartbeat_ms = "100"
        [envoy]
        concurrency = 0
        [logs]
        level = "loud"
        [northbound]
        tls_key = "/key"
        [virtual_ip]
        address = "10.0.0.100"
        [telemtry]
        """)
    assert set(found) == {
        "host.name",
        "host.nam",
        "host.data_dir",
        "mesh.address",
        "timers.heartbeat_ms",
        "envoy.concurrency",
        "logs.level",
        "northbound.tls_certificate",
        "virtual_ip.interface",
        "telemtry",
    }
    assert found["host.name"].example == 'name = "host1"'
    assert "did you mean 'name'?" in found["host.nam"].problem
    assert "did you mean 'telemetry'?" in found["telemtry"].problem
    assert found["timers.heartbeat_ms"].problem == 'must be a whole number, not "100"'
    assert found["envoy.concurrency"].example == "concurrency = 2"


def test_an_example_in_a_problem_is_itself_accepted() -> None:
    """Goal: who follows the advice is not refused again. Method: paste the examples."""
    found = problems_of(SMALLEST + '[envoy]\nconcurrency = 0\n[logs]\nlevel = "loud"\n[host.x]\n')
    text = (
        SMALLEST + f"[envoy]\n{found['envoy.concurrency'].example}\n[logs]\n{found['logs.level'].example}\n"
    )
    assert parse(text).logs.level == "info"


@pytest.mark.parametrize(
    ("timers", "path"),
    [
        ("lease_ms = 299", "timers.lease_ms"),
        ("election_ms_min = 1451", "timers.election_ms_min"),
        ("election_ms_min = 2500", "timers.election_ms_max"),
        ("tick_ms = 35", "timers.tick_ms"),
        ("clock_rate_error = 0.05", "timers.election_ms_min"),
    ],
)
def test_timers_that_could_let_two_act_are_refused(timers: str, path: str) -> None:
    """Goal: no settings file breaks the safety argument. Method: just past each edge."""
    found = problems_of(f"{SMALLEST}[timers]\n{timers}\n")
    assert set(found) == {path}
    assert found[path].example.startswith(path.partition(".")[2])


def test_timers_at_the_edge_of_the_rule_are_accepted() -> None:
    """Goal: the rule is no stricter than the argument. Method: the smallest sound value."""
    # 1200 * 1.001 + 250 = 1451.2
    assert parse(SMALLEST + "[timers]\nelection_ms_min = 1452\n").timers.election_ms_min == 1452


def test_two_listeners_on_one_port_are_refused() -> None:
    """Goal: found before the second bind fails.

    Method: explicit, and by a default that follows from another.
    """
    found = problems_of(SMALLEST + '[xds]\naddress = "127.0.0.1:9464"\n')
    assert "xds.address" in found["telemetry.prometheus"].problem
    clash = problems_of(SMALLEST.replace("7400", "8079"))
    assert "mesh.join_address = 10.0.0.1:8080" in clash["northbound.address"].problem


def test_a_listener_in_the_range_of_instances_is_refused() -> None:
    """Goal: an instance never takes the sidecar's port. Method: xDS inside the range."""
    found = problems_of(SMALLEST + '[xds]\naddress = "127.0.0.1:20500"\n')
    assert "services.port_min" in found["xds.address"].problem


def test_the_virtual_address_is_not_a_hosts_own() -> None:
    """Goal: releasing it would cut the host off. Method: the mesh address as virtual one."""
    found = problems_of(SMALLEST + '[virtual_ip]\naddress = "10.0.0.1"\ninterface = "eth0"\nport = 9000\n')
    assert set(found) == {"virtual_ip.address"}


def test_failpoints_need_development_mode() -> None:
    """Goal: no fault on request in production. Method: the same list with and without the mode."""
    armed = 'failpoints = ["driver.turn.before-save=crash"]\n'
    found = problems_of(SMALLEST + "[development]\n" + armed)
    assert set(found) == {"development.failpoints"}
    assert parse(SMALLEST + "[development]\nmode = true\n" + armed).development.failpoints


def test_a_failpoint_that_does_not_exist_is_a_problem() -> None:
    """Goal: a typing error is not silence. Method: an unknown name, in development mode."""
    found = problems_of(SMALLEST + '[development]\nmode = true\nfailpoints = ["a.b=crash"]\n')
    assert "trellis failpoints" in found["development.failpoints"].problem


def test_a_table_that_is_no_table_is_a_problem_like_others() -> None:
    """Goal: no traceback for a slip. Method: a number, a text, a list."""
    assert problems_of('host = 1\nmesh = "x"\ntimers = [1]\n').keys() == {"host", "mesh", "timers"}


def test_a_file_that_is_missing_or_no_toml_says_so(tmp_path: Path) -> None:
    """Goal: each is told with its place. Method: missing, syntax, encoding, then good."""
    path = tmp_path / "settings.toml"
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(path)
    path.write_text("[host\n")
    with pytest.raises(SettingsError, match="line 1"):
        load_settings(path)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings(path)
    path.write_text(SMALLEST)
    assert load_settings(path).host.name == "host1"


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("[services]\nport_min = 20010\nport_max = 20000", "services.port_max", "less than"),
        ("[services]\nport_min = 22000", "services.port_max", "less than"),
        ('[xds]\naddress = "127.0.0.1"', "xds.address", "ADDRESS:PORT"),
        ('[xds]\naddress = "127.0.0.1:0"', "xds.address", "number from 1"),
        ('[xds]\naddress = "127.0.0.1:1e3"', "xds.address", "number from 1"),
        ("[xds]\naddress = 18000", "xds.address", "text in quotes"),
        ("[development]\nfailpoints = [1]", "development.failpoints", "list of texts"),
        ("[envoy]\nconcurrency = 1.5", "envoy.concurrency", "whole number"),
        ('[development]\nmode = "yes"', "development.mode", "true or false"),
        ('[northbound]\ntls_certificate = "/c"', "northbound.tls_key", "is needed"),
        ("[timers]\nheartbeat_ms = 0", "timers.heartbeat_ms", "at least 1"),
        ("[logs]\nzzz = 1", "logs.zzz", "known here: format, level"),
        ('[virtual_ip]\naddress = "10.0.0.7"\ninterfaces = "e"', "virtual_ip.interfaces", "'interface'"),
    ],
)
def test_each_kind_of_mistake_has_its_own_sentence(text: str, path: str, says: str) -> None:
    """Goal: the sentence says what is wrong here, not that something is. Method: table."""
    found = problems_of(f"{SMALLEST}{text}\n")
    assert says in found[path].problem


def test_names_are_bounded_and_plain() -> None:
    """Goal: a host's name fits certificates, paths and DNS. Method: near misses and the longest."""
    for name in ("Host1", "1host", "host_1", "host--1", "host1-", "h" * 64, ""):
        assert "is not a name" in problems_of(SMALLEST.replace("host1", name))["host.name"].problem
    assert parse(SMALLEST.replace("host1", "h" * 63)).host_id == "h" * 63
