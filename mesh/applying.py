"""The state machine's side of a driver: apply what is committed, install and take snapshots."""

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from mesh import failpoints
from mesh.counters import ConsensusCounters
from mesh.errors import TrellisError
from mesh.ids import Index
from mesh.pacing import DriverSettings
from mesh.ports import DriverObserver, LogStore, StateMachine, Writer
from mesh.raft import RawNode
from mesh.raft.model import Entry, EntryKind, Membership, Snapshot
from mesh.waiting import PendingProposals

LOG = structlog.get_logger(__name__)

Failed = Callable[[BaseException], None]


class Applier:
    """Feeds the state machine and keeps the log short.

    Order: entries in the order of their indexes, each once per life of the process.
    Bound: one snapshot is being written at a time.
    """

    def __init__(
        self,
        *,
        node: RawNode,
        machine: StateMachine,
        store: LogStore,
        settings: DriverSettings,
        counters: ConsensusCounters,
        observers: Sequence[DriverObserver],
    ) -> None:
        self._node = node
        self._machine = machine
        self._store = store
        self._settings = settings
        self._counters = counters
        self._observers = observers
        self.proposals = PendingProposals()
        self._snapshot_index = Index(0)
        self._bytes_since_snapshot = 0
        self._is_compacting = False

    def restore(self, snapshot: Snapshot) -> None:
        """Begin with what the store holds; for a witness, whose snapshots hold no data, with nothing."""
        if snapshot.meta.size_bytes:
            self._machine.restore(snapshot.data)
        self._snapshot_index = snapshot.meta.last.index

    def apply(self, committed: Sequence[Entry]) -> None:
        """Apply commands, tell of memberships, answer proposals.

        A witness gets commands without data and applies none. One that was started before its log reached
        its own admission is not of the membership yet: it is known by those commands alone.
        """
        if not committed:
            return
        own, membership = self._node.id, self._node.membership
        is_witness = own in membership.witnesses
        may_be_witness = not membership.is_member(own)
        for observer in self._observers:
            observer.entries_committed(committed)
        for entry in committed:
            outcome: object = None
            if entry.kind is EntryKind.COMMAND and not (is_witness or (may_be_witness and not entry.data)):
                failpoints.hit("apply.command.before")
                outcome = self._machine.apply(entry.index, entry.data)
                failpoints.hit("apply.command.before-answer")
            elif entry.kind is EntryKind.MEMBERSHIP:
                failpoints.hit("apply.membership")
                for observer in self._observers:
                    observer.membership_changed(Membership.decode(entry.data))
            self._bytes_since_snapshot += len(entry.data)
            self.proposals.applied(entry.id, outcome)
        self._counters.entries_applied += len(committed)

    def install(self, snapshot: Snapshot) -> None:
        """Become what the leader's snapshot says."""
        failpoints.hit("install.before")
        self.restore(snapshot)
        failpoints.hit("install.restored")
        self._bytes_since_snapshot = 0
        self._counters.snapshots_installed += 1
        self._counters.proposals_unknown += self.proposals.give_up(
            "a snapshot replaced the log", to_index=self._snapshot_index
        )
        for observer in self._observers:
            observer.membership_changed(snapshot.meta.membership)

    # ---- snapshots ------------------------------------------------------------------

    def compact_if_due(self, writer: Writer, bulk_writer: Writer, failed: Failed) -> None:
        """Take a snapshot when the log has grown enough.

        It is encoded and written by *bulk_writer*, so that entries never wait for it;
        only the small transaction that follows goes through *writer*.
        """
        settings, applied = self._settings, self._node.applied
        is_due = (
            applied - self._snapshot_index >= settings.snapshot_entries
            or self._bytes_since_snapshot >= settings.snapshot_bytes
        )
        if not is_due or self._is_compacting:
            return
        failpoints.hit("compact.due")
        encode, encoded = self._machine.snapshot(), list[bytes]()
        self._is_compacting = True
        self._snapshot_index, self._bytes_since_snapshot = applied, 0

        def compact(error: BaseException | None) -> None:
            if error is not None:
                failed(error)
            elif self._snapshot_index > applied or bulk_writer.is_closed:
                self._is_compacting = False  # the leader's snapshot came meanwhile, or this driver ends
            else:
                failpoints.hit("compact.encoded")
                try:
                    snapshot = self._node.compact(applied, encoded[0])
                except TrellisError as refusal:
                    LOG.error("snapshot-refused", index=applied, error=str(refusal))
                    self._is_compacting = False  # tried again when the log has grown as much once more
                    return
                failpoints.hit("compact.before-stage")
                bulk_writer.submit(
                    partial(self._store.stage_snapshot, snapshot),
                    partial(self._staged, snapshot, writer, failed),
                )

        bulk_writer.submit(lambda: encoded.append(encode()), compact)

    def _staged(
        self, snapshot: Snapshot, writer: Writer, failed: Failed, error: BaseException | None
    ) -> None:
        if error is not None:
            failed(error)
        elif not writer.is_closed:
            failpoints.hit("compact.staged")
            writer.submit(partial(self._store.save_snapshot, snapshot), partial(self._saved_snapshot, failed))

    def _saved_snapshot(self, failed: Failed, error: BaseException | None) -> None:
        self._is_compacting = False
        self._counters.snapshots_taken += 1
        failpoints.hit("compact.saved")
        if error is not None:
            failed(error)
