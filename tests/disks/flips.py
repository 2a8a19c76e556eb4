"""Opens copies of a small log store with one byte changed, for every byte there is.

`python -m tests.disks.flips DIRECTORY PART PARTS [EVERY]` takes every PARTS-th byte from PART on, and
prints one JSON line: how each file's changes ended. Each ends in the content as it was (the
byte meant nothing), or in a refusal that says what is wrong; anything else ends the program.
"""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mesh.adapters.sqlite_log import SqliteLog
from mesh.errors import Conflict, Corruption, StorageFailed
from mesh.raft.model import HardState, Ready, Restored
from tests.adapters.log_writing_program import CLUSTER, MEMBER
from tests.adapters.test_sqlite_log import entries, hard, snapshot

Content = tuple[HardState, object, object]


def content(restored: Restored) -> Content:
    return restored.hard_state, restored.snapshot, restored.entries


def load(directory: Path) -> Content:
    store = SqliteLog(directory, CLUSTER, MEMBER, create=False)
    try:
        return content(store.load())
    finally:
        store.close()


def lay_out(directory: Path) -> tuple[Path, Path]:
    """A small store as a killed process leaves it (a full write-ahead log), and as a stopped one does."""
    home, killed, stopped = directory / "home", directory / "killed", directory / "stopped"
    store = SqliteLog(home, CLUSTER, MEMBER, create=True)
    store.save(Ready(hard_state=hard(1, 4), entries=entries(1, 5), must_sync=True))
    store.save_snapshot(snapshot(2))
    store.save(Ready(hard_state=hard(2, 5, MEMBER), entries=entries(5, 8, 2), must_sync=True))
    shutil.copytree(home, killed)
    store.close()
    shutil.copytree(home, stopped)
    return killed, stopped


def end_of(trial: Path, expected: Content) -> str:
    """How opening ends."""
    try:
        loaded = load(trial)
    except (Corruption, StorageFailed, Conflict) as error:
        return error.reason
    assert loaded == expected, "it loads something else than what was written"
    return "same"


def flip(files: Mapping[str, bytes], trial: Path, name: str, position: int, expected: Content) -> str:
    """Change one byte of one of the *files*, and open them."""
    for there in os.listdir(trial):
        if there not in files:
            (trial / there).unlink()
    for each, held in files.items():
        (trial / each).write_bytes(held)
    with (trial / name).open("r+b") as file:
        file.seek(position)
        # One bit, another one at each position; at every fourth all of them.
        turned = 0xFF if position % 4 == 3 else 1 << position % 8
        file.write(bytes([files[name][position] ^ turned]))
    return end_of(trial, expected)


def main(directory: Path, part: int, parts: int) -> dict[str, dict[str, int]]:
    directory.mkdir(parents=True)
    ends: dict[str, Counter[str]] = {}
    for source in lay_out(directory):
        trial = directory / f"trial-{source.name}"
        shutil.copytree(source, trial)
        expected = load(trial)
        files = {name: (source / name).read_bytes() for name in sorted(os.listdir(source))}
        for name, held in files.items():
            counts = ends.setdefault(f"{source.name}/{name}", Counter())
            for position in range(part, len(held), parts):
                try:
                    counts[flip(files, trial, name, position, expected)] += 1
                except BaseException:
                    print(f"{source.name}/{name} byte {position}", file=sys.stderr)
                    raise
    return {name: dict(counts) for name, counts in ends.items()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))), flush=True)
