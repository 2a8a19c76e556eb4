"""How long nobody led or owned is measured as it was."""

from mesh.ids import VIP, FencingTerm, HostId, Index, MemberId, Term
from mesh.raft.model import EntryId, Role
from tests.sim.clock import MS
from tests.sim.outages import Outages
from tests.sim.percentiles import figures, spread
from tests.sim.told import facts, tell
from tests.sim.trace import Acted, Crash, Event, LeaseExtended, Pause, RoleChanged, Stopped

A, B = HostId("a"), HostId("b")


def member(host: HostId) -> MemberId:
    return MemberId(f"{host}.1")


def leads(at_ms: int, host: HostId, term: int, role: Role = Role.LEADER) -> RoleChanged:
    last = EntryId(Term(1), Index(1))
    return RoleChanged(at_ms * MS, host, member(host), role, Term(term), None, last, Index(1))


def leased(at_ms: int, host: HostId, left_ms: int) -> LeaseExtended:
    return LeaseExtended(at_ms * MS, host, member(host), 0, left_ms * MS)


def acts(at_ms: int, host: HostId, term: int) -> Acted:
    return Acted(at_ms * MS, host, member(host), VIP, FencingTerm(term))


def stops(at_ms: int, host: HostId, term: int) -> Stopped:
    return Stopped(at_ms * MS, host, member(host), VIP, FencingTerm(term), "sidecar")


def gaps(*events: Event) -> list[tuple[str, float, float]]:
    outages = Outages(facts())
    tell(outages, events)
    return [(gap.name, gap.from_ns / MS, gap.to_ns / MS) for gap in outages.gaps]


def test_a_gap_begins_when_the_leader_dies_and_ends_with_the_lease_of_the_next() -> None:
    """Goal: time without a leader is what clients feel. Method: a leader that is killed, and its successor,
    which cannot do anything before a majority stands behind it."""
    death = Crash(500 * MS, A, member(A), "kill")
    assert gaps(leads(100, A, 2), leased(110, A, 1_200), death, leads(560, B, 3), leased(570, B, 1_200)) == [
        ("", 500, 570)
    ]


def test_a_gap_begins_when_the_lease_of_a_silent_leader_runs_out() -> None:
    """Goal: a leader that nobody follows does not count. Method: its lease ends before another begins."""
    assert gaps(leads(100, A, 2), leased(110, A, 1_200), leads(3_000, B, 3), leased(3_010, B, 1_200)) == [
        ("", 1_310, 3_010)
    ]


def test_a_paused_leader_leads_nobody() -> None:
    """Goal: no credit for a lease that nobody can use. Method: pause, then another leads."""
    pause = Pause(400 * MS, A, member(A))
    told = gaps(leads(100, A, 2), leased(110, A, 1_200), pause, leads(2_000, B, 3), leased(2_001, B, 900))
    assert told == [("", 400, 2_001)]


def test_leaders_that_follow_each_other_within_a_lease_leave_no_gap() -> None:
    """Goal: a transfer costs only what it costs. Method: the next lease begins before the first ends."""
    assert gaps(leads(100, A, 2), leased(110, A, 1_200), leads(300, B, 3), leased(310, B, 1_200)) == []


def test_a_gap_of_an_owner_is_from_the_last_to_stop_to_the_next_to_act() -> None:
    """Goal: time without an owner. Method: one stops, another begins."""
    assert gaps(acts(100, A, 1), stops(400, A, 1), acts(650, B, 2)) == [(VIP, 400, 650)]


def test_percentiles_are_by_nearest_rank() -> None:
    """Goal: figures that can be checked by hand. Method: 1 to 200, one alone, none."""
    assert figures([float(n) for n in range(1, 201)]) == {
        "count": 200,
        "p50": 100.0,
        "p99": 198.0,
        "max": 200.0,
    }
    assert spread([7.4]) == "once, 7 ms"
    assert spread([]) == "never"
