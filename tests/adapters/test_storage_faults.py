"""What the log store does when the process, the file or the disk fails under it."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.adapters.sqlite_log import SqliteLog
from mesh.errors import Conflict, Corruption, StorageFailed
from mesh.raft.model import Ready, Restored
from tests.adapters.log_writing_program import CLUSTER, MEMBER, data_of
from tests.adapters.test_sqlite_log import entries, hard, snapshot

PROGRAM = [sys.executable, "-m", "tests.adapters.log_writing_program"]


def load(directory: Path) -> Restored:
    store = SqliteLog(directory, CLUSTER, MEMBER, create=False)
    try:
        return store.load()
    finally:
        store.close()


def last_of(restored: Restored) -> tuple[int, int]:
    if restored.entries:
        return restored.entries[-1].index, restored.entries[-1].term
    assert restored.snapshot is not None
    return restored.snapshot.meta.last.index, restored.snapshot.meta.last.term


@pytest.mark.integration
def test_a_writer_killed_at_any_moment_loses_nothing_it_reported_durable(tmp_path: Path) -> None:
    """SIGKILL at random moments, twelve lives of one directory; the log may be at most one batch ahead."""
    chance = random.Random(7)
    for life in range(12):
        writer = subprocess.Popen([*PROGRAM, str(tmp_path), str(life)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        reported = [writer.stdout.readline()]
        threading.Event().wait(chance.uniform(0.0, 0.15))  # the moment of death is the input
        writer.kill()
        reported += writer.stdout.read().splitlines()
        writer.stdout.close()
        writer.wait()
        whole = [line.split() for line in reported if len(line.split()) == 2]
        durable_last, durable_term = map(int, whole[-1])
        restored = load(tmp_path)
        last, term = last_of(restored)
        assert (term, last) >= (durable_term, durable_last)
        assert term > durable_term or last <= durable_last + 8
        assert all(each.data == data_of(each.index, each.term) for each in restored.entries)


def contents(restored: Restored) -> object:
    return restored.hard_state, restored.snapshot, restored.entries


def test_no_flipped_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Bytes of every file of a store whose write-ahead log is still full, one at a time.

    Either the content is what it was (the byte meant nothing) or opening fails.
    """
    home, trial = tmp_path / "home", tmp_path / "trial"
    store = SqliteLog(home, CLUSTER, MEMBER, create=True)
    store.save(Ready(hard_state=hard(1, 4), entries=entries(1, 5), must_sync=True))
    store.save_snapshot(snapshot(2))
    store.save(Ready(hard_state=hard(1, 5), entries=entries(6, 8), must_sync=True))
    copied = tmp_path / "copied"
    shutil.copytree(home, copied)  # as a killed process leaves it
    store.close()
    shutil.rmtree(home)
    clean = tmp_path / "clean"
    shutil.copytree(copied, clean)
    expected = contents(load(clean))  # and as a stopped one leaves it
    chance = random.Random(11)
    noticed = 0
    for source in (copied, clean):
        for file in sorted(source.iterdir()):
            size = file.stat().st_size
            for position in sorted(chance.sample(range(size), min(size, 120))):
                shutil.rmtree(trial, ignore_errors=True)
                shutil.copytree(source, trial)
                with (trial / file.name).open("r+b") as target:
                    target.seek(position)
                    byte = target.read(1)[0]
                    target.seek(position)
                    target.write(bytes([byte ^ (1 << chance.randrange(8))]))
                try:
                    assert contents(load(trial)) == expected, f"{file.name} byte {position}"
                except (Corruption, StorageFailed, Conflict):
                    noticed += 1
    assert noticed > 100


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_truncated_file_is_never_a_shorter_log(tmp_path: Path, suffix: str) -> None:
    """Cut at every eighth. Cutting off the page of an empty table changes nothing and may pass."""
    home, copied = tmp_path / "home", tmp_path / "copied"
    store = SqliteLog(home, CLUSTER, MEMBER, create=True)
    for index in range(1, 60):
        store.save(Ready(hard_state=hard(1), entries=entries(index, index), must_sync=True))
    shutil.copytree(home, copied)
    store.close()
    expected = contents(load(home))
    source = copied if suffix else home
    name = f"log.sqlite{suffix}"
    size = (source / name).stat().st_size
    noticed = 0
    for part in range(8):
        trial = tmp_path / f"trial{part}"
        shutil.copytree(source, trial)
        os.truncate(trial / name, size * part // 8)
        try:
            assert contents(load(trial)) == expected
        except (Corruption, StorageFailed):
            noticed += 1
    assert noticed >= 7


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(store: SqliteLog) -> int:
    """Save entries until the disk is full; the last index that was saved."""
    for index in range(1, 2_000):
        try:
            store.save(Ready(hard_state=hard(1), entries=entries(index, index), must_sync=True))
        except StorageFailed:
            return index - 1
    raise AssertionError("the disk never filled")


def test_a_full_disk_stops_the_store_and_loses_nothing(tmp_path: Path) -> None:
    """The write that did not fit is not there; nothing is written after it, until there is room again."""
    with small_disk(tmp_path / "disk", "2m"):
        home = tmp_path / "disk" / "data"
        store = SqliteLog(home, CLUSTER, MEMBER, create=True)
        ballast = tmp_path / "disk" / "ballast"
        ballast.write_bytes(bytes(200_000))
        durable = fill(store)
        with pytest.raises(StorageFailed, match="full"):
            store.save(Ready(hard_state=hard(2), must_sync=True))
        store.close()
        assert durable > 10
        with pytest.raises(StorageFailed, match="full"):
            load(home)
        ballast.unlink()
        assert last_of(load(home)) == (durable, 1)


def test_a_disk_that_is_full_when_a_snapshot_comes_stops_the_store(tmp_path: Path) -> None:
    """Goal: half a snapshot is never taken for one. Method: a snapshot of 4 MiB on a disk of 2, then load."""
    with small_disk(tmp_path / "disk", "2m"):
        store = SqliteLog(tmp_path / "disk" / "data", CLUSTER, MEMBER, create=True)
        store.save(Ready(hard_state=hard(1, 3), entries=entries(1, 3), must_sync=True))
        with pytest.raises(StorageFailed, match="snapshot file"):
            store.save_snapshot(snapshot(2, data=bytes(4 << 20)))
        store.close()
        assert load(tmp_path / "disk" / "data").snapshot is None


@pytest.mark.integration
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_failed_fsync_is_fatal_at_once(tmp_path: Path, error: str) -> None:
    """The kernel fails every fsync from the twentieth on, after the log is open.

    Nothing is acknowledged after the first failure.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    injected = f"inject=fsync,fdatasync:error={error}:when=20+"
    run = subprocess.run(
        [
            strace,
            "-f",
            "-qq",
            "-o",
            str(tmp_path / "trace"),
            "-e",
            injected,
            *PROGRAM,
            str(tmp_path / "data"),
            "1",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "ptrace" in run.stderr:
        pytest.skip(f"strace may not trace here: {run.stderr.strip()}")
    assert run.returncode == 3, run.stderr
    lines = run.stdout.splitlines()
    assert lines[-1] == StorageFailed.reason
    assert 2 <= len(lines) <= 20
    durable_last, durable_term = map(int, lines[-2].split())
    last, term = last_of(load(tmp_path / "data"))
    assert (term, last) >= (durable_term, durable_last)
