"""What a primary knows of one primaryship: what is in force, since when, and what comes next.

Pure but for being a running account; the driver carries out its steps and tells
it what came of them. `sync_set` has the rules.

Invariant: `in_force` is never believed to be more than what was seen in force:
a change counts as uncertain from before it is begun until it is known to be done.
"""

from collections.abc import Iterable
from dataclasses import replace

from mesh.ids import FencingTerm, HostId
from mesh.limits import LAG_CLOSE_BYTES_MAX
from mesh.state.database_model import DatabaseRecord
from sidecar.postgres.model import NO_LSN, InForce, Lsn, ProcessKind, SyncNames
from sidecar.postgres.port import Sight, flushed_by
from sidecar.postgres.sync_set import Publish, StandbyView, Step, covers, fit_standbys, next_step, why_closed


class Primaryship:
    """One host as primary under one number, from its start or promotion to its end."""

    def __init__(
        self, host: HostId, fencing_term: FencingTerm, names: SyncNames, *, begun_at: Lsn | None, is_new: bool
    ) -> None:
        """*begun_at*: where its timeline begins; None: the end of its recovery, to be seen (`seen`).

        *is_new*: nothing was ever published under this number.
        """
        self.fencing_term = fencing_term
        self.in_force = InForce(host, names)
        self.begun_at = begun_at
        self.is_settled = is_new

    def renewed(self, fencing_term: FencingTerm) -> None:
        """It goes on under another number, which bars whatever was under way under the last."""
        self.fencing_term = fencing_term
        self.is_settled = True

    # ---- what is seen ---------------------------------------------------------------

    def seen(self, sight: Sight) -> None:
        """Its recovery is over, so its end is known."""
        if self.begun_at is None and sight.local.process.kind is ProcessKind.PRIMARY:
            self.begun_at = sight.local.process.flushed

    def why_closed(self, record: DatabaseRecord, sight: Sight) -> str:
        """Why clients may not be let in; empty: they may."""
        if record.primary_term != self.fencing_term or record.primary != self.in_force.primary:
            return "its promotion is not recorded yet"
        if self.begun_at is None:
            return "the end of its recovery is not known yet"
        if not self.is_settled:
            return "an earlier publication may be under way, and would not cover what it acknowledges"
        begun_at = NO_LSN if record.accepts_loss(FencingTerm(self.fencing_term - 1)) else self.begun_at
        return why_closed(self.in_force, record.published, flushed_by(sight), begun_at)

    def waits_for_wal_only(self, record: DatabaseRecord) -> bool:
        """Nothing but what its standbys have keeps clients out: no other names would let them in sooner."""
        names = self.in_force.names
        return (
            self.is_settled
            and self.in_force.is_certain
            and names.needed <= record.spec.standbys_needed
            and covers(record.published, self.in_force.primary, names)
        )

    def next_step(self, record: DatabaseRecord, data_hosts: Iterable[HostId], sight: Sight) -> Step:
        """One step towards the declared number of acknowledgements from all fit standbys.

        First of all whatever is under way of an earlier process must be dead: what it would publish may
        not cover the names that this one was started with.
        """
        if not self.is_settled:
            present = record.published
            reason = "an earlier publication may be under way: raise the version first"
            return Publish(present.voters, present.quorum, present.version, reason)
        views = [
            StandbyView(each.host, each.is_standby, each.flushed)
            for each in sight.receivers
            if each.is_standby
        ]
        here = sight.local.process.flushed
        wanted = fit_standbys(self.in_force.names, views, here, LAG_CLOSE_BYTES_MAX, data_hosts)
        return next_step(
            self.in_force,
            record.published,
            wanted,
            record.spec.standbys_needed,
            flushed=flushed_by(sight),
            is_settled=self.is_settled,
        )

    # ---- what was done --------------------------------------------------------------

    def setting(self, names: SyncNames) -> None:
        """These are about to be put in force."""
        self.in_force = InForce(self.in_force.primary, names, is_certain=False)

    def set(self, barrier: Lsn) -> None:
        """They are in force in every process, and *barrier* was written after that."""
        self.in_force = replace(self.in_force, is_certain=True, barrier=barrier)

    def read_barrier(self, sight: Sight) -> None:
        """Take what it has flushed now, seen after what is in force was certain, for the barrier."""
        self.in_force = replace(self.in_force, barrier=sight.local.process.flushed)

    def publishing(self) -> None:
        """A publication leaves: until one is known to be applied, nothing else is put in force."""
        self.is_settled = False

    def published(self) -> None:
        """It was applied."""
        self.is_settled = True
