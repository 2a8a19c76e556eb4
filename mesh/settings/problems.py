"""Turns what pydantic found into problems a person can act on.

Each problem names its key as it stands in the file, says what is wrong in
words of the file (tables, keys, texts), and shows a line that would be right.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mesh.errors import Problem

Location = tuple[int | str, ...]

_TYPES: Final[Mapping[str, str]] = {
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}
_BOUNDS: Final[Mapping[str, str]] = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be one of {expected}",
    "too_short": "needs at least {min_length}",
}


def problems_of(error: ValidationError, model: type[BaseModel]) -> tuple[Problem, ...]:
    """Every problem of one validation, in the order of the file's model."""
    return tuple(_problem(details, model) for details in error.errors(include_url=False))


def _problem(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    location = details["loc"]
    path = key_path(location)
    if details["type"] == "extra_forbidden":
        return Problem(path, *_unknown_key(location, model))
    return Problem(path, _sentence(details), example_of(model, location))


def key_path(location: Location) -> str:
    """("service", 0, "name") as it is written: service[0].name."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "file"


def _sentence(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind in _TYPES:
        return f"{_TYPES[kind]}, not {_shown(details['input'])}"
    if kind in _BOUNDS:
        return f"{_BOUNDS[kind].format(**context)}, not {_shown(details['input'])}"
    return details["msg"]


def _shown(value: object) -> str:
    text = toml(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown_key(location: Location, model: type[BaseModel]) -> tuple[str, str]:
    parent = model_at(model, location[:-1])
    known = sorted(parent.model_fields) if parent else []
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"is not a known key; did you mean {close[0]!r}?", _line(parent, close[0])
    return f"is not a known key; known here: {', '.join(known)}", ""


def example_of(model: type[BaseModel], location: Location) -> str:
    """A correct line for the key at *location*; empty when the model shows none."""
    while location and isinstance(location[-1], int):
        location = location[:-1]
    return _line(model_at(model, location[:-1]), str(location[-1])) if location else ""


def _line(model: type[BaseModel] | None, key: str) -> str:
    info = model.model_fields.get(key) if model else None
    if info is None:
        return ""
    if info.examples:
        return f"{key} = {toml(info.examples[0])}"
    table = _model_in(info.annotation)
    if table is None:
        return ""
    lines = [_line(table, name) for name, each in table.model_fields.items() if each.is_required()]
    return f"[{key}] " + ", ".join(line for line in lines if line)


def model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model of the table at *location*."""
    found: type[BaseModel] | None = model
    for step in location:
        if found is None or isinstance(step, int):
            continue
        info: FieldInfo | None = found.model_fields.get(step)
        found = _model_in(info.annotation) if info else None
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, list, tuple):
        for each in get_args(annotation):
            if found := _model_in(each):
                return found
    return None


def toml(value: object) -> str:
    """*value* as TOML writes it on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)
