"""What a service needs of this host to be started, and whether it is there."""

import contextlib
import os
import resource
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mesh.adapters.child import uid_of
from mesh.errors import Problem
from mesh.state.service import ServiceSpec

_PASSED_ON: Final = ("PATH", "LANG", "TZ")
_PATH_DEFAULT: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def limit_address_space(pid: int, bytes_max: int) -> None:
    """The memory limit where no cgroup can give one. Bound: each process, not their sum."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        resource.prlimit(pid, resource.RLIMIT_AS, (bytes_max, bytes_max))


def service_environment(declared: Sequence[tuple[str, str]], given: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a service: see docs/services.md. `given` wins."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": _PATH_DEFAULT, **passed, **dict(declared), **given}


def check_command(spec: ServiceSpec) -> Problem | None:
    """Whether this host can run the service's command; None when it can."""
    path = dict(spec.environment).get("PATH", os.environ.get("PATH", _PATH_DEFAULT))
    if spec.directory and not Path(spec.directory).is_dir():
        return Problem("directory", f"{spec.directory} is not a directory here", "/srv/echo")
    program = spec.command[0] if spec.command else ""
    where = Path(spec.directory or "/") / program if "/" in program else program
    found = shutil.which(where, path=path)
    if found is None:
        return Problem(
            "command",
            f"{program!r} is not an executable file on this host",
            "/usr/bin/python3 -m services.echo.main",
        )
    if not _is_binary_or_script(found):
        return Problem("command", f"{found} is neither a binary nor begins with #!", "#!/bin/sh")
    return _check_user(spec.user)


def _check_user(user: str) -> Problem | None:
    if not user:
        return None
    uid = uid_of(user)
    if uid is None:
        return Problem("user", f"no user {user!r} on this host", "nobody")
    if os.geteuid() not in (0, uid):
        return Problem("user", f"only root may start a process as {user!r}", "leave it out")
    return None


def _is_binary_or_script(path: str) -> bool:
    # execvp would hand anything else to /bin/sh.
    try:
        with open(path, "rb") as file:
            return file.read(4).startswith((b"\x7fELF", b"#!"))
    except OSError:
        return True  # executable but not readable is allowed
