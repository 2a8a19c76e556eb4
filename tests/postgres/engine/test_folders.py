"""The database's folders through crashes and failing disks, and who is no member: no server runs here."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.errors import DatabaseFailed, SettingsError
from mesh.ids import ClusterId, FencingTerm, HostId, MemberId
from sidecar.postgres.engine.config import ConfigFiles, ServerConfig, copying_name
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.local_data import Standing, read_local_data
from sidecar.postgres.engine.observe import Receiver, receiver
from sidecar.postgres.engine.server_log import open_log, said_since

CONFIG = ServerConfig(ClusterId("ab" * 16), HostId("host-1"), 5432, ("127.0.0.1",), (MemberId("host-1.1"),))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "postgres", tmp_path / "run")
    made.prepare()
    return made


def copied(layout: Layout, mark: str) -> None:
    """A complete clone that waits to be put in place."""
    layout.drop_fresh()
    layout.note(layout.clone_note, complete=False)
    layout.make_empty(layout.fresh)
    (layout.fresh / mark).touch()
    layout.note(layout.clone_note, complete=True)


def test_what_was_there_is_kept_until_a_copy_was_seen_to_run(layout: Layout) -> None:
    """Goal: copies that never stream cost nobody the original.

    Method: three copies in a row, of which the third runs.
    """
    layout.make_empty(layout.data)
    (layout.data / "original").touch()
    for copy in ("first", "second", "third"):
        copied(layout, copy)
        layout.put_in_place()
        assert (layout.data / copy).exists()
        assert (layout.former / "original").exists()
        assert not layout.gone.exists()
    layout.drop_former()
    assert sorted(path.name for path in layout.root.iterdir() if path.is_dir()) == ["conf", "data", "tls"]
    copied(layout, "fourth")
    layout.put_in_place()
    assert (layout.former / "third").exists()


@pytest.mark.parametrize("crash_at", range(12))
def test_a_second_copy_that_is_interrupted_anywhere_is_whole(
    layout: Layout, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: neither the original nor the copy is lost, and nothing half deleted is taken for data.

    Method: put a second copy in place, cut off before each step on the disk (a deletion in its middle);
    then resume, as the next sidecar does, and put in place if that is still to be done.
    """
    layout.make_empty(layout.data)
    (layout.data / "original").touch()
    for copy in ("first", "second"):
        copied(layout, copy)
        if copy == "first":
            layout.put_in_place()
    with monkeypatch.context() as patch:
        steps = Steps(patch, crash_at)
        with contextlib.suppress(Crashed):
            layout.put_in_place()
    layout.resume()
    if steps.crashed and (layout.data / "first").exists():
        assert crash_at == 0
        layout.put_in_place()
    assert (layout.data / "second").exists()
    assert (layout.former / "original").exists()
    assert not layout.gone.exists()
    assert not layout.is_partial
    assert not layout.clone_note.exists()
    assert steps.crashed or crash_at > 7  # every step was cut off at


def test_a_deletion_that_is_interrupted_leaves_nothing_that_counts_as_data(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: what is half deleted is never put back.

    Method: a crash in the deletion of `data.old`; no `data`.
    """
    layout.make_empty(layout.data)
    layout.make_empty(layout.former)
    with monkeypatch.context() as patch:
        Steps(patch, 2)
        with pytest.raises(Crashed):
            layout.drop_former()
    assert not layout.former.exists()
    layout.data.rmdir()
    layout.resume()
    assert not layout.data.exists()
    assert not layout.gone.exists()


class Crashed(BaseException):
    """The sidecar dies here."""


class Steps:
    """Counts what changes the disk, and lets the sidecar die at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, crash_at: int) -> None:
        self.count = 0
        self.crashed = False
        self._crash_at = crash_at
        for owner, name in ((Path, "rename"), (shutil, "rmtree"), (os, "fsync"), (Path, "unlink")):
            patch.setattr(owner, name, self._cut_off(getattr(owner, name), name))

    def _cut_off(self, real: Callable[..., object], name: str) -> Callable[..., object]:
        def step(*given: object, **more: object) -> object:
            if self.count == self._crash_at:
                self.crashed = True
                if name == "rmtree":  # in its middle: the content is gone, the folder is there
                    for path in Path(str(given[0])).iterdir():
                        os.remove(path)
                raise Crashed
            self.count += 1
            return real(*given, **more)

        return step


