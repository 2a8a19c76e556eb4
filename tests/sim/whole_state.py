"""Compares whole states in the end, row by row and without what the product keeps for that.

The state hash is a running sum that counts what changed. A row that it forgets would make hosts look equal
that are not, so here all rows of all tables are counted anew.
"""

from collections.abc import Iterable

from mesh.ids import HostId
from mesh.state import ClusterState, checkpoint
from mesh.state.hash import row_hash
from mesh.state.table import Table
from tests.sim.trace import Violation

NAME = "whole-state"
#: Follows from other tables, so the hash leaves it out.
DERIVED = "document"


def check_states(states: Iterable[tuple[HostId, ClusterState]]) -> None:
    """All hosts hold the same rows, and the hash of each counts all of them. Fails: `Violation`."""
    first: tuple[HostId, dict[str, dict[object, object]]] | None = None
    for host, state in states:
        tables = {each.kind: each.rows for each in vars(state).values() if isinstance(each, Table)}
        expected = sum(
            row_hash(kind, key, value)
            for kind, rows in sorted(tables.items())
            if kind != DERIVED
            for key, value in rows.items()
        )
        if checkpoint(state) != (expected % (1 << 256)).to_bytes(32, "big"):
            raise Violation(NAME, f"the state hash of {host} is not that of its rows")
        if first is None:
            first = host, tables
        elif different := [kind for kind, rows in tables.items() if rows != first[1][kind]]:
            raise Violation(
                NAME,
                f"{first[0]} and {host} hold other rows of {', '.join(different)} at index {state.applied}",
            )
