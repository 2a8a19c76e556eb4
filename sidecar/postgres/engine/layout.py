"""Where the database's files are on this host, and who owns them.

    postgres/               the sidecar's (root's), the database's user may only pass
      data/                 the data directory, of the database's user
      data.new/             a clone under way, or one that is complete and waits to be put in place
      data.old/             what `data` was before, until what stands in its place was seen to run
      data.gone/            what is being deleted
      data.restored/        what is being made from a backup
      clone.json            says which of the two `data.new` is
      rewind.json           a rewind of `data` was begun
      rewound.json          it was ended, and `data` was not seen to be consistent since
      conf/                 what the server reads: written by the sidecar, read by the server
      tls/                  keys and certificates in generations, readable by the database's user
      postmaster.json       which process runs, for the next sidecar
      postgres.log          what the server prints
    run/                    its unix socket

Invariant: a folder that the sidecar writes into as root is never writable by the database's
user, except `data` itself, where names are created exclusively and links are not followed.
"""

import contextlib
import json
import os
import pwd
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh import failpoints
from mesh.adapters.child import owner_of, uid_of
from mesh.errors import Conflict, DatabaseFailed, Problem, SettingsError
from sidecar.postgres.engine import full_disk

USER_DEFAULT: Final = "postgres"
#: A unix socket's path has at most this many bytes (unix(7)).
_SOCKET_BYTES_MAX: Final = 107


def choose_user(configured: str) -> str:
    """Whom PostgreSQL runs as: empty means this process's own user.

    Fails: `SettingsError` when there is no such user, or it is root.
    """
    if os.geteuid() != 0:
        own = pwd.getpwuid(os.geteuid()).pw_name
        if configured not in ("", own):
            raise _user_error(f"only root can run PostgreSQL as {configured!r}", own)
        return ""
    user = configured or USER_DEFAULT
    uid = uid_of(user)
    if uid is None:
        raise _user_error(f"no user {user!r} on this host (useradd --system {user})", USER_DEFAULT)
    if uid == 0:
        raise _user_error("PostgreSQL refuses to run as root", USER_DEFAULT)
    return user


