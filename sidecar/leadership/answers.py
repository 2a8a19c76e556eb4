"""What a host that is beaten to answers, if it leads and if it does not."""

from collections.abc import Callable

from mesh import failpoints
from mesh.ids import Index, MemberId, Term
from mesh.lease.model import BeatAnswer
from mesh.lease.timers import LeaseTimers
from sidecar.leadership.beat import Beat, BeatReply
from sidecar.leadership.driver import LeaderDuty

HASHES_REMEMBERED_MAX = 16


class BeatAnswers:
    """Passes beats to the leadership of this host, if it has one.

    `duty` is None while this host does not lead; `state_hash` is this host's
    newest checkpoint, compared with the beats of others.
    """

    def __init__(
        self,
        *,
        timers: LeaseTimers,
        duty: Callable[[], LeaderDuty | None],
        term: Callable[[], Term],
        state_hash: Callable[[], tuple[Index, bytes]],
    ) -> None:
        self._lease_ns = timers.lease_ns
        self._duty = duty
        self._term = term
        self._state_hash = state_hash
        self._hashes: dict[Index, bytes] = {}

    def answer(self, member: MemberId, beat: Beat, source: int) -> BeatReply:
        """A beat to a follower is answered without a grant. *source*: which stream brought it."""
        duty = self._duty()
        granted = duty is not None and duty.beat(
            member,
            source=source,
            applied=beat.applied,
            statuses=beat.instances,
            complete=beat.complete,
            draining=beat.draining,
            releases=beat.releases,
            database=beat.database,
        )
        failpoints.hit("heartbeat.before-answer")
        return BeatReply(
            BeatAnswer(beat.sequence, granted, self._lease_ns, self._term()),
            state_diverged=self._diverged(beat),
        )

    def _diverged(self, beat: Beat) -> bool:
        """The host's state at some index is not what this host's was at the same index."""
        index, digest = self._state_hash()
        if index and index not in self._hashes:
            self._hashes[index] = digest
            while len(self._hashes) > HASHES_REMEMBERED_MAX:
                del self._hashes[next(iter(self._hashes))]
        known = self._hashes.get(beat.state_hash_index)
        return known is not None and known != beat.state_hash
