"""Reads one host's settings file and reports everything that is wrong with it at once."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mesh.errors import Problem, SettingsError
from mesh.settings.model import HostSettings, Section, with_derived_defaults
from mesh.settings.problems import problems_of
from mesh.settings.rules import check_rules

_SMALLEST = '[host] name = "host1" and [mesh] address = "10.0.0.1:7400" are enough'


def load_settings(path: Path) -> HostSettings:
    """The settings in *path*.

    Fails: `SettingsError` with every problem, each with its key path and a correct example.
    """
    return parse_settings(read_toml(path, example=_SMALLEST), source=str(path))


def parse_settings(raw: dict[str, Any], *, source: str = "settings") -> HostSettings:
    """Settings from parsed TOML; fails as `load_settings`."""
    problems: list[Problem] = []
    settings: HostSettings | None = None
    try:
        settings = HostSettings.model_validate(raw)
    except ValidationError as error:
        problems.extend(problems_of(error, HostSettings))
    problems.extend(check_rules(_valid_tables(with_derived_defaults(raw))))
    if problems or settings is None:
        raise SettingsError(f"{source} cannot be used: {_counted(problems)}.", problems)
    return settings


def _counted(problems: list[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _valid_tables(raw: dict[str, Any]) -> dict[str, Section]:
    """The tables that are right in themselves, so that rules about them can still be checked."""
    valid: dict[str, Section] = {}
    for name, info in HostSettings.model_fields.items():
        try:
            table = TypeAdapter[Any](info.annotation or Section).validate_python(raw.get(name, {}))
        except ValidationError:
            continue
        if name in raw and isinstance(table, Section):
            valid[name] = table
        elif isinstance(default := info.get_default(call_default_factory=True), Section):
            valid[name] = default
    return valid


def read_toml(path: Path, *, example: str) -> dict[str, Any]:
    """The parsed file; *example* is what could stand in one that is missing.

    Fails: `SettingsError` when it cannot be read or is not TOML, with the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = Problem(str(path), "does not exist", example)
    except OSError as error:
        problem = Problem(str(path), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), f"is not UTF-8 text: {error.reason} at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        problem = Problem(str(path), f"is not TOML: {error}", 'key = "value"')
    raise SettingsError(f"{path} cannot be used: 1 problem.", [problem])