def _user_error(problem: str, example: str) -> SettingsError:
    return SettingsError("PostgreSQL has no user to run as.", [Problem("database.user", problem, example)])


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one host's database."""

    root: Path
    socket_folder: Path
    #: Empty: the user of this process.
    user: str = ""

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def fresh(self) -> Path:
        return self.root / "data.new"

    @property
    def former(self) -> Path:
        return self.root / "data.old"

    @property
    def gone(self) -> Path:
        return self.root / "data.gone"

    @property
    def restored(self) -> Path:
        return self.root / "data.restored"

    @property
    def conf(self) -> Path:
        return self.root / "conf"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def log(self) -> Path:
        return self.root / "postgres.log"

    @property
    def clone_note(self) -> Path:
        return self.root / "clone.json"

    @property
    def rewind_note(self) -> Path:
        return self.root / "rewind.json"

    @property
    def rewound_note(self) -> Path:
        return self.root / "rewound.json"

    @property
    def process_note(self) -> Path:
        return self.root / "postmaster.json"

    @property
    def user_name(self) -> str:
        """The name by which the kernel knows who runs PostgreSQL."""
        return pwd.getpwuid(self.uid).pw_name

    @property
    def uid(self) -> int:
        uid = owner_of(self.user)[0]
        return uid if uid >= 0 else os.geteuid()

    def prepare(self) -> None:
        """Make the folders. Fails: `SettingsError` when they cannot be made or reached, `DiskFull`."""
        socket = self.socket_folder / ".s.PGSQL.65535.lock"
        if len(os.fsencode(socket)) > _SOCKET_BYTES_MAX:
            raise _folder_error(f"{self.socket_folder} is too long for a unix socket")
        try:
            with full_disk.told(self.root):
                self._make_folders()
            self.check_way(self.data)
            self.check_way(self.socket_folder)
        except OSError as error:
            raise _folder_error(f"{error.filename or self.root} cannot be made ({error.strerror})") from error

    def _make_folders(self) -> None:
        for folder in (self.root, self.conf, self.tls):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._give(folder, uid=-1, mode=0o750)
        self.socket_folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._give(self.socket_folder, uid=self._numbers[0], mode=0o750)

    @property
    def _numbers(self) -> tuple[int, int]:
        return owner_of(self.user)

    def _give(self, path: Path, *, uid: int, mode: int) -> None:
        if self.user:
            os.chown(path, uid, self._numbers[1], follow_symlinks=False)
        path.chmod(mode)

    def check_way(self, path: Path, setting: str = "database.data_dir") -> None:
        """Every folder above must let the database's user pass. Fails: `SettingsError` about *setting*."""
        if not self.user:
            return
        uid, gid = self._numbers
        for folder in path.resolve().parents:
            state = folder.stat()
            bit = 0o100 if state.st_uid == uid else 0o010 if state.st_gid == gid else 0o001
            if not state.st_mode & bit:
                raise _folder_error(f"user {self.user!r} cannot pass {folder} (chmod o+x {folder})", setting)

    # ---- files for the server ------------------------------------------------------

    def write(
        self, path: Path, content: bytes, *, mode: int = 0o640, own: bool = False, durable: bool = True
    ) -> None:
        """Replace a file in one step; *own* makes it the database user's, else the sidecar's.

        Order: durable before it bears the name; without *durable* only whole, for what is written again
        before it counts after a loss of power. Fails: `DiskFull`, `DatabaseFailed`.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with full_disk.trouble_told(path.parent):
                descriptor = os.open(temporary, flags, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    if self.user:
                        uid, gid = self._numbers
                        os.fchown(descriptor, uid if own else -1, gid)
                    os.fchmod(descriptor, mode)
                    file.write(content)
                    file.flush()
                    if durable:
                        os.fsync(descriptor)
                temporary.rename(path)
                if durable:
                    sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def make_empty(self, path: Path) -> None:
        """An empty folder of the database's user alone, for a program of PostgreSQL to fill."""
        with full_disk.trouble_told(self.root):
            path.mkdir(mode=0o700)
            self._give(path, uid=self._numbers[0], mode=0o700)

    def note(self, path: Path, **facts: object) -> None:
        """Write one of the notes, durably."""
        self.write(path, json.dumps(facts, sort_keys=True).encode() + b"\n", mode=0o600)

    def read_note(self, path: Path) -> dict[str, object] | None:
        """One of the notes; None when there is none. What is no note counts as there and empty.

        Fails: `DatabaseFailed` when the disk does not give it.
        """
        with full_disk.trouble_told(path):
            try:
                found = json.loads(path.read_bytes())
            except FileNotFoundError:
                return None
            except ValueError:
                return {}
        return found if isinstance(found, dict) else {}

    def drop_note(self, path: Path) -> None:
        with full_disk.trouble_told(path):
            path.unlink(missing_ok=True)
            sync_folder(self.root)

    # ---- data directories ----------------------------------------------------------

    @property
    def is_clone_complete(self) -> bool:
        """`data.new` was verified."""
        with full_disk.trouble_told(self.root):
            return self._says_complete and self.fresh.is_dir()

    @property
    def _says_complete(self) -> bool:
        return bool((self.read_note(self.clone_note) or {}).get("complete"))

    @property
    def is_partial(self) -> bool:
        """A clone without its end and no data directory, or a rewind without its end."""
        with full_disk.trouble_told(self.root):
            if self.rewind_note.exists():
                return True
            return not self.data.is_dir() and (self.fresh.is_dir() or self.clone_note.exists())

    def put_in_place(self) -> None:
        """`data` becomes `data.old`, and the complete `data.new` becomes `data`.

        Where there is a `data.old` already, `data` is a copy that was never seen to run: that one is
        deleted, and what was there before both is kept.
        Every step can be the last before a crash: `resume` goes on. Nothing may run in either. Blocks.
        Fails: `Conflict` when `data.new` is not complete, `DiskFull`, `DatabaseFailed`.
        """
        if not self.is_clone_complete:
            raise Conflict(f"{self.fresh} is not a complete clone; it is not put in place: clone again")
        with full_disk.trouble_told(self.root):
            if self.former.is_dir():
                self._delete(self.data)
            elif self.data.is_dir():
                self.data.rename(self.former)
                sync_folder(self.root)
                failpoints.hit("database.copy.moved-aside")
            self.fresh.rename(self.data)
            failpoints.hit("database.copy.in-place")
            self._finish()

    def _finish(self) -> None:
        """The notes about what stood there before; that of the clone last, it leads here again."""
        sync_folder(self.root)
        self.drop_note(self.rewind_note)
        self.drop_note(self.rewound_note)
        self.drop_note(self.clone_note)

    def resume(self) -> None:
        """Finish or undo what a crash interrupted, before anything is started here. Blocks.

        Fails: `DiskFull`, `DatabaseFailed`.
        """
        with full_disk.trouble_told(self.root):
            if not self.data.is_dir():
                if self.is_clone_complete:
                    self.put_in_place()
                elif self.former.is_dir():
                    self.former.rename(self.data)
                    sync_folder(self.root)
            if self.data.is_dir() and self._says_complete and not self.fresh.is_dir():
                self._finish()
            if self.data.is_dir() and not self.is_clone_complete:
                self.drop_fresh()
            _remove(self.gone)

    def drop_fresh(self) -> None:
        """Delete an unfinished clone, and the note about it last. Blocks."""
        _remove(self.fresh)
        self.drop_note(self.clone_note)

    def drop_former(self) -> None:
        """Delete what `data` was before. Only when what stands in its place was seen to run. Blocks."""
        self._delete(self.former)

    def _delete(self, folder: Path) -> None:
        """Delete it whole: first its name, so that what is half deleted is never taken for data."""
        _remove(self.gone)
        with full_disk.trouble_told(folder):
            if folder.is_dir():
                folder.rename(self.gone)
                sync_folder(self.root)
        _remove(self.gone)


def sync_folder(folder: Path) -> None:
    """Make names in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    try:
        if folder.is_dir():
            shutil.rmtree(folder)
    except OSError as error:
        raise DatabaseFailed(f"{folder} cannot be deleted ({error}); delete it by hand.") from error


def _folder_error(problem: str, setting: str = "database.data_dir") -> SettingsError:
    example = "/var/lib/trellis/postgres"
    return SettingsError("The database has no usable folder.", [Problem(setting, problem, example)])
