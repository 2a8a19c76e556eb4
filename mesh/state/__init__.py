"""The replicated state machine: what every host of the cluster agrees on.

`apply(state, index, request)` takes a `ClusterState` from one committed command
to the next, and answers with an `Effect`. Rows are in `model`, changes in
`commands`; `checkpoint` gives the hash that hosts compare.
"""

from mesh.state.commands import Applied, Command, Outcome, Rejected, Request
from mesh.state.hash import checkpoint
from mesh.state.machine import Effect, apply, error_of
from mesh.state.tables import ClusterState
from mesh.state.watch import ChangeSet

__all__ = [
    "Applied",
    "ChangeSet",
    "ClusterState",
    "Command",
    "Effect",
    "Outcome",
    "Rejected",
    "Request",
    "apply",
    "checkpoint",
    "error_of",
]
