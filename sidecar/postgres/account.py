"""How the holder of the primaryship stands in its leader's eyes, over time. Pure."""

from dataclasses import dataclass
from typing import Final

from mesh.ids import FencingTerm, HostId
from mesh.state.database_model import NEVER_PRIMARY, DatabaseRecord, DatabaseRole, DatabaseStatus
from mesh.state.model import Ownership
from sidecar.postgres.failover import Standing

NS_PER_S: Final = 1_000_000_000
#: A holder that lives and does not serve is given up after this, and after longer each time.
PATIENCE_S: Final = 3.0
_DOUBLINGS_MAX: Final = 6
#: A hand-over that has not ended by then is called off: its holder goes on. While it still serves,
#: it writes its checkpoint, which may take long and holds up nobody.
HAND_OVER_S: Final = 10.0
CHECKPOINT_S: Final = 120.0
#: What a server is on its way to serve again.
_COMING_UP: Final = (DatabaseRole.STOPPED, DatabaseRole.RECOVERING, DatabaseRole.PRIMARY)


@dataclass(slots=True)
class Account:
    """What was seen of one primaryship. Times are CLOCK_BOOTTIME, nanoseconds."""

    fencing_term: FencingTerm = NEVER_PRIMARY
    #: Primaryships before it, in a row, that ended without ever serving.
    fruitless: int = 0
    not_serving_since: int | None = None
    #: Since then it serves nobody, and another host could be promoted.
    waited_since: int | None = None
    #: How far its server has come since then, as `_COMING_UP` counts.
    far: int = 0
    handing_since: int | None = None
    #: While it hands over: since then it serves nobody.
    closed_since: int | None = None
    #: Hosts are being asked to seal.
    asked_since: int | None = None
    is_called_off: bool = False
    #: It was asked to hand over to this host, because its own is about to end.
    moved_to: HostId | None = None

    def of_the_next(self, fencing_term: FencingTerm) -> "Account":
        """The account of the primaryship after this one."""
        return Account(fencing_term, self.fruitless + (self.not_serving_since is not None))

    def judge(
        self,
        record: DatabaseRecord,
        owner: Ownership,
        status: DatabaseStatus | None,
        alive: tuple[HostId, ...],
        now: int,
    ) -> Standing:
        """How the holder stands. One that hands over is given its time and then told to go on."""
        if owner.holder not in alive:
            return Standing.LOST
        if owner.successor not in (None, owner.holder):
            self.handing_since = self.handing_since or now
            if _serves(status, owner.fencing_term):
                self.closed_since = None
            else:
                self.closed_since = self.closed_since or now
            is_long = self.closed_since is not None and now - self.closed_since > HAND_OVER_S * NS_PER_S
            self.is_called_off = is_long or now - self.handing_since > CHECKPOINT_S * NS_PER_S
            self.not_serving_since = None
            return Standing.WELL
        self.handing_since, self.closed_since, self.is_called_off = None, None, False
        if _serves(status, owner.fencing_term):
            self.not_serving_since, self.waited_since, self.far, self.fruitless = None, None, 0, 0
            return Standing.WELL
        self.not_serving_since = self.not_serving_since or now
        is_further = self._came_further(status)
        others = [host for host in record.published.voters if host in alive and host != owner.holder]
        has_successor = 0 < record.published.quorum <= len(others)
        if not has_successor and _may_come_up(status) and not record.accepts_loss(owner.fencing_term):
            self.waited_since = None
            return Standing.WELL  # nobody else could be promoted, so giving it up would help nobody
        if self.waited_since is None or is_further:
            self.waited_since = now
        patience_s = PATIENCE_S * 2 ** min(self.fruitless, _DOUBLINGS_MAX)
        is_late = now - self.waited_since > patience_s * NS_PER_S
        return Standing.UNFIT if is_late else Standing.WELL

    def complaint(self, holder: HostId, now: int) -> str:
        """What people are told of a holder that is waited for; empty while there is nothing to tell."""
        if self.not_serving_since is None or now - self.not_serving_since < PATIENCE_S * NS_PER_S:
            return ""
        return f"{holder} is to be primary and does not take writes yet, and nobody else could be promoted"

    def _came_further(self, status: DatabaseStatus | None) -> bool:
        """Its server is further on its way to serve than it ever was: it is given its time again."""
        far = _COMING_UP.index(status.role) if status is not None and status.role in _COMING_UP else 0
        is_further, self.far = far > self.far, max(far, self.far)
        return is_further


def _may_come_up(status: DatabaseStatus | None) -> bool:
    """It has whole data, so waiting may be enough; one without never serves by itself."""
    return status is None or status.role not in (DatabaseRole.NONE, DatabaseRole.PREPARING)


def _serves(status: DatabaseStatus | None, fencing_term: FencingTerm) -> bool:
    return (
        status is not None
        and status.role is DatabaseRole.PRIMARY
        and status.is_open
        and status.fencing_term == fencing_term
    )
