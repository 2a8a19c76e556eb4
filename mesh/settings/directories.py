"""Whether the directories of a settings file can be had on this machine now, and making them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mesh.errors import Problem, SettingsError
from mesh.settings.model import HostSettings

#: Services may run as other users: they pass through to their own folder, and see nothing else.
DATA_MODE: Final = 0o711
#: They have to reach their socket here.
_RUN_MODE: Final = 0o755
_LOG_MODE: Final = 0o755


def check_directories(settings: HostSettings) -> tuple[Problem, ...]:
    """A problem for each directory that this user could not make or write to. Nothing is made."""
    return tuple(_problems(settings))


def _problems(settings: HostSettings) -> Iterator[Problem]:
    for key in ("data_dir", "run_dir", "log_dir"):
        path: Path = getattr(settings.host, key)
        present = _existing(path)
        if not present.is_dir():
            yield Problem(f"host.{key}", f"{present} is not a directory; choose another path")
        elif os.statvfs(present).f_flag & os.ST_RDONLY:
            yield Problem(f"host.{key}", f"{present} is mounted for reading only; mount it for writing")
        elif not os.access(present, os.W_OK | os.X_OK, effective_ids=True):
            yield Problem(
                f"host.{key}",
                f"{path} cannot be written by this user ({present} belongs to another one);"
                " run as the user that owns it, or choose another directory",
            )


def _existing(path: Path) -> Path:
    """The directory itself, or the nearest one above it that is there, as far as this user can see."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def make_run_directories(settings: HostSettings) -> None:
    """Makes `run_dir` and `log_dir`, which may vanish at boot; `data_dir` belongs to init and join.

    Fails: `SettingsError` with a problem for each of the three that cannot be used.
    """
    problems = list(check_directories(settings))
    if not problems:
        for key, mode in (("run_dir", _RUN_MODE), ("log_dir", _LOG_MODE)):
            problems += make_directory(f"host.{key}", getattr(settings.host, key), mode)
    if problems:
        raise SettingsError("This host cannot use its directories.", problems)


def make_directory(key: str, path: Path, mode: int) -> tuple[Problem, ...]:
    """Makes it where it is not there, with this mode whatever the umask; a problem where that fails."""
    try:
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(mode)
    except OSError as error:
        return (Problem(key, f"{path} cannot be made: {error.strerror}; choose another directory"),)
    return ()
