"""Writes to a log store until it is killed; says on standard output what is durable.

`python -m tests.adapters.log_writing_program DIRECTORY SEED`
"""

import hashlib
import random
import sys
from pathlib import Path

from mesh.adapters.sqlite_log import SqliteLog
from mesh.errors import TrellisError
from mesh.ids import ClusterId, Index, MemberId, Term
from mesh.raft.model import (
    Entry,
    EntryId,
    EntryKind,
    HardState,
    Membership,
    Ready,
    Snapshot,
    SnapshotMeta,
)

CLUSTER = ClusterId("c" * 32)
MEMBER = MemberId("host1.1")


def data_of(index: int, term: int) -> bytes:
    """What the entry at *index* of *term* holds; long for some."""
    return b"%d/%d " % (index, term) * (1 + 200 * (index % 7 == 0))


def write_on(directory: Path, seed: int) -> None:
    """Append, overwrite and compact, as a seeded story; print `last term` once durable."""
    chance = random.Random(seed)
    store = SqliteLog(directory, CLUSTER, MEMBER, create=True)
    restored = store.load()
    origin = int(restored.snapshot.meta.last.index if restored.snapshot else 0)
    last = int(restored.entries[-1].index if restored.entries else origin)
    term = int(restored.hard_state.term) + 1
    terms = {int(each.index): each.term for each in restored.entries}
    while True:
        if chance.random() < 0.1 and last > origin + 1:
            term, last = term + 1, chance.randint(origin + 1, last - 1)
        batch = []
        for _ in range(chance.randint(1, 8)):
            last += 1
            terms[last] = Term(term)
            batch.append(Entry(Index(last), Term(term), EntryKind.COMMAND, data_of(last, term)))
        hard_state = HardState(Term(term), MEMBER, Index(max(origin, last - 20)))
        store.save(Ready(hard_state=hard_state, entries=batch, must_sync=True))
        print(last, term, flush=True)
        if last > origin + 60:
            origin = last - 10
            data = b"state %d" % origin
            meta = SnapshotMeta(
                EntryId(terms[origin], Index(origin)),
                Membership.of([MEMBER]),
                len(data),
                hashlib.sha256(data).digest(),
            )
            store.save_snapshot(Snapshot(meta, data))


if __name__ == "__main__":
    try:
        write_on(Path(sys.argv[1]), int(sys.argv[2]))
    except TrellisError as error:
        print(error.reason, flush=True)
        sys.exit(3)
