"""Lives of a log store that all end badly, in one process that forks them, so that hundreds take seconds.

`python -m tests.disks.lives DIRECTORY SEED LIVES [--power]` prints one JSON line at the end.
Each life appends, overwrites and compacts, says through a pipe what is durable, and is killed:
at a random moment, or at a named place in the store. With `--power` DIRECTORY is on
a `PoweredDisk`, whose power is then cut.
"""

import json
import os
import random
import select
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from mesh import failpoints
from mesh.adapters.armed import LiveFaults
from mesh.adapters.sqlite_log import SqliteLog
from mesh.failpoints import FAILPOINTS
from mesh.failpoints.arming import Armed, parse
from mesh.raft.model import Restored
from tests.adapters.log_writing_program import CLUSTER, MEMBER, data_of, write_on

#: Places in the store that every life comes by.
PLACES = [name for name in FAILPOINTS if name.startswith("log.") and name != "log.open.laid-out"]
ALIVE_S_MAX = 0.02
#: A batch that was stored and not yet told.
BATCH_MAX = 8


def last_of(restored: Restored) -> tuple[int, int]:
    """Term and index of the last entry there is."""
    if restored.entries:
        return int(restored.entries[-1].term), int(restored.entries[-1].index)
    last = restored.snapshot.meta.last if restored.snapshot else None
    return (int(last.term), int(last.index)) if last else (0, 0)


def live(directory: Path, seed: int, place: str | None) -> list[str]:
    """One life; the lines it got out."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.close(reading)
        if place is not None:
            failpoints.install(LiveFaults(Armed([parse(place)])))
        try:
            write_on(directory, seed)
        finally:
            os._exit(3)
    os.close(writing)
    chance = random.Random(seed)
    said = b""
    with os.fdopen(reading, "rb") as pipe:
        if place is None:
            select.select([pipe], [], [], 10)
            # The moment of death is the input.
            select.select([], [], [], chance.uniform(0.0, ALIVE_S_MAX))
            os.kill(child, signal.SIGKILL)
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == -signal.SIGKILL, f"seed {seed} {place}: it ended by itself with {code}: {said[-200:]!r}"
    return said.decode().splitlines(keepends=True)


def check(directory: Path, durable: tuple[int, int], context: str) -> Restored:
    """All that was called durable is there, whole; at most one batch is there that was not."""
    store = SqliteLog(directory, CLUSTER, MEMBER, create=False)
    try:
        restored = store.load()
    finally:
        store.close()
    term, last = last_of(restored)
    assert (term, last) >= durable, f"{context}: {durable} was durable, {(term, last)} is there"
    assert term > durable[0] or last <= durable[1] + BATCH_MAX, f"{context}: {(term, last)} from nowhere"
    assert int(restored.hard_state.term) >= durable[0], f"{context}: the term went back"
    assert restored.hard_state.vote == MEMBER or not restored.hard_state.term, f"{context}: a vote is lost"
    for entry in restored.entries:
        assert entry.data == data_of(entry.index, entry.term), f"{context}: entry {entry.index}"
    return restored


def run(directory: Path, seed: int, lives: int, *, power: bool) -> dict[str, Any]:
    """All lives of one directory."""
    chance = random.Random(seed)
    durable, deaths = (0, 0), Counter[str]()
    SqliteLog(directory, CLUSTER, MEMBER, create=True).close()
    for number in range(lives):
        place = f"{chance.choice(PLACES)}=crash@{chance.randint(0, 3)}" if number % 2 else None
        if place is not None and place.startswith("log.open"):
            place = place.partition("@")[0]
        lines = live(directory, seed * 100_000 + number, place)
        whole = [line.split() for line in lines if line.endswith("\n")]
        durable = max([durable, *((int(term), int(last)) for last, term in whole)])
        deaths[place.partition("=")[0] if place else "any moment"] += 1
        if power:
            descriptor = os.open(directory.parent / ".power", os.O_WRONLY)
            os.write(descriptor, f"off {seed * 100_000 + number}".encode())
            os.close(descriptor)
        restored = check(directory, durable, f"seed {seed} life {number} ({place})")
        durable = max(durable, last_of(restored))  # it may be believed from now on
    return {"lives": lives, "durable": durable, "deaths": dict(deaths)}


if __name__ == "__main__":
    words = sys.argv[1:]
    told = run(Path(words[0]), int(words[1]), int(words[2]), power="--power" in words)
    print(json.dumps(told), flush=True)
