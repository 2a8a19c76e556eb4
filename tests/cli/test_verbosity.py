"""What gRPC's core prints by itself does not stand before our own errors, unless somebody wants it."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidecar.cli.main import app

VARIABLE = "GRPC_VERBOSITY"


@pytest.mark.parametrize(
    ("command", "before", "after"),
    [("status", None, "NONE"), ("status", "DEBUG", "DEBUG"), ("run", None, None)],
)
def test_commands_keep_grpc_quiet_and_a_sidecar_does_not(
    command: str, before: str | None, after: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: one error, ours; what was asked for is kept. Method: missing settings, so nothing runs."""
    monkeypatch.setenv(VARIABLE, "restored afterwards")
    if before is None:
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, before)
    CliRunner().invoke(app, [command, "--settings", str(tmp_path / "missing.toml")])
    assert os.environ.get(VARIABLE) == after
