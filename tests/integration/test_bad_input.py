"""What operators get wrong, through the CLI: refused with field, reason and remedy; nothing half done."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster, leads_itself
from tests.harness.host import Host
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.integration

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One host that runs; a second has settings only, for what must be refused before anything starts."""
    with Cluster(LoopbackNetwork(), hosts=2) as made:
        first = made.hosts[0]
        assert first.trellis("init").returncode == 0
        first.start()
        wait_for(lambda: leads_itself(first), "the founding host leads itself", 40.0)
        yield made


@pytest.fixture
def host(cluster: Cluster) -> Host:
    """The one that runs."""
    return cluster.hosts[0]


@pytest.fixture
def fresh(cluster: Cluster) -> Iterator[Host]:
    """The one that has only settings, and has them again afterwards."""
    yield cluster.hosts[1]
    cluster.hosts[1].write_settings()


def problems(done: Done, code: int) -> dict[str, dict[str, str]]:
    """What `--json` says is wrong, by path; every problem says what and, where it helps, gives an example."""
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done.stderr
    error = json.loads(done.stderr.strip().splitlines()[-1])
    assert error["exit_code"] == code
    assert error["error"]["message"]
    return {item["path"]: item for item in error["error"]["problems"]}


def nothing_is_there(fresh: Host) -> bool:
    """No identity, no log, no socket."""
    return not any((fresh.data_dir / name).exists() for name in ("identity", "raft", "founding.json"))


