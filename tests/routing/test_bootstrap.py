"""The files Envoy starts from, checked by Envoy itself where it can."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import SettingsError
from mesh.ids import HostId
from sidecar.routing import bootstrap
from sidecar.routing.model import CertificatePaths, RoutingSettings
from sidecar.routing.process import envoy_binary, start_time

PATHS = CertificatePaths("/id/cert.pem", "/id/key.pem", "/id/ca.pem")


def settings(directory: Path) -> RoutingSettings:
    return RoutingSettings("c0ffee", HostId("host1"), str(directory / "run"), "127.0.0.1:8080")


def test_envoy_accepts_its_bootstrap(tmp_path: Path) -> None:
    """Envoy's own validation mode, with the very file it would be started from."""
    chosen = settings(tmp_path)
    bootstrap.prepare(chosen)
    path = tmp_path / "envoy.json"
    assert bootstrap.write_json(path, bootstrap.envoy_bootstrap(chosen))
    command = [envoy_binary(chosen), "--mode", "validate", "-c", str(path), "--disable-hot-restart"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_already_right_is_not_written_again(tmp_path: Path) -> None:
    """Goal: Envoy is not woken by a file that says the same. Method: write twice, compare the time."""
    path = tmp_path / "a.json"
    assert bootstrap.write_json(path, {"a": 1})
    before = path.stat().st_mtime_ns
    assert not bootstrap.write_json(path, {"a": 1})
    assert path.stat().st_mtime_ns == before


def test_each_certificate_has_a_secret_file_of_its_own(tmp_path: Path) -> None:
    """Goal: renewing one leaves the others in force.

    Method: both identities; list files and the name inside.
    """
    bootstrap.prepare(replace(settings(tmp_path), identity=PATHS, northbound_tls=PATHS))
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert files == [
        "authorities.secret.json",
        "host-certificate.secret.json",
        "northbound-certificate.secret.json",
    ]
    written = json.loads((tmp_path / "run" / files[1]).read_text())["resources"]
    assert [each["name"] for each in written] == ["host-certificate"]


def test_a_run_directory_too_deep_for_a_socket_is_refused_with_an_example(tmp_path: Path) -> None:
    """Goal: the kernel's 107 bytes are told before Envoy fails on them.

    Method: a directory of 100 characters.
    """
    with pytest.raises(SettingsError, match=r"107 bytes.*/run/trellis"):
        bootstrap.prepare(settings(tmp_path / ("d" * 100)))


def test_an_envoy_named_in_the_settings_is_the_one_used(tmp_path: Path) -> None:
    """Goal: the operator's choice beats what is found. Method: name one that does not exist."""
    assert envoy_binary(replace(settings(tmp_path), envoy_binary="/opt/envoy")) == "/opt/envoy"


def test_no_envoy_anywhere_is_refused_with_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the next step is in the message. Method: no package, an empty PATH."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="/usr/local/bin/envoy"):
        envoy_binary(settings(tmp_path))


def test_a_process_that_does_not_exist_has_no_start_time() -> None:
    """Goal: a dead Envoy is never adopted. Method: the pid of a reaped child."""
    done = subprocess.Popen(["true"])
    assert done.wait() == 0
    assert start_time(done.pid) is None


def test_a_proxyless_client_gets_the_certificates_of_its_host(tmp_path: Path) -> None:
    """Goal: proxyless calls are encrypted wherever the others are.

    Method: the file with and without an identity.
    """
    chosen = replace(settings(tmp_path), xds_address="127.0.0.1:18000")
    assert "certificate_providers" not in bootstrap.proxyless_bootstrap(chosen, "tool")
    document = bootstrap.proxyless_bootstrap(replace(chosen, identity=PATHS), "tool")
    assert document["node"]["id"] == "client/tool"
    assert document["certificate_providers"]["trellis"]["config"]["private_key_file"] == "/id/key.pem"
