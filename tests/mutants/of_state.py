"""Guards of the replicated state: exactly once, versions, fencing terms, hashes, snapshots of it."""

from typing import Final

from tests.mutants.mutant import Mutant

MACHINE, OWNERSHIP, DOCUMENTS = "mesh.state.machine", "mesh.state.ownership", "mesh.state.documents"
SNAPSHOT, APPLYING = "mesh.wire.snapshot", "mesh.applying"

REQUESTS: Final = (
    Mutant(
        "repeated-requests-count-again",
        "A request that was applied before is applied again.",
        MACHINE,
        "apply",
        "known is not None",
        "False",
        profile="disks",
    ),
    Mutant(
        "outcomes-not-remembered",
        "The outcome of a request is not kept for its repetition.",
        MACHINE,
        "apply",
        "remember(state, index, request, outcome)",
        "pass",
        profile="disks",
    ),
    Mutant(
        "session-numbers-used-again",
        "Two requests of a session have the same number: the second gets the answer of the first.",
        "mesh.replica",
        "Replica.propose",
        "lane.sequence += 1",
        "lane.sequence = 1",
    ),
    Mutant(
        "expected-versions-ignored",
        "Compare-and-set sets without comparing.",
        "mesh.state.applying",
        "check_version",
        "expected is not None and expected != present",
        "False",
    ),
    Mutant(
        "versions-begin-again",
        "A document that was deleted and written again has versions it had before.",
        DOCUMENTS,
        "_next_version",
        "present is not None",
        "present is not None and not present.deleted",
    ),
    Mutant(
        "deleted-documents-stay",
        "A deletion leaves the document readable.",
        DOCUMENTS,
        "delete_document",
        "Document(command.name, version, b'', at.index, at.at_ns, deleted=True)",
        "Document(command.name, version, present.value, at.index, at.at_ns)",
    ),
    Mutant(
        "state-by-the-local-clock",
        "A document's time is each host's own: equal logs give different states.",
        DOCUMENTS,
        "put_document",
        "Document(name, version, value, at.index, at.at_ns)",
        "Document(name, version, value, at.index, __import__('time').monotonic_ns())",
    ),
    Mutant(
        "state-by-the-process",
        "What is applied depends on how much this process has applied before.",
        OWNERSHIP,
        "assign_owner",
        "Ownership(command.name, command.holder, term, at.index)",
        "Ownership(command.name, command.holder, term, Index(at.index + len(at.state.kept._kept)))",
        profile="members",
    ),
)

NUMBERS: Final = (
    Mutant(
        "fencing-term-not-raised",
        "A new owner has the fencing term of the former one: a resource cannot tell them apart.",
        OWNERSHIP,
        "assign_owner",
        "FencingTerm(at.raise_counter(f'fencing/{command.name}'))",
        "FencingTerm(at.state.fencing_term(command.name) or at.raise_counter(f'fencing/{command.name}'))",
        profile="leases",
    ),
    Mutant(
        "fencing-term-begins-again",
        "Fencing terms of a name that was dropped begin at 1 again.",
        OWNERSHIP,
        "unassign",
        "at.state.owners.drop(command.name)",
        "at.state.owners.drop(command.name), at.state.counters.drop(f'fencing/{command.name}')",
        profile="leases",
    ),
    Mutant(
        "stale-decisions-are-applied",
        "A change of owner is applied although the name was assigned anew since it was decided.",
        OWNERSHIP,
        "_check_term",
        "present != expected",
        "False",
        profile="owners",
    ),
    Mutant(
        "removed-members-are-believed",
        "Messages of a removed member count: it deposes leaders for ever.",
        "sidecar.membership.standing",
        "is_removed",
        "member not in state.members and incarnation_of(member) <= _latest(state, member)",
        "False",
        profile="members",
    ),
)

HASHES: Final = (
    Mutant(
        "hash-leaves-out-owners",
        "The state hash does not count who owns what: hosts that differ there look equal.",
        "mesh.state.hash",
        "fold",
        "not table.dirty",
        "not table.dirty or table.kind == 'owner'",
        profile="members",
    ),
    Mutant(
        "hash-not-taken-back",
        "The state hash keeps counting rows that are gone.",
        "mesh.state.hash",
        "fold",
        "total -= counted.pop(key, 0)",
        "pass",
        profile="members",
    ),
    Mutant(
        "snapshot-without-sessions",
        "A snapshot leaves out what is remembered of clients: repeated requests count again after it.",
        SNAPSHOT,
        "encode_snapshot",
        "message.sessions.extend(_encode_session(state, each) for each in state.sessions.rows.values())",
        "pass",
        profile="members",
    ),
    Mutant(
        "snapshot-without-successors",
        "A snapshot leaves out to whom something is being handed over.",
        SNAPSHOT,
        "_encode_ownership",
        "owned.successor or ''",
        "''",
        profile="members",
    ),
    Mutant(
        "snapshot-without-counters",
        "A snapshot leaves out the numbers that only rise.",
        SNAPSHOT,
        "_fill_cluster",
        "state.counters.put(counter.name, counter.value)",
        "pass",
        profile="members",
    ),
    Mutant(
        "snapshot-changes-while-written",
        "A snapshot is encoded from the live state: it holds more than its index says.",
        "mesh.replica",
        "StateMachine.snapshot",
        "self.state.copy()",
        "self.state",
        profile="members",
    ),
    Mutant(
        "snapshot-under-a-later-index",
        "A snapshot is kept under the index applied when it was ready, not the one it was taken at.",
        APPLYING,
        "Applier.compact_if_due.compact",
        "self._node.compact(applied, encoded[0])",
        "self._node.compact(self._node.applied, encoded[0])",
        profile="members",
    ),
    Mutant(
        "received-snapshot-not-restored",
        "A received snapshot replaces the log and not the state.",
        APPLYING,
        "Applier.install",
        "self.restore(snapshot)",
        "self._snapshot_index = snapshot.meta.last.index",
        profile="members",
    ),
    Mutant(
        "stored-snapshot-not-restored",
        "A host that starts again begins with an empty state after its snapshot.",
        "mesh.driver",
        "RaftDriver.__init__",
        "self._applier.restore(restored.snapshot)",
        "pass",
        profile="members",
    ),
)

MUTANTS: Final = (*REQUESTS, *NUMBERS, *HASHES)
