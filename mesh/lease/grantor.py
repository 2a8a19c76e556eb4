"""The leader's knowledge of when each host's lease has certainly run out.

Notation: L the lease, e the clock rate error (any clock is at most 1+e times as
fast as any other), R the release bound, E the shortest election timeout; every
rule below needs L(1+e) + R <= E, which `timers.check_timers` enforces. Tq is
when a leader sent a heartbeat round that a quorum then confirmed.

What the rest of the program guarantees:

A. A leader answers *granted* at time A only if A <= Tq + L for some round of
   its own term, and only after an entry of its own term is committed (`grant`).
B. A host that is granted at A has beaten before A, so its lease ends at or
   before A + L on its own clock. A leader's own lease ends at Tq + L.
C. Whatever acts under a lease is gone R after it ended.
D. A voter gives no vote for E after it heard from a leader of *any* term that it
   has not proven dead, after it voted in a transfer, after it stepped down as
   leader itself, and after it started; except in an election by transfer. (At
   most one Raft tick is lost to counting; the `margin` of `acting.may_act`
   covers it.)
E. A host takes no grant of a term lower than its own durable one, nor acts for
   a name that its applied state does not give it.

Third hosts, ordinary election at Te. Let a former leader P grant host H at A.
Some voter both confirmed P's round Tq and voted for this leader, and it heard
P at Tq or later, so Te >= Tq + E >= Tq + L >= A: every foreign grant lies before
Te. By B and C nothing acts under it after Te + L(1+e) + R on this clock.

The predecessor itself, ordinary election. Its own lease ended at Tq + L and all
under it was gone by Tq + L(1+e) + R <= Tq + E <= Te: it is free at once, or, if
the linking voter gave its vote because it had proven the predecessor dead, after
the crash release. The code always adds that (50 ms), as it cannot tell. What a
leader before it may have granted to it is gone as well: this leader heard from
the predecessor in its term (`Election.predecessor`), waited E after that, and
the predecessor took no older grant once it stood for that term (E). That it is
the newest leader that ever granted follows from A: a later one would have an
entry of its term in this leader's log.

Other elections. Voters did not wait, so P may not know yet. The voter that links
both quorums confirmed Tq before it voted, so Tq < Te: P grants until Te + L, and
its own lease ends by then too. Hosts it granted act until Te + 2 L(1+e) + R. The
predecessor's own lease gives Te + L(1+e) + R, but as it may have been granted by
the leader before it, the larger bound is used for all.

Crash proof of H at time P. The dead process held its lease in memory, so only a
new process of H could act, under a grant given after P: by this leader (then the
acknowledgement is newer than the proof, and counts) or by a former one, which is
over when foreign grants are over. So the proof shortens waiting if it is newer
than the last acknowledgement and than the last possible foreign grant; or if H
is the predecessor and the proof is newer than what was heard from it as leader:
by E its new process takes no grant of a leader before its own term, and by A
there was none after it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mesh.errors import InvariantBroken
from mesh.ids import FencingTerm, HostId, Index, OwnedName
from mesh.lease.model import ElectedBy, Election, OwnershipView
from mesh.lease.timers import LeaseTimers

#: No time frees the ownership, only a release.
NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Reservation:
    """A change of owner that has been decided but is not applied yet."""

    holder: HostId
    fencing_term: FencingTerm


class LeaseTable:
    """One leadership's account of leases; a new leadership starts a new one.

    Invariant: from `reserve` until the former holder is known to have applied
    the change, that holder is not granted; so a host that was cut off, then
    comes back with an old state, never acts on it.
    """

    def __init__(self, leader: HostId, election: Election, timers: LeaseTimers) -> None:
        self._leader = leader
        self._election = election
        self._timers = timers
        self._acknowledged: dict[HostId, int] = {}
        self._proofs: dict[HostId, int] = {}
        self._released: dict[OwnedName, Reservation] = {}
        self._reserved: dict[OwnedName, Reservation] = {}
        self._ownerships: tuple[OwnershipView, ...] | None = None
        self._barrier = Index(0)

    # ---- what is learnt ---------------------------------------------------------

    def state_applied(self, ownerships: Iterable[OwnershipView], index: Index) -> None:
        """This leader has applied `index`, and these are the ownerships there.

        Order: first after an entry of its own term is applied, and before any
        grant; then on every change of ownerships.
        """
        present = tuple(ownerships)
        if present == self._ownerships:
            return
        self._ownerships = present
        self._barrier = index
        terms = {ownership.name: ownership.fencing_term for ownership in present}
        for name, reservation in list(self._reserved.items()):
            if terms.get(name) != reservation.fencing_term:
                del self._reserved[name]
        for name, release in list(self._released.items()):
            if terms.get(name) != release.fencing_term:
                del self._released[name]

    def released(self, host: HostId, name: OwnedName, fencing_term: FencingTerm) -> None:
        """The holder itself says that it has stopped and will not act under this number again."""
        self._released[name] = Reservation(host, fencing_term)

    def process_started(self, host: HostId) -> None:
        """A new sidecar process of `host` beats: what the old one promised is not known to it."""
        for name, release in list(self._released.items()):
            if release.holder == host:
                del self._released[name]

    def crash_proven(self, host: HostId, at: int) -> None:
        """The sidecar of `host` was proven dead at `at`."""
        self._proofs[host] = max(at, self._proofs.get(host, at))

    # ---- what is granted --------------------------------------------------------

    def is_confirmed(self, now: int, quorum_confirmed_at: int | None) -> bool:
        """A quorum confirmed this leadership by a round sent less than a lease ago."""
        return quorum_confirmed_at is not None and now < quorum_confirmed_at + self._timers.lease_ns

    def grant(
        self,
        host: HostId,
        now: int,
        *,
        quorum_confirmed_at: int | None,
        applied_index: Index,
    ) -> bool:
        """Whether to answer *granted* to a beat now; notes the acknowledgement if so.

        `quorum_confirmed_at` is when the newest heartbeat round that a quorum
        has confirmed was sent; None before that and before this leader has
        applied an entry of its own term. `applied_index` is the host's own.
        The leader itself is never granted: counted from its beat, its lease would
        outlast the quorum by up to L; it lives by `HostLease.leadership_confirmed`.

        Refused: while leadership is unconfirmed, to a host that has not applied
        the newest change of ownerships, and to one that is just losing an
        ownership without having released it.
        """
        losing = any(
            reservation.holder == host and self._released.get(name) != reservation
            for name, reservation in self._reserved.items()
        )
        if (
            host == self._leader
            or self._ownerships is None
            or not self.is_confirmed(now, quorum_confirmed_at)
            or applied_index < self._barrier
            or losing
        ):
            return False
        self._acknowledged[host] = now
        return True

    # ---- what follows -----------------------------------------------------------

    def is_released(self, ownership: OwnershipView) -> bool:
        """The present holder has said that it will not act under the present number again."""
        return self._released.get(ownership.name) == Reservation(ownership.holder, ownership.fencing_term)

    def may_reassign(self, ownership: OwnershipView) -> int:
        """The earliest moment at which another host may become owner.

        At or before now: at once. The election's own moment stands for "at once"
        since nothing was possible before it. `NEVER` for what the leader itself
        holds and has not released: its lease goes on with every confirmed round.
        """
        host, election, timers = ownership.holder, self._election, self._timers
        if self.is_released(ownership):
            return election.at
        if host == self._leader:
            return NEVER
        ordinary = election.by is ElectedBy.TIMEOUT
        predecessor = host == election.predecessor
        acknowledged = self._acknowledged.get(host)
        if ordinary and predecessor and acknowledged is None:
            return election.at + timers.crash_release_ns
        foreign_end = election.at if ordinary else election.at + timers.lease_elsewhere_ns
        last_grant = foreign_end if acknowledged is None else max(foreign_end, acknowledged)
        cleared = last_grant + timers.cleared_ns
        proof = self._proofs.get(host)
        if proof is None:
            return cleared
        if predecessor:
            heard_at = election.predecessor_heard_at
            last_grant = heard_at if acknowledged is None else max(heard_at, acknowledged)
        if proof < last_grant:
            return cleared
        return min(cleared, max(election.at, proof + timers.crash_release_ns))

    def reserve(self, ownership: OwnershipView, to: HostId | None, now: int) -> None:
        """Close grants to the present holder before `ownership` is given to `to` (None: ended).

        Order: before the proposal leaves. `state_applied` opens them again; so
        does `reservation_dropped`, when the proposal was refused unsent.
        """
        if to == ownership.holder:
            return
        if now < self.may_reassign(ownership):
            raise InvariantBroken(f"{ownership.name} may not be taken from {ownership.holder} yet")
        self._reserved[ownership.name] = Reservation(ownership.holder, ownership.fencing_term)

    def reservation_dropped(self, name: OwnedName) -> None:
        """The proposal was refused and will never be applied."""
        self._reserved.pop(name, None)
