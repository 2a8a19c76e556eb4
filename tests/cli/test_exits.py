"""Scripts rely on the exit codes: each kind of error has its own."""

import json

import pytest

from mesh import errors
from sidecar.cli import exits

PROBLEM = errors.Problem("timers.lease_ms", "is 10, but must be at least 300", "1200")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Refused("no"), 1),
        (errors.VersionConflict("no", version=3), 1),
        (errors.NotFound("no"), 1),
        (errors.Conflict("no"), 1),
        (errors.Corruption("log", "checksum of record 7"), 1),
        (errors.InvalidRequest("no", [PROBLEM]), 64),
        (errors.SettingsError("no", [PROBLEM]), 64),
        (errors.Unavailable("no"), 69),
        (errors.NoLeader("no"), 69),
        (errors.NotLeader("no"), 69),
        (errors.QueueFull("no"), 69),
        (errors.Fenced("no"), 69),
        (errors.OutcomeUnknown("no"), 75),
        (errors.Denied("no"), 77),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: errors.TrellisError, code: int) -> None:
    """Goal: a script knows whether to repeat, mend or ask. Method: table of errors."""
    assert exits.exit_code(error) == code


def test_every_problem_is_printed_with_its_path_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: standard output stays clean and nothing is left out. Method: two problems, both streams."""
    second = errors.Problem("mesh.address", "is missing", "10.0.0.1:7400")
    code = exits.report(errors.SettingsError("2 problems.", [PROBLEM, second]), as_object=False)
    printed = capsys.readouterr()
    assert code == 64
    assert printed.out == ""
    for text in ("2 problems.", "timers.lease_ms", "1200", "mesh.address", "10.0.0.1:7400"):
        assert text in printed.err


def test_brackets_in_an_error_are_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the names of TOML tables are not swallowed by the renderer.

    Method: text that looks like markup.
    """
    exits.report(errors.Refused("[red]x[/red] and [host] stay"), as_object=False)
    assert "[red]x[/red] and [host] stay" in capsys.readouterr().err


def test_with_json_the_error_is_one_object_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: programs parse errors as they parse answers. Method: compare the whole object."""
    code = exits.report(errors.InvalidRequest("wrong", [PROBLEM], service="echo"), as_object=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err) == {
        "error": {
            "reason": "INVALID_REQUEST",
            "message": "wrong",
            "metadata": {"service": "echo"},
            "problems": [
                {"path": "timers.lease_ms", "problem": "is 10, but must be at least 300", "example": "1200"}
            ],
        },
        "exit_code": code,
    }
