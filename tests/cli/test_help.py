"""Help suffices to use a command, and comes at once."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from sidecar.cli.main import app

#: Each costs a noticeable part of a second.
SLOW = ("grpc", "google.protobuf", "pydantic", "tenacity", "cryptography", "rich.table", "psutil")


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_every_promised_command_is_there() -> None:
    """Goal: no command appears or vanishes unnoticed; they are a stable surface.

    Method: compare the set of names.
    """
    assert set(COMMANDS) == {
        "init", "token", "join", "run", "status", "hosts", "events", "xds-bootstrap", "demo",
        "services apply", "services list", "services stop", "services restart", "services logs",
        "documents put", "documents get", "documents watch", "documents history", "documents list",
        "documents delete", "leader show", "leader transfer", "host drain", "host undrain", "host remove",
        "failpoints", "db status", "db declare", "db switchover", "db failover",
        "db backup", "db restore", "sim",
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_of_itself(name: str) -> None:
    """Goal: help suffices without a manual. Method: look for the example's own name."""
    text = COMMANDS[name].help or ""
    assert "Example" in text
    assert f"trellis {name}" in text


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run" and name != "xds-bootstrap"])
def test_every_command_can_print_json(name: str) -> None:
    """Goal: everything can be scripted. Method: the options of each command."""
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


def test_help_does_not_wait_for_modules_that_only_commands_need() -> None:
    """Goal: completion and help come at once.

    Method: a fresh interpreter lists the slow modules it has loaded.
    """
    program = f"import sys, sidecar.cli.main; print([name for name in {SLOW!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--bogus"], ["status", "--bogus"], ["documents", "put"], ["nonsense"]])
def test_words_that_make_no_sense_end_with_usage(words: list[str]) -> None:
    """Goal: exit code 64, never a traceback. Method: table of wrong words, as processes."""
    ran = subprocess.run([sys.executable, "-m", "sidecar.cli.main", *words], capture_output=True, text=True)
    assert ran.returncode == 64
    assert "Traceback" not in ran.stderr


def test_with_json_words_that_make_no_sense_are_one_object_too() -> None:
    """Goal: a program never has to read a drawn box. Method: wrong words with --json."""
    for words in (["status", "--bogus", "--json"], ["status", "--json", "--timeout", "0"], ["--json"]):
        ran = subprocess.run(
            [sys.executable, "-m", "sidecar.cli.main", *words], capture_output=True, text=True
        )
        assert (ran.returncode, ran.stdout) == (64, "")
        told = json.loads(ran.stderr)
        assert told["exit_code"] == 64
        assert told["error"]["reason"] == "INVALID_REQUEST"
        assert told["error"]["problems"][0]["example"].endswith("--help")


def test_the_version_is_printed_without_settings() -> None:
    """Goal: it can be asked on a bare machine. Method: no file anywhere."""
    ran = subprocess.run(
        [sys.executable, "-m", "sidecar.cli.main", "--version"], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout.split()[0]) == (0, "trellis")
