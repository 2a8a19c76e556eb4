"""The log store on disks that fail for real: killed, flipped, torn, and without power."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.sqlite_log import SqliteLog
from mesh.errors import Corruption, StorageFailed
from mesh.raft.model import Ready
from tests.adapters.log_writing_program import CLUSTER, MEMBER
from tests.adapters.test_sqlite_log import entries, hard
from tests.disks.flips import end_of, lay_out, load
from tests.disks.lives import PLACES, last_of
from tests.disks.powered import PoweredDisk
from tests.harness.processes import ROOT

MEMORY = Path("/dev/shm")
#: A life that ends at once when the fsync of its second write fails.
UNLUCKY = """
import os, sys
from pathlib import Path
from mesh.errors import StorageFailed
from tests.disks.test_store import *
home = Path(sys.argv[1])
store = SqliteLog(home, CLUSTER, MEMBER, create=True)
store.save(Ready(hard_state=hard(1), entries=entries(1, 3), must_sync=True))
(home.parent / ".power").write_text("fail 1")
try:
    store.save(Ready(hard_state=hard(2, 0, MEMBER), entries=entries(4, 6, 2), must_sync=True))
except StorageFailed:
    os._exit(7)
"""
CAMPAIGN_S = 280.0


@pytest.fixture
def quick() -> Iterator[Path]:
    """A directory where fsync costs nothing: for what is about processes, not about power."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="trellis-") as made:
        yield Path(made)


def started(*words: object) -> "subprocess.Popen[str]":
    """A campaign in a process of its own."""
    argv = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def result(campaign: "subprocess.Popen[str]") -> dict[str, Any]:
    """What it found. Fails: with what it complained of."""
    try:
        out, complaint = campaign.communicate(timeout=CAMPAIGN_S)
    finally:
        campaign.kill()
    assert campaign.returncode == 0, complaint[-3000:]
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.mark.integration
def test_hundreds_of_killed_writers_lose_nothing_they_called_durable(quick: Path) -> None:
    """Goal: no moment of death loses an entry, a term or a vote.

    Method: 300 lives of one store, each killed at a random moment or at a named place of the store.
    """
    told = result(started("tests.disks.lives", quick / "raft", 1, 300))
    assert set(told["deaths"]) == {"any moment", *PLACES}
    print(told)


@pytest.mark.integration
def test_hundreds_of_losses_of_power_lose_nothing_that_was_called_durable(tmp_path: Path) -> None:
    """Goal: what was not synced may be lost, kept or torn, and it makes no difference.

    Method: 200 lives on a disk that forgets; each writer is killed, then the power is cut.
    """
    with PoweredDisk(tmp_path / "disk"):
        told = result(started("tests.disks.lives", tmp_path / "disk" / "raft", 2, 200, "--power"))
    assert set(told["deaths"]) == {"any moment", *PLACES}
    print(told)


@pytest.mark.integration
def test_no_changed_byte_of_any_file_goes_unnoticed(quick: Path) -> None:
    """Goal: never a shorter log, never a vote lost, whatever bit turns.

    Method: every byte of every file of a small store, as a killed process and as a stopped one leaves
    it, changed one after the other. Watermark and snapshot have no byte without a meaning.
    """
    halves = [started("tests.disks.flips", quick / str(part), part, 2) for part in range(2)]
    found: dict[str, dict[str, int]] = {}
    for half in map(result, halves):
        for name, ends in half.items():
            for end, count in ends.items():
                found.setdefault(name, {})[end] = found.get(name, {}).get(end, 0) + count
    for name in ("killed/watermark", "stopped/watermark", "killed/snapshot-1-2", "stopped/snapshot-1-2"):
        assert set(found[name]) == {"CORRUPTION"}, found
    assert found["killed/log.sqlite-wal"]["CORRUPTION"] > 1_000
    assert not any("STORAGE_FAILED" in ends for ends in found.values()), found
    print(found)


def test_no_file_that_is_cut_missing_empty_or_zeroed_makes_a_shorter_log(tmp_path: Path) -> None:
    """Goal: no loss of a part is taken for less history.

    Method: each file, and the database together with its write-ahead log, in turn cut at each
    quarter, removed, emptied, overwritten with zeros page by page, and pages exchanged.
    """
    killed, stopped = lay_out(tmp_path)
    for source in (killed, stopped):
        trial = tmp_path / f"first-{source.name}"
        shutil.copytree(source, trial)
        expected = load(trial)
        names = sorted(path.name for path in source.iterdir() if path.name != "lock")
        for group in [[name] for name in names] + [["log.sqlite", "log.sqlite-wal"]]:
            for number, damaged in enumerate(_damages(source, group)):
                trial = tmp_path / "trial"
                shutil.rmtree(trial, ignore_errors=True)
                shutil.copytree(source, trial)
                for name, data in damaged.items():
                    if data is None:
                        (trial / name).unlink(missing_ok=True)
                    else:
                        (trial / name).write_bytes(data)
                end = end_of(trial, expected)
                gone = all(data is None for data in damaged.values())
                assert end != "same" or not gone or group == ["log.sqlite-wal"], (source.name, group, number)


