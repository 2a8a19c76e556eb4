"""A host's own lease, and the leader's account of when leases have run out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvariantBroken
from mesh.ids import VIP, FencingTerm, HostId, Index, OwnedName, Term
from mesh.lease.acting import held_term, may_act
from mesh.lease.grantor import NEVER, LeaseTable
from mesh.lease.holder import BEATS_REMEMBERED_MAX, HostLease
from mesh.lease.model import BeatAnswer, ElectedBy, Election, OwnershipView
from mesh.lease.timers import LeaseTimers

A, B, C = HostId("a"), HostId("b"), HostId("c")
TIMERS = LeaseTimers()
LEASE = TIMERS.lease_ns
MS = 1_000_000
S = 1000 * MS
#: When leader `a` was elected.
TE = 100 * S


def answer(sequence: int, term: int = 1, granted: bool = True) -> BeatAnswer:
    return BeatAnswer(sequence, granted, LEASE, Term(term))


# ---- the host's own side --------------------------------------------------------


def test_a_lease_runs_from_the_sending_of_the_answered_beat() -> None:
    """Goal: time on the wire never lengthens a lease.

    Method: send at 10 s, then ask around its end and its margin.
    """
    lease = HostLease()
    assert not lease.is_live(0)
    lease.beat_sent(1, 10 * S)
    assert lease.answered(answer(1))
    assert lease.until_ns == 10 * S + LEASE
    assert lease.ns_left(10 * S + LEASE - 5) == 5
    assert lease.ns_left(20 * S) == 0
    assert lease.is_live(10 * S + LEASE - 6, margin=5)
    assert not lease.is_live(10 * S + LEASE - 5, margin=5)


def test_late_unknown_repeated_and_refused_answers_change_nothing() -> None:
    """Goal: no stray answer moves the end of a lease. Method: each kind of stray after one good answer."""
    lease = HostLease(Term(1))
    lease.beat_sent(1, S)
    lease.beat_sent(2, 2 * S)
    lease.beat_sent(3, 3 * S)
    assert not lease.answered(answer(9))
    assert lease.answered(answer(2))
    assert not lease.answered(answer(1))
    assert not lease.answered(answer(2))
    assert not lease.answered(answer(3, granted=False))
    assert lease.until_ns == 2 * S + LEASE


def test_answers_of_a_term_this_host_has_left_do_not_count() -> None:
    """Goal: a deposed leader extends nothing.

    Method: answers and a round from below the highest term seen.
    """
    lease = HostLease(Term(4))
    lease.beat_sent(1, S)
    assert not lease.answered(answer(1, term=3))
    lease.term_seen(Term(6))
    lease.term_seen(Term(5))
    assert not lease.answered(answer(1, term=5))
    assert not lease.leadership_confirmed(S, LEASE, Term(5))
    assert lease.answered(answer(1, term=6))
    assert lease.term == 6


def test_a_leaders_lease_runs_from_the_sending_of_the_confirmed_round() -> None:
    """Goal: a leader trusts itself no longer than a host. Method: confirm a round, then an older one."""
    lease = HostLease()
    assert lease.leadership_confirmed(5 * S, LEASE, Term(2))
    assert not lease.leadership_confirmed(4 * S, LEASE, Term(2))
    assert lease.until_ns == 5 * S + LEASE


def test_unanswered_beats_are_forgotten_from_the_oldest() -> None:
    """Goal: silence costs bounded memory, never the newest beat. Method: one beat beyond the bound."""
    lease = HostLease()
    for sequence in range(1, BEATS_REMEMBERED_MAX + 2):
        lease.beat_sent(sequence, sequence)
    assert not lease.answered(answer(1))
    assert lease.answered(answer(2))


def test_beats_are_numbered_upwards() -> None:
    """Goal: an answer never fits two beats. Method: send the same number twice."""
    lease = HostLease()
    lease.beat_sent(2, 0)
    with pytest.raises(InvariantBroken):
        lease.beat_sent(2, 1)


@given(st.lists(st.tuples(st.sampled_from("sa"), st.integers(1, 9), st.integers(0, 3), st.booleans())))
def test_a_lease_equals_the_newest_grant_of_any_term_not_left(
    events: list[tuple[str, int, int, bool]],
) -> None:
    """A naive twin keeps every grant and looks through all of them."""
    lease, sent, grants, term, newest = HostLease(), {}, [0], 0, 0
    for now, (kind, sequence, answered_in, granted) in enumerate(events):
        if kind == "s":
            newest += 1
            sent[newest] = now
            lease.beat_sent(newest, now)
        elif sequence in sent and answered_in >= term:
            term = answered_in
            if granted:
                grants.append(sent[sequence] + LEASE)
            sent = {beat: at for beat, at in sent.items() if beat > sequence}
            lease.answered(answer(sequence, answered_in, granted))
        else:
            lease.answered(answer(sequence, answered_in, granted))
        assert lease.until_ns == max(grants)


# ---- acting ---------------------------------------------------------------------


def test_only_the_present_owner_with_a_live_lease_may_act() -> None:
    """Goal: every condition of acting is needed.

    Method: take them away one by one: term, margin, holder, successor.
    """
    lease = HostLease()
    lease.leadership_confirmed(S, LEASE, Term(1))
    owned = OwnershipView(VIP, A, FencingTerm(3))
    others = (OwnershipView(VIP, B, FencingTerm(3)),)
    leaving = (OwnershipView(VIP, A, FencingTerm(3), successor=B),)
    staying = (OwnershipView(VIP, A, FencingTerm(3), successor=A),)

    def allowed(views: tuple[OwnershipView, ...], now: int = S, term: int = 3) -> bool:
        return may_act(A, VIP, FencingTerm(term), views, lease, now=now, margin=50 * MS)

    assert allowed((owned,))
    assert allowed((OwnershipView(OwnedName("service/reporter"), B, FencingTerm(3)), owned))
    assert allowed(staying)
    assert not allowed((owned,), term=2)
    assert not allowed((owned,), now=S + LEASE - 50 * MS)
    assert not allowed(others)
    assert not allowed(leaving)
    assert not allowed(())
    assert held_term(A, VIP, (OwnershipView(VIP, A, FencingTerm(9)),)) == 9


# ---- the leader's side ----------------------------------------------------------


def table(by: ElectedBy = ElectedBy.TIMEOUT, predecessor: HostId | None = C, index: int = 5) -> LeaseTable:
    made = LeaseTable(A, Election(TE, by, predecessor, TE - 2 * S), TIMERS)
    made.state_applied([owned(B)], Index(index))
    return made


def owned(holder: HostId, term: int = 1, successor: HostId | None = None) -> OwnershipView:
    return OwnershipView(VIP, holder, FencingTerm(term), successor)


def granted(leases: LeaseTable, host: HostId, now: int, applied: int = 5) -> bool:
    return leases.grant(host, now, quorum_confirmed_at=now - 100 * MS, applied_index=Index(applied))


def test_a_leader_grants_only_while_a_quorum_confirms_it() -> None:
    """Goal: a cut-off leader extends nobody. Method: no round, a fresh one, and one that is just too old."""
    leases = table()
    for confirmed, expected in ((None, False), (TE, True)):
        assert leases.grant(B, TE + S, quorum_confirmed_at=confirmed, applied_index=Index(5)) is expected
    late = TE + LEASE
    assert not leases.grant(B, late, quorum_confirmed_at=TE, applied_index=Index(5))
    assert leases.grant(B, late - 1, quorum_confirmed_at=TE, applied_index=Index(5))


def test_a_leader_grants_nothing_before_it_has_applied_its_own_entry() -> None:
    """Goal: no grant from a stale view of who owns what. Method: a table that was told no state yet."""
    leases = LeaseTable(A, Election(TE, ElectedBy.TIMEOUT, None, 0), TIMERS)
    assert not granted(leases, B, TE + S)


def test_a_host_that_has_not_applied_the_newest_ownerships_is_not_granted() -> None:
    """Goal: no host acts on an ownership it lost. Method: applied indexes around each change."""
    leases = table()
    assert not granted(leases, B, TE + S, applied=4)
    leases.state_applied([owned(B)], Index(9))
    assert granted(leases, B, TE + S, applied=5), "nothing about ownerships has changed since 5"
    leases.state_applied([owned(C, 2)], Index(10))
    assert not granted(leases, B, TE + S, applied=9)
    assert granted(leases, B, TE + S, applied=10)


def test_without_news_a_holder_is_waited_out_from_the_election() -> None:
    """Goal: grants of an earlier leader still count. Method: ask a table that has granted nothing."""
    assert table().may_reassign(owned(B)) == TE + TIMERS.cleared_ns


def test_every_acknowledgement_moves_the_moment() -> None:
    """Goal: what was granted is waited out in full. Method: grant late, then ask when the holder is clear."""
    leases = table()
    assert granted(leases, B, TE + 7 * S)
    assert leases.may_reassign(owned(B)) == TE + 7 * S + TIMERS.cleared_ns


def test_after_an_ordinary_election_the_predecessor_is_clear_but_for_its_death_throes() -> None:
    """Goal: failover waits no longer than needed, yet for a fresh grant. Method: before and after one."""
    leases = table()
    assert leases.may_reassign(owned(C)) == TE + TIMERS.crash_release_ns
    assert granted(leases, C, TE + S)
    assert leases.may_reassign(owned(C)) == TE + S + TIMERS.cleared_ns


@pytest.mark.parametrize("by", [ElectedBy.TRANSFER, ElectedBy.CRASH_PROOF])
def test_after_another_election_former_leaders_may_have_granted_for_one_lease_more(by: ElectedBy) -> None:
    """Goal: an early election does not shorten the wait. Method: a transfer and a crash proof."""
    expected = TE + TIMERS.lease_elsewhere_ns + TIMERS.cleared_ns
    assert table(by).may_reassign(owned(B)) == expected
    assert table(by).may_reassign(owned(C)) == expected


def test_a_crash_proof_ends_the_wait_unless_a_newer_grant_may_exist() -> None:
    """Goal: a proof counts only for the process it is about.

    Method: proofs before, at and after the election.
    """
    leases = table()
    leases.crash_proven(B, TE - S)
    assert leases.may_reassign(owned(B)) == TE + TIMERS.cleared_ns, "a new process may hold a foreign grant"
    leases.crash_proven(B, TE + S)
    leases.crash_proven(B, TE)
    assert leases.may_reassign(owned(B)) == TE + S + TIMERS.crash_release_ns
    assert granted(leases, B, TE + 2 * S)
    assert leases.may_reassign(owned(B)) == TE + 2 * S + TIMERS.cleared_ns


def test_a_proof_about_the_predecessor_counts_if_it_is_newer_than_its_last_word() -> None:
    """Goal: an old proof frees nothing. Method: proofs from around its last word, then a grant."""
    leases = table(ElectedBy.CRASH_PROOF)
    waited = TE + TIMERS.lease_elsewhere_ns + TIMERS.cleared_ns
    leases.crash_proven(C, TE - 3 * S)
    assert leases.may_reassign(owned(C)) == waited, "it led on after that proof"
    leases.crash_proven(C, TE - S)
    assert leases.may_reassign(owned(C)) == TE
    leases.crash_proven(C, TE - 10 * MS)
    assert leases.may_reassign(owned(C)) == TE - 10 * MS + TIMERS.crash_release_ns
    assert granted(leases, C, TE + S)
    assert leases.may_reassign(owned(C)) == TE + TIMERS.lease_elsewhere_ns + TIMERS.cleared_ns


def test_a_release_of_exactly_this_ownership_frees_it_at_once() -> None:
    """Goal: a release saves the wait, but never for another term or process.

    Method: a wrong term, the right one, restarts.
    """
    leases = table()
    assert granted(leases, B, TE + S)
    leases.released(B, VIP, FencingTerm(2))
    assert leases.may_reassign(owned(B)) > TE + S
    leases.released(B, VIP, FencingTerm(1))
    assert leases.may_reassign(owned(B)) == TE
    leases.process_started(C)
    assert leases.may_reassign(owned(B)) == TE
    leases.state_applied([owned(B, successor=A)], Index(6))
    assert leases.may_reassign(owned(B)) == TE, "the ownership is still the one that was released"
    leases.process_started(B)
    assert leases.may_reassign(owned(B)) > TE + S, "the new process has promised nothing"


def test_a_leader_never_grants_itself() -> None:
    """Goal: its lease rests on its quorum, not on its own word. Method: ask the table for its own host."""
    assert not granted(table(), A, TE + S)


def test_what_the_leader_itself_holds_is_freed_only_by_its_release() -> None:
    """Goal: it never times itself out. Method: ask before and after its release."""
    leases = table()
    assert leases.may_reassign(owned(A)) == NEVER
    leases.released(A, VIP, FencingTerm(1))
    assert leases.may_reassign(owned(A)) == TE


def test_a_holder_about_to_lose_its_ownership_gets_no_grant_in_between() -> None:
    """Goal: no grant slips in while the change is on its way. Method: reserve, ask, apply, ask."""
    leases = table()
    free_at = leases.may_reassign(owned(B))
    with pytest.raises(InvariantBroken):
        leases.reserve(owned(B), A, free_at - 1)
    leases.reserve(owned(B), A, free_at)
    assert not granted(leases, B, free_at + 1)
    assert granted(leases, C, free_at + 1)
    leases.state_applied([owned(A, 2)], Index(6))
    assert granted(leases, B, free_at + 2, applied=6)


def test_a_reservation_that_came_to_nothing_is_dropped() -> None:
    """Goal: a failed proposal does not starve the holder of grants for ever. Method: reserve, then drop."""
    leases = table()
    leases.reserve(owned(B), None, TE + 9 * S)
    leases.state_applied([owned(B, successor=A)], Index(6))
    assert not granted(leases, B, TE + 9 * S, applied=6)
    leases.reservation_dropped(VIP)
    assert granted(leases, B, TE + 9 * S, applied=6)


def test_a_holder_that_released_is_granted_while_the_change_is_on_its_way() -> None:
    """Goal: releasing one thing does not cost the others. Method: grant between release and change."""
    leases = table()
    leases.released(B, VIP, FencingTerm(1))
    leases.reserve(owned(B), A, TE + S)
    assert granted(leases, B, TE + S)
    leases.state_applied([owned(A, 2)], Index(6))
    assert leases.may_reassign(owned(B, 2)) > TE + S, "the release was for the former ownership"


def test_giving_a_thing_back_to_its_holder_reserves_nothing() -> None:
    """Goal: a holder keeps its lease over a renewal. Method: reserve for the holder itself, then grant."""
    leases = table()
    leases.reserve(owned(B), B, TE)
    assert granted(leases, B, TE + S)
