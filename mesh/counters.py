"""Plain numbers that the live side of consensus counts and telemetry reads."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ConsensusCounters:
    """One member's totals since its start; only ever rise, but for the gauges."""

    proposals: int = 0
    proposals_unknown: int = 0
    #: Entries applied to the state machine, no-ops and memberships included.
    entries_applied: int = 0
    reads: int = 0
    #: Times this member stood for election.
    elections: int = 0
    leader_changes: int = 0
    snapshots_taken: int = 0
    snapshots_installed: int = 0
    crashes_proven: int = 0
    #: Pauses of the event loop that were longer than a few ticks.
    stalls: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    #: Messages thrown away, by reason: "outbox-full", "wrong-cluster", "wrong-receiver", "forged-sender" …
    dropped: Counter[str] = field(default_factory=Counter)
    #: Gauges: duration of the newest durable write and its moving average.
    fsync_s: float = 0.0
    fsync_ewma_s: float = 0.0

    def note_fsync(self, seconds: float) -> None:
        """A durable write took *seconds*."""
        self.fsync_s = seconds
        self.fsync_ewma_s += (seconds - self.fsync_ewma_s) / 16
