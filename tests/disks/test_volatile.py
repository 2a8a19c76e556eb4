"""The disk that loses power is as the tests believe: what is synced stays, and only that is certain."""

import errno
import random

import pytest

from tests.disks.volatile import PAGE, Directory, DiskError, File, VolatileDisk

LIVES = 40


def made(path: str = "/a") -> tuple[VolatileDisk, File]:
    """A disk with one file on it that nobody has synced."""
    disk, file = VolatileDisk(), File(0o600)
    disk.put(path, file)
    disk.write(file, b"old" * PAGE, 0)
    return disk, file


def test_what_was_synced_survives() -> None:
    """Goal: an honest disk. Method: sync file and directory, write on, cut the power again and again."""
    for seed in range(LIVES):
        disk, file = made()
        disk.sync(file)
        disk.sync(disk.root)
        disk.write(file, b"new", 5 * PAGE)
        disk.lose_power(random.Random(seed))
        assert disk.find("/a") is file
        assert bytes(file.seen[: 3 * PAGE]) == b"old" * PAGE


def test_what_was_not_synced_is_lost_kept_or_torn() -> None:
    """Goal: all three fates happen. Method: one page written over, many losses of power."""
    fates = set()
    for seed in range(LIVES):
        disk, file = made()
        disk.sync(file)
        disk.sync(disk.root)
        disk.write(file, b"n" * PAGE, 0)
        disk.lose_power(random.Random(seed))
        news = bytes(file.seen[:PAGE]).count(b"n")
        fates.add("lost" if news == 0 else "kept" if news == PAGE else "torn")
    assert fates == {"lost", "kept", "torn"}


def test_a_name_survives_only_with_its_directory() -> None:
    """Goal: fsync of a file brings no name over. Method: sync the file alone; then the directory as well."""
    found = set()
    for seed in range(LIVES):
        disk, file = made()
        disk.sync(file)
        disk.lose_power(random.Random(seed))
        found.add("a" in disk.root.seen)
    assert found == {True, False}


def test_a_rename_inside_a_directory_is_one_step() -> None:
    """Goal: never both names, never neither. Method: rename over another file, cut the power."""
    for seed in range(LIVES):
        disk, draft = made("/draft")
        old = File(0o600)
        disk.put("/final", old)
        disk.sync(disk.root)
        disk.rename("/draft", "/final")
        disk.lose_power(random.Random(seed))
        assert disk.root.seen in ({"draft": draft, "final": old}, {"final": draft})


def test_a_failed_sync_leaves_data_that_is_seen_and_not_kept() -> None:
    """Goal: the trap that Linux sets. Method: sync fails, the next one succeeds, the power is cut."""
    disk, file = made()
    disk.sync(file)
    disk.sync(disk.root)
    disk.write(file, b"n" * PAGE, 0)
    disk.failing_syncs = 1
    with pytest.raises(DiskError, match="EIO"):
        disk.sync(file)
    disk.sync(file)
    assert bytes(file.seen[:PAGE]) == b"n" * PAGE
    disk.lose_power(random.Random(1))
    assert bytes(file.seen[:PAGE]) == (b"old" * PAGE)[:PAGE]


def test_a_full_disk_and_a_lost_handle_fail() -> None:
    """Goal: errors as processes know them. Method: more than fits; a handle of before the loss of power."""
    disk = VolatileDisk(capacity=2 * PAGE)
    folder = Directory(0o700)
    disk.put("/d", folder)
    disk.put("/d/a", File(0o600))
    handle = disk.open("/d/a")
    disk.write(disk.file("/d/a", handle), bytes(PAGE), 0)
    with pytest.raises(DiskError) as full:
        disk.write(disk.file("/d/a", handle), bytes(3 * PAGE), 0)
    assert full.value.errno == errno.ENOSPC
    disk.lose_power(random.Random(0))
    with pytest.raises(DiskError) as gone:
        disk.file("/d/a", handle)
    assert gone.value.errno == errno.EIO
