"""Every command against a real sidecar: one host that leads itself."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.plan import HostPlan, make_plan

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
TRELLIS = [sys.executable, "-m", "sidecar.cli.main"]
DEADLINE_S = 30.0

TWO_MISTAKES = """
[service]
name = "No Name"
command = []
instances = 0
"""
SLEEPER = """
[service]
name = "sleeper"
command = ["/bin/sh", "-c", "echo awake; exec sleep 600"]
mode = "active-standby"
"""


class Cli:
    """Runs commands for one host."""

    def __init__(self, host: HostPlan) -> None:
        self.host = host

    def __call__(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        argv = [*TRELLIS, *words, "--settings", str(self.host.settings_path)]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=DEADLINE_S)

    def json(self, *words: str) -> Any:
        ran = self(*words, "--json")
        assert ran.returncode == 0, ran.stderr.decode()
        return json.loads(ran.stdout)

    def error(self, *words: str) -> tuple[int, dict[str, Any]]:
        ran = self(*words, "--json")
        found: dict[str, Any] = json.loads(ran.stderr)
        assert ran.stdout == b""
        assert found["exit_code"] == ran.returncode
        return ran.returncode, found["error"]

    def wait_leading(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (ran := self("leader", "show", "--json")).returncode != 0:
            assert time.monotonic() < deadline, ran.stderr.decode() + self.host.log_path.read_text()


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    directory = Path(tempfile.mkdtemp(prefix="trellis-cli-"))
    host = make_plan(directory).hosts[0]
    host.directory.mkdir()
    host.settings_path.write_text(host.settings())
    cli = Cli(host)
    assert cli("init").returncode == 0
    argv = [*TRELLIS, "run", "--settings", str(host.settings_path)]
    with host.log_path.open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as sidecar:
        try:
            cli.wait_leading()
            yield cli
        finally:
            sidecar.terminate()
            sidecar.wait(DEADLINE_S)
            shutil.rmtree(directory, ignore_errors=True)


def test_a_status_has_the_promised_fields(cli: Cli) -> None:
    """Goal: scripts read them from a real sidecar, people too. Method: `status`, with and without --json."""
    status = cli.json("status")
    assert {
        "cluster_id", "host_id", "incarnation", "term", "leader", "commit_index", "applied_index",
        "role", "lease_ms_left", "owners", "postgres", "hosts", "services",
    } <= set(status)  # fmt: skip
    assert (status["host_id"], status["leader"], status["role"]) == ("host1", "host1", "leader")
    assert [host["host"] for host in status["hosts"]] == ["host1"]
    assert b"host1 in term" in cli("status").stdout


def test_a_value_comes_back_byte_for_byte(cli: Cli) -> None:
    """Goal: no encoding touches a value. Method: all 256 bytes through stdin and stdout."""
    value = bytes(range(256)) * 4
    assert cli("documents", "put", "raw/bytes", stdin=value).returncode == 0
    assert cli("documents", "get", "raw/bytes").stdout == value
    assert "value_base64" in cli.json("documents", "get", "raw/bytes")


def test_a_document_has_versions_a_history_and_a_place_in_the_list(cli: Cli) -> None:
    """Goal: the commands agree with each other. Method: write twice, history, list, delete, get."""
    written = cli.json("documents", "put", "net/dns", "one", "--expect-version", "0")
    assert written["version"] == 1
    assert written["written"] == cli.json("documents", "get", "net/dns")["written"]
    assert cli.json("documents", "put", "net/dns", "two", "--expect-version", "1")["version"] == 2
    history = cli.json("documents", "history", "net/dns")["versions"]
    assert [(version["version"], version["value"]) for version in history] == [(2, "two"), (1, "one")]
    assert [found["name"] for found in cli.json("documents", "list", "net/")["documents"]] == ["net/dns"]
    assert cli.json("documents", "delete", "net/dns")["version"] == 3
    assert cli("documents", "get", "net/dns").returncode == 1


def test_a_write_that_expects_another_version_is_refused_with_the_present_one(cli: Cli) -> None:
    """Goal: a script can react without a second call. Method: --expect-version 9 on version 1."""
    cli.json("documents", "put", "cas", "x")
    code, error = cli.error("documents", "put", "cas", "y", "--expect-version", "9")
    assert (code, error["reason"], error["metadata"]["version"]) == (1, "VERSION_CONFLICT", "1")


@pytest.mark.parametrize(
    "words",
    [
        ("documents", "put", "Not A Name", "x"),
        ("documents", "put", "a", "x", "--file", "/dev/null"),
        ("documents", "put", "a", "--file", "/nonexistent"),
        ("token", "--lifetime", "soon"),
        ("token", "--lifetime", "400d"),
        ("services", "apply", "/nonexistent.toml"),
    ],
)
def test_invalid_input_is_named_with_its_field(cli: Cli, words: tuple[str, ...]) -> None:
    """Goal: exit code 64 and the option to mend. Method: table of wrong words."""
    code, error = cli.error(*words)
    assert code == 64
    assert all(problem["path"] and problem["problem"] for problem in error["problems"])
    assert error["problems"]


def test_all_problems_of_a_declaration_are_told_at_once_and_nothing_is_declared(
    cli: Cli, tmp_path: Path
) -> None:
    """Goal: no mending in rounds, nothing half done. Method: a file with two mistakes, then list."""
    path = tmp_path / "bad.toml"
    path.write_text(TWO_MISTAKES)
    code, error = cli.error("services", "apply", str(path))
    assert code == 64
    assert {"service.name", "service.instances.min"} <= {problem["path"] for problem in error["problems"]}
    assert cli.json("services", "list")["services"] == []


def test_services_of_one_file_count_all_or_none(cli: Cli, tmp_path: Path) -> None:
    """Goal: nothing half done. Method: a circle, then the same without it, dependent first."""
    path = tmp_path / "several.toml"
    several = [("good", ""), ("needy", 'depends_on = ["base"]'), ("base", 'depends_on = ["needy"]')]

    def write() -> None:
        table = '[[service]]\nname = "{}"\ncommand = ["sleep", "600"]\n{}\n'
        path.write_text("".join(table.format(*service) for service in several))

    write()
    code, error = cli.error("services", "apply", str(path))
    assert code == 64
    assert {"needy.depends_on", "base.depends_on"} == {problem["path"] for problem in error["problems"]}
    assert cli.json("services", "list")["services"] == []
    several[2] = ("base", "")
    write()
    dry = cli.json("services", "apply", str(path), "--dry-run")["services"]
    assert sorted(service["name"] for service in dry) == ["base", "good", "needy"]
    assert cli.json("services", "list")["services"] == []
    applied = cli.json("services", "apply", str(path))["services"]
    assert [service["version"] for service in applied] == [1, 1, 1]
    for name in ("needy", "base", "good"):
        cli.json("services", "stop", name)
    deadline = time.monotonic() + DEADLINE_S
    while cli.json("services", "list")["services"]:
        assert time.monotonic() < deadline, "a service is still declared"


def test_a_service_is_declared_runs_is_read_and_is_stopped(cli: Cli, tmp_path: Path) -> None:
    """Goal: the life of a service by commands alone. Method: dry run, apply, apply again, logs, stop."""
    path = tmp_path / "sleeper.toml"
    path.write_text(SLEEPER)
    assert cli.json("services", "apply", str(path), "--dry-run")["services"][0]["dry_run"]
    assert cli.json("services", "list")["services"] == []
    applied = cli.json("services", "apply", str(path), "--wait")["services"][0]
    assert [(one["host"], one["ready"]) for one in applied["instances"]] == [("host1", True)]
    assert cli.json("services", "apply", str(path))["services"][0]["unchanged"]
    assert b"awake" in cli("services", "logs", "sleeper").stdout
    assert cli.json("services", "stop", "sleeper")["stopped"]
    deadline = time.monotonic() + DEADLINE_S
    while cli.json("services", "list")["services"]:
        assert time.monotonic() < deadline, "the service is still declared"


def test_a_followed_stream_goes_on_until_it_is_interrupted(cli: Cli) -> None:
    """Goal: Ctrl-C ends a watch without noise. Method: two writes, each read at once, then SIGINT."""
    argv = [*TRELLIS, "documents", "watch", "follow/", "--json", "--settings", str(cli.host.settings_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        try:
            cli.json("documents", "put", "follow/a", "1")
            assert json.loads(watching.stdout.readline())["name"] == "follow/a"
            cli.json("documents", "put", "follow/a", "2")
            assert json.loads(watching.stdout.readline())["value"] == "2"
            watching.send_signal(signal.SIGINT)
            assert watching.wait(DEADLINE_S) == 130
            assert watching.stderr.read() == b""
        finally:
            watching.kill()  # else leaving the block waits for ever for one that did not end


def test_events_tell_who_owns_what(cli: Cli) -> None:
    """Goal: the journal reaches the command line in order. Method: the ownership of the founding."""
    events = cli.json("events")["events"]
    assert "ownership-assigned" in {event["kind"] for event in events}
    assert [event["index"] for event in events] == sorted(event["index"] for event in events)


def test_a_token_names_its_end(cli: Cli) -> None:
    """Goal: whoever hands it on knows how long it is good. Method: the fields of the answer."""
    assert set(cli.json("token", "--lifetime", "10m", "--host", "host2")) == {"token", "expires"}


def test_leadership_cannot_go_where_nobody_is(cli: Cli) -> None:
    """Goal: a typing error does not cost the leader. Method: transfer to an unknown host."""
    code, error = cli.error("leader", "transfer", "host9")
    assert (code, error["reason"]) == (1, "NOT_FOUND")


def test_a_host_of_a_cluster_cannot_make_another(cli: Cli) -> None:
    """Goal: `init` never overwrites an identity. Method: a second init."""
    code, error = cli.error("init")
    assert (code, error["reason"]) == (1, "CONFLICT")


def test_proxyless_clients_get_their_bootstrap(cli: Cli, tmp_path: Path) -> None:
    """Goal: the file is one that gRPC reads; an unwritable path is told by its option.

    Method: write it, then below a file.
    """
    path = tmp_path / "xds.json"
    assert cli("xds-bootstrap", "--output", str(path)).returncode == 0
    assert json.loads(path.read_text())["xds_servers"][0]["server_features"] == ["xds_v3"]
    refused = cli("xds-bootstrap", "--output", str(path / "below-a-file"))
    assert refused.returncode == 64
    assert b"--output" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process as another user")
def test_a_service_of_another_user_has_a_folder_of_its_own(cli: Cli, tmp_path: Path) -> None:
    """Goal: TRELLIS_STATE_DIR is of use to it. Method: it writes there, on a host that `init` has made."""
    cli.host.directory.parent.chmod(0o711)  # a temporary directory lets nobody through
    command = 'echo kept > "$TRELLIS_STATE_DIR/file" && cat "$TRELLIS_STATE_DIR/file"; exec sleep 600'
    file = tmp_path / "writer.toml"
    file.write_text(
        f"[service]\nname = 'writer'\nuser = 'nobody'\ncommand = ['/bin/sh', '-c', '{command}']\n"
    )
    cli.json("services", "apply", str(file), "--wait")
    deadline = time.monotonic() + DEADLINE_S
    while not (printed := cli("services", "logs", "writer", "--json").stdout.splitlines()):
        assert time.monotonic() < deadline
    assert [json.loads(line)["line"] for line in printed] == ["kept"]
    cli.json("services", "stop", "writer")


def test_nobody_else_can_read_a_key_or_administer(cli: Cli) -> None:
    """Goal: no secret on disk and no operators' door is open to other users of the machine.

    Method: the modes of everything below the identity, and of the sockets that decide who one is.
    """
    identity = cli.host.directory / "data" / "identity"
    files = [path for path in identity.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.suffix for path in files} >= {".key", ".pem", ".json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(identity.stat().st_mode) == 0o700
    run = cli.host.directory / "run"
    modes = {
        name: stat.S_IMODE((run / f"{name}.sock").stat().st_mode) for name in ("admin", "join", "service")
    }
    # Only root runs services as other users.
    assert modes == {"admin": 0o600, "join": 0o600, "service": 0o666 if os.geteuid() == 0 else 0o600}


def test_without_a_sidecar_every_read_is_unavailable(tmp_path: Path) -> None:
    """Goal: exit code 69 and how to start it, for each command. Method: settings only."""
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[host]\nname = "h"\nrun_dir = "{tmp_path}"\n[mesh]\naddress = "127.0.0.1:7400"\n')
    for words in (["status"], ["hosts"], ["events"], ["documents", "list"], ["services", "list"]):
        argv = [*TRELLIS, *words, "--settings", str(settings)]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S)
        assert ran.returncode == 69
        assert "trellis run --settings" in ran.stderr