def test_a_disk_that_fails_is_told_with_its_place(layout: Layout) -> None:
    """Goal: no error of the database's disk is any but the product's own.

    Method: folders where notes and files should be, a file where a folder should be.
    """
    standing = Standing(layout)
    (layout.root / "standing.json").mkdir()
    for read in (lambda: standing.sealed_under, lambda: standing.seal(FencingTerm(1))):
        with pytest.raises(DatabaseFailed, match=r"standing\.json cannot be read or written .*dmesg"):
            read()
    (layout.root / "standing.json").rmdir()
    standing.seal(FencingTerm(1))
    layout.clone_note.mkdir()
    acts: tuple[Callable[[], None], ...] = (
        lambda: layout.drop_note(layout.clone_note),
        lambda: layout.note(layout.clone_note, complete=True),
        layout.drop_fresh,
        layout.put_in_place,
        layout.resume,
    )
    for act in acts:
        with pytest.raises(DatabaseFailed, match=r"clone\.json"):
            act()
    layout.clone_note.rmdir()
    copied(layout, "new")
    layout.data.write_text("no folder")
    with pytest.raises(DatabaseFailed, match="data"):
        layout.put_in_place()
    with pytest.raises(DatabaseFailed):
        layout.make_empty(layout.data)
    with pytest.raises(SettingsError, match="cannot be made"):
        Layout(layout.data / "postgres", layout.socket_folder).prepare()


def test_a_log_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    """Goal: the end of a server is told although its log is not. Method: a folder, and no place at all."""
    assert said_since(tmp_path, 0) == []
    (tmp_path / "file").touch()
    assert said_since(tmp_path / "file" / "log", 0) == []


async def test_a_failing_disk_under_the_data_is_told_of_a_look(layout: Layout) -> None:
    """Goal: a look ends with the product's own error. Method: a note that cannot be read."""
    (layout.root / "standing.json").mkdir()
    layout.make_empty(layout.data)
    with pytest.raises(DatabaseFailed):
        await read_local_data(layout)


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount needs root")
def test_a_disk_that_became_read_only_is_told_as_such(layout: Layout) -> None:
    """Goal: what Linux does to a disk with errors ends no sidecar. Method: a read-only bind mount."""
    layout.make_empty(layout.data)
    layout.make_empty(layout.fresh)
    layout.note(layout.clone_note, complete=True)
    place = str(layout.root)
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        for act in (
            lambda: Standing(layout).seal(FencingTerm(1)),
            lambda: ConfigFiles(layout, 15).write(CONFIG),
            lambda: os.close(open_log(layout.log)),
            layout.put_in_place,
            layout.drop_fresh,
            lambda: layout.note(layout.rewind_note),
        ):
            with pytest.raises(DatabaseFailed, match=f"{place}.*Read-only file system"):
                act()
        layout.resume()  # nothing to do
        with pytest.raises(SettingsError, match="Read-only"):
            layout.prepare()
    finally:
        subprocess.run(["umount", place], check=True)
    layout.put_in_place()


def seen(subject: str, name: str = "host-2") -> Receiver:
    """How the server shows who receives."""
    zero = "0/0"
    row = (7, name, subject, "10.0.0.2", "streaming", zero, zero, zero, zero, "async", 0, 0.0, "")
    return receiver(row)


def test_a_removed_or_replaced_host_is_a_stranger() -> None:
    """Goal: WAL ends when membership does. Method: subjects as the server shows them, against members."""
    members = (MemberId("host-1.1"), MemberId("host-2.3"))
    assert seen("/CN=host-2/dnQualifier=3").member == "host-2.3"
    assert not seen("/CN=host-2/dnQualifier=3").is_stranger_among(members)
    assert seen("/CN=host-2/dnQualifier=2").is_stranger_among(members)
    assert seen("/CN=host-9/dnQualifier=1", "host-9").is_stranger_among(members)
    assert seen("/CN=host-1/dnQualifier=1").is_stranger_among(members)  # another's name
    assert seen("").is_stranger_among(members)
    copying = seen("/CN=host-9/dnQualifier=1", copying_name(HostId("host-9")))
    assert not copying.is_stranger
    assert copying.is_stranger_among(members)
    assert not copying.is_stranger_among(())  # not known yet
    assert seen("/CN=host-2").is_stranger_among(members)  # an operator of that name
    assert seen("/CN=host-2").is_stranger


def test_an_incarnation_that_the_server_cuts_off_is_not_guessed() -> None:
    """Goal: a long name is no stranger. Method: a subject of more than 63 bytes, as the server cuts it."""
    host = HostId("h" * 43)
    whole = f"/CN={host}/dnQualifier=12"
    assert len(whole) == 63 - 1
    assert seen(whole, host).member == f"{host}.12"
    cut = seen(f"/CN=x{host}/dnQualifier=123"[:63], f"x{host}")
    assert cut.member is None
    assert not cut.is_stranger_among((MemberId(f"x{host}.123"),))
    assert cut.is_stranger_among((MemberId("host-1.1"),))
