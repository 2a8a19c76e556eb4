"""Who may call what, as far as callers are known.

Northbound callers show no certificate (docs/decisions/0012), and an instance is reached by
three ways: through Envoy, directly by programs that speak xDS, and on its own host. So the
instance asks its callers itself, on every way: whoever has a token of the file `LCM_CALLERS`
is who the file says; all others are anonymous and may do what `LCM_ANONYMOUS` says, which is
nothing unless it is set.

Invariant: a method without a row here cannot be called.

Absent here: secrecy. A token that travels through a listener without TLS can be read on the way.
"""

import hashlib
import hmac
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from mesh.errors import Denied, Problem, SettingsError


class Role(IntEnum):
    """What a caller may do; each includes the ones before."""

    NONE = 0
    READER = 1
    DEPLOYER = 2


_DEPLOYMENTS: Final = "/trellis.lcm.v1.DeploymentService/"
_OPERATIONS: Final = "/trellis.lcm.v1.OperationService/"
TABLE: Final[Mapping[str, Role]] = MappingProxyType(
    {
        _DEPLOYMENTS + "CreateDeployment": Role.DEPLOYER,
        _DEPLOYMENTS + "GetDeployment": Role.READER,
        _DEPLOYMENTS + "ListDeployments": Role.READER,
        _DEPLOYMENTS + "UpdateDeployment": Role.DEPLOYER,
        _DEPLOYMENTS + "DeleteDeployment": Role.DEPLOYER,
        _DEPLOYMENTS + "WatchDeployments": Role.READER,
        _OPERATIONS + "GetOperation": Role.READER,
        _OPERATIONS + "ListOperations": Role.READER,
        _OPERATIONS + "WaitOperation": Role.READER,
        _OPERATIONS + "WatchOperation": Role.READER,
        _OPERATIONS + "CancelOperation": Role.DEPLOYER,
        # Health says nothing but "serving".
        "/grpc.health.v1.Health/Check": Role.NONE,
        "/grpc.health.v1.Health/Watch": Role.NONE,
    }
)
_EXAMPLE: Final = '[caller.ci]\nrole = "deployer"\ntoken_sha256 = "9f86d08…"'


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call; no name: anonymous."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Callers:
    """Everybody known, by the hash of the token; `anonymous` is what the others may."""

    by_digest: Mapping[str, Caller]
    anonymous: Role = Role.NONE

    def identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Fails: `Denied` for a token that nobody has: a typing error should not make one anonymous."""
        shown = [str(value) for key, value in metadata if key == "authorization"]
        if not shown:
            return Caller("", self.anonymous)
        scheme, _, token = shown[0].partition(" ")
        digest = hashlib.sha256(token.encode()).hexdigest()
        found = [caller for known, caller in self.by_digest.items() if hmac.compare_digest(known, digest)]
        if scheme.lower() != "bearer" or not found:
            raise Denied("The token shown is not one of a caller of this service. Ask its operator for one.")
        return found[0]


def check_allowed(method: str, caller: Caller) -> None:
    """Fails: `Denied`."""
    needed = TABLE.get(method)
    if needed is None:
        raise Denied(f"{method} cannot be called: no rule allows it.", method=method)
    if caller.role < needed:
        who = f"{caller.name} is {_word(caller.role)}" if caller.name else "No token was shown"
        raise Denied(
            f"{who}, and {method.rpartition('/')[2]} needs the role {_word(needed)}."
            " Send `authorization: Bearer TOKEN` with the token of a caller that has it.",
            method=method,
        )


def read_callers(environment: Mapping[str, str]) -> Callers:
    """From `LCM_CALLERS` (a TOML file) and `LCM_ANONYMOUS`. Fails: `SettingsError`."""
    problems: list[Problem] = []
    anonymous = _role(environment.get("LCM_ANONYMOUS", "none"), "LCM_ANONYMOUS", problems)
    path = environment.get("LCM_CALLERS", "")
    tables: Mapping[str, object] = {}
    if path:
        try:
            tables = tomllib.loads(Path(path).read_text()).get("caller", {})
        except (OSError, ValueError) as error:
            problems.append(Problem("LCM_CALLERS", f"{path} cannot be read: {error}", _EXAMPLE))
    known: dict[str, Caller] = {}
    for name, table in tables.items() if isinstance(tables, dict) else ():
        values = table if isinstance(table, dict) else {}
        digest = str(values.get("token_sha256", ""))
        role = _role(str(values.get("role", "")), f"caller.{name}.role", problems)
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            problems.append(
                Problem(
                    f"caller.{name}.token_sha256", "is not 64 hexadecimal digits", "echo -n TOKEN | sha256sum"
                )
            )
        known[digest] = Caller(name, role)
    if problems:
        raise SettingsError("The callers of the lifecycle manager cannot be read.", problems)
    return Callers(MappingProxyType(known), anonymous)


def _role(word: str, path: str, problems: list[Problem]) -> Role:
    try:
        return Role[word.upper()]
    except KeyError:
        words = ", ".join(_word(each) for each in Role)
        problems.append(Problem(path, f"{word!r} is not a role ({words})", "reader"))
        return Role.NONE


def _word(role: Role) -> str:
    return role.name.lower()
