"""The state hash: a function of what the state holds, and of nothing else."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh.ids import VIP, DocumentName, FencingTerm, SessionId
from mesh.state import ClusterState, checkpoint
from mesh.state.commands import AssignOwner, DeleteDocument, PutDocument
from mesh.state.hash import encode, row_hash
from mesh.state.model import Document, Slot
from mesh.state.service import ServiceMode
from tests.state.model_state import A, Cluster

ROOT = Path(__file__).resolve().parents[2]


def recomputed(state: ClusterState) -> bytes:
    """A naive twin: the sum over all rows, from nothing."""
    total = sum(row_hash(table.kind, key, row) for table in state.tables for key, row in table.rows.items())
    return (total % 2**256).to_bytes(32, "big")


def test_asking_often_or_once_gives_the_hash_of_all_rows() -> None:
    """Goal: the incremental sum never drifts.

    Method: against a sum from nothing, asked each time and once.
    """
    often, once = Cluster(), Cluster()
    for number in range(60):
        for cluster in (often, once):
            cluster.apply(PutDocument(DocumentName(f"d{number % 7}"), b"x" * number), "s", number + 1)
        assert checkpoint(often.state) == recomputed(often.state)
    assert checkpoint(once.state) == checkpoint(often.state)


def test_a_state_changed_there_and_back_hashes_as_before_only_if_no_row_differs() -> None:
    """Goal: the hash has no memory of the way. Method: drop a row twice, put it back."""
    cluster = Cluster()
    before = checkpoint(cluster.state)
    row = cluster.state.hosts[A]
    cluster.state.hosts.drop(A)
    cluster.state.hosts.drop(A)
    assert checkpoint(cluster.state) != before
    cluster.state.hosts.put(A, row)
    assert checkpoint(cluster.state) == before


def test_the_order_in_which_rows_came_does_not_matter() -> None:
    """Goal: a host from a snapshot hashes as one from the log.

    Method: the same rows forwards and backwards.
    """
    one, other = ClusterState(), ClusterState()
    rows = [Document(DocumentName(f"d{number}"), 1, b"", 5) for number in range(9)]  # type: ignore[arg-type]
    for row in rows:
        one.versions.put((row.name, row.version), row)
    for row in reversed(rows):
        other.versions.put((row.name, row.version), row)
    assert checkpoint(one) == checkpoint(other)
    assert list(one.versions) == list(other.versions)


def test_each_difference_of_state_shows() -> None:
    """Goal: two hosts that differ are never taken for equal. Method: twelve states, twelve hashes."""
    seen = set()
    for command in (
        PutDocument(DocumentName("a"), b"1"),
        PutDocument(DocumentName("a"), b"2"),
        PutDocument(DocumentName("b"), b"1"),
        AssignOwner(VIP, A, FencingTerm(0)),
    ):
        for session in ("", "s", "t"):
            cluster = Cluster()
            cluster.apply(command, SessionId(session), 1)
            seen.add(checkpoint(cluster.state))
    assert len(seen) == 12, "the session table counts as well"


def test_a_deletion_is_not_the_same_as_nothing() -> None:
    """Goal: a host that missed a write and its deletion is found out. Method: write and delete, compare."""
    cluster = Cluster()
    before = checkpoint(cluster.state)
    cluster.do(PutDocument(DocumentName("a"), b""))
    cluster.do(DeleteDocument(DocumentName("a")))
    assert checkpoint(cluster.state) != before


SCRIPT = """
from tests.state.test_hash import scripted
print(scripted().hex())
"""


def scripted() -> bytes:
    cluster = Cluster()
    for number in range(40):
        cluster.apply(PutDocument(DocumentName(f"d{number % 9}"), b"x"), f"s{number % 5}", number // 5 + 1)
    cluster.do(AssignOwner(VIP, A, FencingTerm(0)))
    return checkpoint(cluster.state)


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_the_hash_does_not_depend_on_pythons_hash_seed(seed: str) -> None:
    """Goal: processes agree. Method: the same script in fresh interpreters under three seeds."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == scripted().hex()


# ---- canonical bytes ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    name: str


@dataclass(frozen=True, slots=True)
class Grown:
    """`Row` in a later version."""

    name: str
    added: int = 0
    listed: tuple[str, ...] = field(default_factory=tuple)


def test_a_field_added_later_does_not_show_while_it_is_not_used() -> None:
    """Goal: old and new hosts agree in a rolling update. Method: a row and its grown twin."""
    assert encode(Row("a")).replace(b"Row", b"Grown") == encode(Grown("a"))
    assert encode(Grown("a", added=1)) != encode(Grown("a"))
    assert encode(Grown("a", listed=("x",))) != encode(Grown("a"))


def test_different_values_have_different_bytes() -> None:
    """Goal: no collision by encoding. Method: look-alikes of every type in one set."""
    values = [
        None, True, False, 0, 1, -1, "", "0", "1", b"", b"1", (), ("",), ((),), (1,), ("a", "b"), ("ab",),
        ServiceMode.ACTIVE_ACTIVE, "active-active", Slot(A, 0), Slot(A, 1), ("host1", 0),
    ]  # fmt: skip
    assert len({encode(value) for value in values}) == len(values)


def test_a_row_that_cannot_be_encoded_is_a_bug() -> None:
    """Goal: mutable rows are found at once, not as a wrong hash. Method: encode a list."""
    with pytest.raises(TypeError, match="cannot hold a list"):
        encode(["a"])