SETTINGS = {
    "unknown key": ("[northbount]\naddress = '127.0.0.1:1'\n", "northbount", "not a known"),
    "unknown key in a table": ("[timers]\nlease = 5\n", "timers.lease", "not a known key"),
    "wrong type": ("[timers]\nlease_ms = 'soon'\n", "timers.lease_ms", "whole number|integer|number"),
    "impossible timers": ("[timers]\nheartbeat_ms = 900\n", "timers", "lease"),
    "election before the lease ends": ("[timers]\nelection_ms_min = 1000\n", "timers", "lease"),
    "a port that is none": ("[telemetry]\nprometheus = '127.0.0.1:99999'\n", "telemetry.prometheus", "port"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_cannot_work_are_refused_before_anything_is_done(fresh: Host, name: str) -> None:
    """Goal: init and run say what is wrong and where; no file is made."""
    text, path, reason = SETTINGS[name]
    fresh.write_settings(text)
    found = problems(fresh.trellis("init", "--json"), 64)
    matching = [item for key, item in found.items() if key.startswith(path)]
    assert matching, found
    assert any(re.search(reason, item["problem"]) for item in matching), matching
    assert nothing_is_there(fresh)
    ran = fresh.trellis("run")
    assert ran.returncode == 64, ran
    assert path in ran.stderr


def test_every_problem_of_a_settings_file_is_told_at_once(fresh: Host) -> None:
    """Goal: one round of mending. Method: three mistakes in one file, by `init`."""
    fresh.write_settings("[timers]\nlease_ms = 'soon'\n[northbount]\n[join]\nmemory_mib_min = -1\n")
    assert {"timers.lease_ms", "northbount", "join.memory_mib_min"} <= set(
        problems(fresh.trellis("init", "--json"), 64)
    )


def test_an_address_of_another_machine_is_refused(fresh: Host) -> None:
    """Goal: found before an identity is made. Method: an address from the documentation range."""
    text = fresh.settings_path.read_text().replace(fresh.ip, "192.0.2.1")
    fresh.settings_path.write_text(text)
    found = problems(fresh.trellis("init", "--json"), 64)
    assert "mesh.address" in found, found
    assert nothing_is_there(fresh)


def test_a_port_that_is_taken_is_refused_by_init_and_by_join(cluster: Cluster, fresh: Host) -> None:
    """Goal: the key of the port and the port are told. Method: somebody listens there already."""
    token = cluster.token(cluster.hosts[0], fresh.name)
    with socket.create_server((fresh.ip, 7400)):
        for words in (("init",), ("join", token)):
            found = problems(fresh.trellis(*words, "--json"), 64)
            assert "mesh.address" in found, found
            assert "7400" in found["mesh.address"]["problem"], found
    assert nothing_is_there(fresh)


def test_a_second_sidecar_of_the_same_host_does_not_start(cluster: Cluster, host: Host) -> None:
    """Goal: two never write one directory, and the one that runs is not disturbed. Method: run it again."""
    again = host.trellis("run")
    assert again.returncode != 0, again
    assert "Traceback" not in again.stderr, again.stderr
    assert "is in use by another process" in again.stderr, again
    assert leads_itself(host)


def test_a_northbound_port_that_is_taken_is_told_by_status_and_journal() -> None:
    """Goal: what Envoy could not open is seen, with the remedy, until it is free. Method: hold the port."""
    with Cluster(LoopbackNetwork(), hosts=1) as made:
        (host,) = made.hosts
        assert host.trellis("init").returncode == 0
        with socket.create_server((host.ip, 8080)):
            host.start()
            wait_for(lambda: leads_itself(host), "the founding host leads itself", 40.0)
            wait_for(lambda: closed_reasons(host), "its status says why the port is shut", 20.0)
            shown = host.trellis("status")
            assert "closed" in shown.stdout, shown
            assert "northbound.address" in shown.stdout, shown
            kind = ("events", "--kind", "northbound-closed", "--json")
            wait_for(lambda: json.loads(host.trellis(*kind).stdout)["events"], "the journal has it", 30.0)
        wait_for(lambda: host.status().northbound_listening, "it is opened once it is free", 20.0)  # type: ignore[union-attr]
        assert closed_reasons(host) == []


def closed_reasons(host: Host) -> list[str]:
    """Why its northbound listeners are shut, as its status says."""
    reasons = json.loads(host.trellis("status", "--json").stdout)["northbound_problems"]
    return [reason for reason in reasons if "cannot listen" in reason]


DECLARATIONS = {
    "a missing command": ('[service]\nname = "a"\ncommand = ["no-such"]\n', "command", "no-such"),
    "no command": ('[service]\nname = "a"\ncommand = []\n', "command", ""),
    "a bad name": ('[service]\nname = "A b"\ncommand = ["sleep"]\n', "name", ""),
    "a wrong mode": ('[service]\nname = "a"\ncommand = ["sleep"]\nmode = "active"\n', "mode", "active-"),
    "an unknown key": ('[service]\nname = "a"\ncommand = ["sleep"]\ncolour = "red"\n', "colour", "known"),
    "a dependency on nothing": (
        '[service]\nname = "a"\ncommand = ["sleep", "9"]\ndepends_on = ["b"]\n', "depends_on", "b"
    ),
    "a dependency on itself": (
        '[service]\nname = "a"\ncommand = ["sleep", "9"]\ndepends_on = ["a"]\n', "depends_on", "a"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_declaration_that_cannot_work_is_refused_at_submit(host: Host, tmp_path: Path, name: str) -> None:
    """Goal: the cluster never holds what no host can run. Method: one flaw per file, then list."""
    text, path, reason = DECLARATIONS[name]
    file = tmp_path / "service.toml"
    file.write_text(text)
    found = problems(host.trellis("services", "apply", str(file), "--json"), 64)
    matching = [item for key, item in found.items() if path in key]
    assert matching, found
    assert any(reason in item["problem"] + item["example"] for item in matching), matching
    assert services(host) == []


def test_a_cycle_of_dependencies_is_refused_and_the_first_declaration_stays(
    host: Host, tmp_path: Path
) -> None:
    """Goal: a cycle is found also when it is closed by a later change. Method: a on b, then b on a."""
    file = tmp_path / "service.toml"
    for name, needs in (("b", "[]"), ("a", '["b"]')):
        file.write_text(f'[service]\nname = "{name}"\ncommand = ["sleep", "99"]\ndepends_on = {needs}\n')
        applied = host.trellis("services", "apply", str(file), "--json")
        assert applied.returncode == 0, applied
    file.write_text('[service]\nname = "b"\ncommand = ["sleep", "99"]\ndepends_on = ["a"]\n')
    found = problems(host.trellis("services", "apply", str(file), "--json"), 64)
    assert any("depends_on" in path for path in found), found
    assert sorted(services(host)) == ["a", "b"]
    for name in ("a", "b"):
        assert host.trellis("services", "stop", name).returncode == 0


def test_an_oversized_document_is_refused_and_not_written(host: Host, tmp_path: Path) -> None:
    """Goal: the bound is told with its number. Method: 600 KiB from a file, then get."""
    big = tmp_path / "big"
    big.write_bytes(bytes(600 * 1024))
    found = problems(host.trellis("documents", "put", "big", "--file", str(big), "--json"), 64)
    assert "value" in found, found
    assert "524288" in found["value"]["problem"].replace(",", "") or "512" in found["value"]["problem"], found
    assert host.trellis("documents", "get", "big").returncode == 1


def test_a_document_larger_than_any_message_is_refused_the_same_way(host: Host, tmp_path: Path) -> None:
    """Goal: gRPC's own limit does not hide the reason. Method: 6 MiB."""
    huge = tmp_path / "huge"
    huge.write_bytes(bytes(6 * 1024 * 1024))
    assert "value" in problems(host.trellis("documents", "put", "huge", "--file", str(huge), "--json"), 64)
    assert host.trellis("documents", "get", "huge").returncode == 1


@pytest.mark.parametrize("name", ["", "/", "a//b", "../x", "a b", "x" * 300, "ä"])
def test_an_invalid_document_name_is_refused(host: Host, name: str) -> None:
    """Goal: no path tricks, no unreadable names. Method: table of names."""
    found = problems(host.trellis("documents", "put", name, "value", "--json"), 64)
    assert "name" in found, found


def test_a_version_conflict_says_which_version_is_there(host: Host) -> None:
    """Goal: the value stays, and the loser knows why. Method: expect version 7 of version 1."""
    assert host.trellis("documents", "put", "versioned", "1").returncode == 0
    done = host.trellis("documents", "put", "versioned", "2", "--expect-version", "7", "--json")
    assert done.returncode == 1, done
    assert json.loads(done.stderr)["error"]["reason"] == "VERSION_CONFLICT"
    assert host.trellis("documents", "get", "versioned").stdout == "1"


def test_words_that_make_no_sense_are_a_usage_error(host: Host) -> None:
    """Goal: exit code 64 against a running cluster too. Method: three wrong command lines."""
    for words in (("documents", "put"), ("nonsense",), ("leader", "transfer", "--timeout", "soon")):
        done = host.trellis(*words)
        assert done.returncode == 64, done
        assert "Traceback" not in done.stderr


def test_a_transfer_to_nobody_is_refused(host: Host) -> None:
    """Goal: the leader stays. Method: an unknown host, then look who leads."""
    done = host.trellis("leader", "transfer", "host9", "--json")
    assert done.returncode == 1, done
    assert json.loads(done.stderr)["error"]["reason"] == "NOT_FOUND"
    assert leads_itself(host)


def services(host: Host) -> list[str]:
    """Names of the declared services."""
    listed = host.trellis("services", "list", "--json")
    assert listed.returncode == 0, listed
    return [service["name"] for service in json.loads(listed.stdout)["services"]]
