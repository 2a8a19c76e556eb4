"""What a restore chooses among archived WAL, and what it copies: no server runs here."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import Conflict, DataDamaged
from mesh.ids import ClusterId, FencingTerm, HostId
from sidecar.postgres.engine.backup_store import Backup
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.local_data import Standing
from sidecar.postgres.engine.origin import claim, is_leftover
from sidecar.postgres.engine.restore import (
    fetch_script,
    furthest_line,
    put_restored_in_place,
    read_histories,
)
from sidecar.postgres.engine.tree_copy import TreeCopy
from sidecar.postgres.model import Lsn, Timeline

SIZE = 1 << 12
BACKUP = Backup(
    "20261122T072000Z", ClusterId("ab" * 16), HostId("host-1"), "7", Timeline(1), Lsn(0), Lsn(10), "15.18",
    "2026-11-22T07:20:00Z", "2026-11-22T07:21:00Z", 1,
)  # fmt: skip


def segment(folder: Path, name: str, wal: int, *, mtime: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(b"w" * wal + bytes(SIZE - wal))
    os.utime(path, (mtime, mtime))
    return path


def fetched(tmp_path: Path, name: str) -> bytes:
    script = tmp_path / "fetch.sh"
    script.write_text(fetch_script([tmp_path / "one", tmp_path / "two"]))
    subprocess.run(["sh", str(script), name, str(tmp_path / "got")], check=True)
    return (tmp_path / "got").read_bytes()


def test_of_several_parts_of_a_segment_the_one_with_the_most_wal_is_replayed(tmp_path: Path) -> None:
    """Goal: no commit is left out because a shorter one was touched later. Method: two; then a whole."""
    name = "0" * 23 + "5"
    more = segment(tmp_path / "one", f"{name}.partial", 900, mtime=1_000)
    segment(tmp_path / "two", f"{name}.partial", 300, mtime=2_000)
    assert fetched(tmp_path, name) == more.read_bytes()
    whole = segment(tmp_path / "two", name, 800, mtime=1)
    assert fetched(tmp_path, name) == whole.read_bytes()
    script = tmp_path / "fetch.sh"
    assert subprocess.run(["sh", str(script), "0" * 24, str(tmp_path / "x")], check=False).returncode == 1


def test_of_histories_that_fork_after_the_backup_the_furthest_is_taken(tmp_path: Path) -> None:
    """Goal: a higher number alone is no reason. Method: two timelines that leave 1, and one that leaves 2;
    then a fork that ends where the other does, which is refused by name.
    """
    (tmp_path / "00000002.history").write_text("1\t0/64\tx\n")
    (tmp_path / "00000003.history").write_text("1\t0/60\tx\n")
    segment(tmp_path, "00000002" + "0" * 15 + "1", 2_000, mtime=1)
    segment(tmp_path, "00000003" + "0" * 15 + "1.partial", 1_000, mtime=2)

    def chosen() -> Timeline:
        return furthest_line(BACKUP, read_histories([tmp_path]), [tmp_path])

    assert chosen() == 2
    segment(tmp_path, "00000003" + "0" * 15 + "1.partial", 2_000, mtime=2)
    with pytest.raises(Conflict, match=r"2 \(to 0/17D0\), 3 \(to 0/17D0\) go equally far"):
        chosen()
    (tmp_path / "00000004.history").write_text("1\t0/64\tx\n2\t0/1800\tx\n")
    assert chosen() == 4
    later = replace(BACKUP, end=Lsn(0x62))  # on 1, after 3 had left it
    assert furthest_line(later, read_histories([tmp_path]), [tmp_path]) == 4
    last = replace(BACKUP, timeline=Timeline(4), end=Lsn(0x1900))
    assert furthest_line(last, read_histories([tmp_path]), [tmp_path]) == 4


def copied(tmp_path: Path, source: Path) -> Path:
    layout = Layout(tmp_path / "postgres", tmp_path / "run", "daemon" if os.geteuid() == 0 else "")
    layout.root.mkdir(exist_ok=True)
    TreeCopy(source, layout.restored, layout).run()
    return layout.restored


def test_a_copy_is_whole_and_belongs_to_the_databases_user(tmp_path: Path) -> None:
    """Goal: the server can read all of it, and nobody else. Method: copy a small tree."""
    source = tmp_path / "data"
    (source / "base" / "1").mkdir(parents=True)
    (source / "base" / "1" / "2").write_bytes(b"rows")
    copy = copied(tmp_path, source)
    assert (copy / "base" / "1" / "2").read_bytes() == b"rows"
    owner = Layout(copy, copy, "daemon" if os.geteuid() == 0 else "").uid
    for path in (copy, copy / "base", copy / "base" / "1", copy / "base" / "1" / "2"):
        assert path.stat().st_uid == owner
        assert path.stat().st_mode & 0o7777 == (0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("kind", ["file", "folder", "fifo"])
def test_what_is_no_file_in_a_backup_is_refused(tmp_path: Path, kind: str) -> None:
    """Goal: root reads nothing for the database's user by a link of his. Method: a link to a file, to a
    folder, and a FIFO in the backup; the copy is still nobody else's when it ends.
    """
    source, secret = tmp_path / "data", tmp_path / "secret"
    source.mkdir()
    secret.mkdir()
    (secret / "key").write_bytes(b"key")
    if kind == "fifo":
        os.mkfifo(source / "1")
    else:
        (source / "1").symlink_to(secret / "key" if kind == "file" else secret)
    with pytest.raises(DataDamaged):
        copied(tmp_path, source)
    copy = tmp_path / "postgres" / "data.restored"
    assert copy.stat().st_uid == os.geteuid()
    assert not any(copy.iterdir())


def test_a_target_that_is_there_is_not_written_into(tmp_path: Path) -> None:
    """Goal: a planted link leads root nowhere. Method: the target is a link to a folder."""
    source, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (source, elsewhere, tmp_path / "postgres"):
        folder.mkdir()
    (source / "1").write_bytes(b"")
    (tmp_path / "postgres" / "data.restored").symlink_to(elsewhere)
    with pytest.raises(DataDamaged):
        copied(tmp_path, source)
    assert not any(elsewhere.iterdir())


def test_data_from_before_the_host_joined_are_left_over_until_others_are_restored(tmp_path: Path) -> None:
    """Goal: what was made in this cluster is told from what was there. Method: start without data, crash and
    start with what was made; another cluster's start; move the data away, restore, start again.
    """
    layout, own, other = Layout(tmp_path / "postgres", tmp_path / "run"), ClusterId("a"), ClusterId("b")
    layout.prepare()
    assert not is_leftover(layout)
    claim(layout, own)
    layout.data.mkdir()
    claim(layout, own)
    assert not is_leftover(layout)
    for _ in range(2):
        claim(layout, other)
        assert is_leftover(layout)
    Standing(layout).act(FencingTerm(7))

    layout.data.rename(layout.root / "away")
    layout.restored.mkdir()
    put_restored_in_place(layout)
    claim(layout, other)
    assert not is_leftover(layout)
    assert Standing(layout).primary_term == 0
    layout.data.rename(layout.root / "away2")
    claim(layout, other)
    assert not is_leftover(layout)
