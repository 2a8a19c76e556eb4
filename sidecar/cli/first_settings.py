"""Writes a host's first settings file, for `trellis init` and `trellis join` where there is none."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import InvalidRequest, OutcomeUnknown, Problem, TrellisError
from mesh.settings import Endpoint, HostSettings, load_settings, parse_settings
from mesh.settings.example import example_settings
from mesh.settings.values import parse_endpoint


@dataclass(frozen=True, slots=True)
class FirstWords:
    """What the command line said about the host; empty: nothing."""

    name: str = ""
    address: str = ""
    virtual_ip: str = ""
    interface: str = ""

    def __bool__(self) -> bool:
        return any((self.name, self.address, self.virtual_ip, self.interface))


@contextmanager
def first_settings(path: Path, words: FirstWords) -> Iterator[HostSettings]:
    """As `load_or_write`, for a command that may be refused: then a file just written is taken away again.

    So the command with corrected words finds what the refused one found. When the outcome is
    unknown the file stays, as whatever else was done.
    """
    was_there = os.path.lexists(path)  # unlike Path.exists, no error where this user may not look
    settings = load_or_write(path, words)
    try:
        yield settings
    except OutcomeUnknown:
        raise
    except TrellisError:
        if not was_there:
            path.unlink(missing_ok=True)
        raise


def load_or_write(path: Path, words: FirstWords) -> HostSettings:
    """The settings in *path*, which is written first when it is not there and the words suffice.

    Fails: `SettingsError` for what is wrong in the file; `InvalidRequest` when the
    words say something else than a file that exists, are not enough, or are wrong.
    """
    if not words or os.path.lexists(path):
        settings = load_settings(path)
        _check_agrees(path, settings, words)
        return settings
    if not words.name or not words.address:
        problem = Problem(
            "--name",
            "and --address are both needed to write settings",
            "--name host1 --address 10.0.0.1:7400",
        )
        raise InvalidRequest("Nothing was done.", [problem])
    if words.interface and not words.virtual_ip:
        problem = Problem("--interface", "is of use with --virtual-ip only", "--virtual-ip 10.0.0.100:8080")
        raise InvalidRequest("Nothing was done.", [problem])
    text = example_settings(
        words.name,
        _endpoint("--address", words.address),
        virtual_ip=_endpoint("--virtual-ip", words.virtual_ip) if words.virtual_ip else None,
        interface=words.interface,
    )
    settings = parse_settings(tomllib.loads(text), source=str(path))
    _write(path, text)
    return settings


def _check_agrees(path: Path, settings: HostSettings, words: FirstWords) -> None:
    virtual_ip = str(settings.virtual_ip.endpoint) if settings.virtual_ip else ""
    interface = settings.virtual_ip.interface if settings.virtual_ip else ""
    pairs = (
        ("--name", words.name, settings.host.name),
        ("--address", words.address, str(settings.mesh.address)),
        ("--virtual-ip", words.virtual_ip, virtual_ip),
        ("--interface", words.interface, interface),
    )
    problems = [
        Problem(
            option,
            f"is {said}, but {path} exists and says {written or 'nothing'}",
            "edit that file, leave the option out",
        )
        for option, said, written in pairs
        if said and said != written
    ]
    if problems:
        raise InvalidRequest("Nothing was done.", problems)


def _endpoint(option: str, text: str) -> Endpoint:
    try:
        return parse_endpoint(text)
    except ValueError as error:
        raise InvalidRequest("Nothing was done.", [Problem(option, str(error), "10.0.0.1:7400")]) from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        problem = Problem(
            "--settings", f"{path} cannot be written: {error.strerror}", "/etc/trellis/settings.toml"
        )
        raise InvalidRequest("Nothing was done.", [problem]) from error
