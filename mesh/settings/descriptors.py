"""Finds the contract of a declared service: a descriptor file or a generated module."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Protocol

from google.protobuf.descriptor import FileDescriptor

from mesh.errors import InvalidRequest, Problem
from mesh.state.service import MethodPolicy
from mesh.wire.policy import policies_of, services_of


class Source(Protocol):
    """Where a declaration says that its contract is."""

    @property
    def services(self) -> tuple[str, ...]: ...
    @property
    def descriptor_set(self) -> str: ...
    @property
    def module(self) -> str: ...


def read_policies(source: Source, folder: Path) -> tuple[tuple[MethodPolicy, ...], tuple[str, ...]]:
    """Policies of the routed methods, and the full names of the routed services.

    A relative descriptor file is looked for in *folder*.
    Fails: `InvalidRequest` with paths relative to the grpc table.
    """
    contract = _contract(source, folder)
    if contract is None:
        return (), source.services
    try:
        present, policies = services_of(contract), policies_of(contract)
    except InvalidRequest as error:
        raise _refused("descriptor_set", str(error), 'descriptor_set = "echo.binpb"') from error
    services = source.services or present
    missing = [name for name in services if name not in present]
    if missing or not services:
        known = ", ".join(present) or "none"
        raise _refused("services", f"{', '.join(missing) or 'none'}: not in the contract (there: {known})")
    routed = tuple(policy for policy in policies if policy.path[1:].partition("/")[0] in services)
    return routed, services


def _contract(source: Source, folder: Path) -> bytes | ModuleType | None:
    if source.descriptor_set:
        return _from_file(folder / source.descriptor_set)
    if source.module:
        return _from_module(source.module)
    return None


def _from_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise _refused("descriptor_set", problem, f"buf build -o {path.name}") from error


def _from_module(name: str) -> ModuleType:
    example = 'module = "trellis.echo.v1.echo_pb2"'
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise _refused("module", f"{name} cannot be imported: {error}", example) from error
    if not isinstance(getattr(module, "DESCRIPTOR", None), FileDescriptor):
        raise _refused("module", f"{name} is no generated module", example)
    return module


def _refused(path: str, problem: str, example: str = "") -> InvalidRequest:
    return InvalidRequest("The contract cannot be read.", [Problem(path, problem, example)])