def _damages(source: Path, group: list[str]) -> Iterator[dict[str, bytes | None]]:
    """Ways in which these files of a store come to harm together; None: removed."""
    whole = {name: (source / name).read_bytes() for name in group if (source / name).exists()}
    yield dict.fromkeys(whole)
    yield dict.fromkeys(whole, b"")
    for quarter in (1, 2, 3):
        yield {name: data[: len(data) * quarter // 4] for name, data in whole.items()}
    for name, data in whole.items():
        for at in range(0, len(data), 4096):
            page = data[at : at + 4096]
            yield {name: data[:at] + bytes(len(page)) + data[at + len(page) :]}
            yield {name: page + data[4096:at] + data[:4096] + data[at + len(page) :] if at else data[::-1]}


@pytest.mark.integration
def test_what_a_failed_fsync_left_to_be_seen_is_durable_before_it_is_believed(tmp_path: Path) -> None:
    """Goal: no promise on data that only the page cache has.

    Method: the fsync of a commit fails, which leaves its pages clean and not on the disk, and the
    process ends. A second process opens the store and believes what it sees; then the power is cut.
    """
    seen = 0
    for seed in range(4):
        with PoweredDisk(tmp_path / f"disk{seed}") as disk:
            home = disk.directory / "raft"
            ended = subprocess.run([sys.executable, "-c", UNLUCKY, str(home)], cwd=ROOT, check=False)
            assert ended.returncode == 7
            believed = load(home)
            seen += believed[0].term == 2
            disk.cut_power(seed)
            assert load(home) == believed
    assert seen, "the failed write was never seen, so nothing was tried"


@pytest.mark.integration
def test_a_store_that_cannot_be_written_anew_is_refused(tmp_path: Path) -> None:
    """Goal: nothing is believed that could not be made durable. Method: fsync fails while it is opened."""
    with PoweredDisk(tmp_path / "disk") as disk:
        home = disk.directory / "raft"
        store = SqliteLog(home, CLUSTER, MEMBER, create=True)
        store.save(Ready(hard_state=hard(1), entries=entries(1, 3), must_sync=True))
        store.close()
        for count in range(1, 4):
            disk.fail_syncs(count)
            with pytest.raises(StorageFailed):
                SqliteLog(home, CLUSTER, MEMBER, create=False)
            disk.fail_syncs(0)
        assert load(home)[0] == hard(1)


def test_damaged_text_in_the_database_is_corruption(tmp_path: Path) -> None:
    """Goal: a refusal with a reason, not a traceback. Method: bytes of the schema that are no UTF-8."""
    _, stopped = lay_out(tmp_path)
    database = stopped / "log.sqlite"
    data = database.read_bytes()
    at = data.index(b"CREATE TABLE entries") + 4
    database.write_bytes(data[:at] + b"\xd6\xff" + data[at + 2 :])
    with pytest.raises(Corruption):
        load(stopped)


@pytest.mark.integration
def test_a_stalled_fsync_is_waited_for_and_nothing_is_called_durable_meanwhile(quick: Path) -> None:
    """Goal: slow is not failed, and not done. Method: strace holds one fsync for 1.5 s; a line comes late
    by that, and what was said before and after is there when the writer is killed."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    home, held = quick / "raft", "inject=fsync,fdatasync:delay_enter=1500000:when=12"
    writer = subprocess.Popen(
        [
            *("strace", "-f", "--seccomp-bpf", "-qq", "-o", str(quick / "trace")),
            *("-e", "trace=fsync,fdatasync", "-e", held),
            *(sys.executable, "-m", "tests.adapters.log_writing_program", str(home), "1"),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    assert writer.stdout is not None
    moments: list[float] = []
    try:
        while not any(later - before > 1.4 for before, later in itertools.pairwise(moments)):
            line = writer.stdout.readline()
            assert line, "the writer ended by itself"
            moments.append(time.monotonic())
    finally:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.wait()
        assert writer.stdout.read() is not None  # its end: the traced program is gone as well
        writer.stdout.close()
    last, term = map(int, line.split())
    store = SqliteLog(home, CLUSTER, MEMBER, create=False)
    assert last_of(store.load()) >= (term, last)
    store.close()
