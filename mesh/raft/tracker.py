"""How far each follower is, as the leader knows it, and how it may be fed."""

from collections import deque
from dataclasses import dataclass, field

from mesh.ids import Index, MemberId
from mesh.raft.model import NO_INDEX, EntryId, PeerStatus, ProgressMode, Snapshot


class Inflights:
    """Last indexes of the appends that were sent and not yet answered.

    Bound: *capacity*; indexes rise.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lasts: deque[Index] = deque()

    def __len__(self) -> int:
        return len(self._lasts)

    @property
    def is_full(self) -> bool:
        return len(self._lasts) >= self._capacity

    def add(self, last: Index) -> None:
        self._lasts.append(last)

    def free_to(self, index: Index) -> None:
        """Everything up to *index* has arrived."""
        while self._lasts and self._lasts[0] <= index:
            self._lasts.popleft()

    def clear(self) -> None:
        self._lasts.clear()


@dataclass(slots=True)
class Transmission:
    """A snapshot on its way to one follower, one chunk in flight at a time.

    The snapshot is pinned: a newer one does not restart a transfer that is
    nearly done.
    """

    snapshot: Snapshot
    offset: int = 0
    #: The tick the chunk at `offset` was sent; None when it is still to be sent.
    sent_tick: int | None = None

    @property
    def last(self) -> EntryId:
        return self.snapshot.meta.last


@dataclass(slots=True)
class Progress:
    """One follower.

    Invariant: matched < next. PROBE: at most one unanswered append, `paused`
    says so. REPLICATE: appends in (matched, next) are in flight. SNAPSHOT:
    `transmission` is set, and only then.
    """

    id: MemberId
    next: Index
    inflights: Inflights
    heard_tick: int
    #: Gets no command data.
    is_witness: bool = False
    mode: ProgressMode = ProgressMode.PROBE
    matched: Index = NO_INDEX
    paused: bool = False
    #: An empty append is due, to find out whether one was lost.
    poke: bool = False
    poked_tick: int = 0
    #: The highest commit index that was sent.
    sent_commit: Index = NO_INDEX
    #: The newest heartbeat round it echoed.
    round: int = 0
    transmission: Transmission | None = field(default=None)

    def to_probe(self) -> None:
        """Find its log's end again, from what is certainly equal."""
        self.mode = ProgressMode.PROBE
        self.next = Index(self.matched + 1)
        self._reset()

    def to_replicate(self) -> None:
        self.mode = ProgressMode.REPLICATE
        self.next = Index(self.matched + 1)
        self._reset()

    def to_snapshot(self, snapshot: Snapshot) -> None:
        self.mode = ProgressMode.SNAPSHOT
        self._reset()
        self.transmission = Transmission(snapshot)

    def _reset(self) -> None:
        self.transmission = None
        self.paused = self.poke = False
        self.sent_commit = Index(0)
        self.inflights.clear()

    def accept(self, matched: Index) -> bool:
        """It holds everything up to *matched*; True when that is news."""
        self.inflights.free_to(matched)
        self.next = max(self.next, Index(matched + 1))
        if matched <= self.matched:
            return False
        self.matched = matched
        return True

    def reject(self, refused: Index, candidate: Index) -> bool:
        """An append after *refused* did not fit; *candidate* may. False when the news is stale."""
        if self.mode is ProgressMode.REPLICATE:
            if refused <= self.matched:
                return False
            self.to_probe()
            return True
        if self.mode is ProgressMode.SNAPSHOT or refused != self.next - 1:
            return False
        self.next = max(min(refused, Index(candidate + 1)), Index(self.matched + 1))
        self.paused = False
        return True

    def status(self, *, recently_active: bool) -> PeerStatus:
        return PeerStatus(
            id=self.id,
            mode=self.mode,
            matched=self.matched,
            next=self.next,
            recently_active=recently_active,
        )
