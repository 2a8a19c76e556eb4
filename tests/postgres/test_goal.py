"""What a host's database is to be, from the state, the lease and its own promise."""

from dataclasses import replace

import pytest

from mesh.ids import PRIMARY, FencingTerm, HostId, Index
from mesh.state.database_model import DatabaseRecord, DatabaseSpec
from mesh.state.model import Ownership
from sidecar.postgres.goal import HostStanding, goal_of
from sidecar.postgres.model import Ancestor, Goal, GoalKind, Lsn, Timeline, TimelineHistory

A, B = HostId("host1"), HostId("host2")
TERM = FencingTerm(3)
MADE = DatabaseRecord(
    DatabaseSpec(), 1, system_identifier="7000", bootstrap_host=A, timeline=2, history=((1, 7),),
    primary=A, primary_term=TERM,
)  # fmt: skip
OWNED = Ownership(PRIMARY, A, TERM, Index(9))
HERE = HostStanding(A, holds_data=True, lease_live=True)
THERE = HostStanding(B, holds_data=True, lease_live=True)
ADDRESS = "10.0.0.1:5432"
HISTORY = TimelineHistory(Timeline(2), (Ancestor(Timeline(1), Lsn(7)),))


def asked(
    standing: HostStanding,
    owner: Ownership | None = OWNED,
    record: DatabaseRecord | None = MADE,
    address: str = ADDRESS,
) -> Goal:
    return goal_of(record, owner, standing, {A: address} if address else {})


def test_without_a_declaration_or_data_there_is_nothing_to_do() -> None:
    """Goal: hosts that have no part in it leave it alone. Method: not declared; no data host."""
    assert asked(HERE, record=None) == Goal(GoalKind.NOTHING)
    assert asked(replace(HERE, holds_data=False)) == Goal(GoalKind.NOTHING)


def test_the_owner_acts_while_its_lease_runs() -> None:
    """Goal: one primary, with the number it is primary under. Method: the owner, before and after the
    database was made."""
    assert asked(HERE) == Goal(GoalKind.PRIMARY, TERM, "7000")
    assert asked(HERE, record=replace(MADE, system_identifier="")) == Goal(GoalKind.BOOTSTRAP, TERM)


@pytest.mark.parametrize(
    ("standing", "owner"),
    [
        (replace(HERE, lease_live=False), OWNED),
        (replace(HERE, released=(TERM,)), OWNED),
    ],
    ids=["no lease", "given up"],
)
def test_an_owner_that_may_not_act_has_nothing_left_running(standing: HostStanding, owner: Ownership) -> None:
    """Goal: never two that acknowledge. Method: each reason for which the owner may not act, also while the
    database is only being made."""
    assert asked(standing, owner).kind is GoalKind.FENCED
    assert asked(standing, owner, replace(MADE, system_identifier="")).kind is GoalKind.FENCED


def test_an_owner_that_is_to_hand_over_ends_in_its_own_order() -> None:
    """Goal: the successor gets everything. Method: asked to hand over; what is not made yet just ends; one
    without a lease may not even do that."""
    handing = replace(OWNED, successor=B)
    assert asked(HERE, handing) == Goal(GoalKind.HAND_OVER, TERM, "7000")
    assert asked(HERE, handing, replace(MADE, system_identifier="")).kind is GoalKind.FENCED
    assert asked(replace(HERE, lease_live=False), handing).kind is GoalKind.FENCED
    assert asked(HERE, replace(OWNED, successor=A)).kind is GoalKind.PRIMARY


def test_what_was_given_up_under_an_earlier_number_does_not_bind_a_later_one() -> None:
    """Goal: a host that gave it up may be given it again. Method: a release of the number before."""
    assert asked(replace(HERE, released=(FencingTerm(2),))).kind is GoalKind.PRIMARY


def test_others_follow_the_primary_where_it_is_reached() -> None:
    """Goal: one source of WAL. Method: another host, with and without a lease; a standby needs none."""
    wanted = Goal(GoalKind.FOLLOW, TERM, "7000", A, "10.0.0.1:5432", HISTORY)
    assert asked(THERE) == wanted
    assert asked(replace(THERE, lease_live=False)) == wanted


def test_a_sealed_host_receives_nothing_until_a_later_primaryship() -> None:
    """Goal: a promise outlives everything but a new primary. Method: sealed under this number, a higher and
    a lower one."""
    assert asked(replace(THERE, sealed_under=TERM)) == Goal(GoalKind.SEALED, TERM, "7000")
    assert asked(replace(THERE, sealed_under=FencingTerm(4))).kind is GoalKind.SEALED
    assert asked(replace(THERE, sealed_under=FencingTerm(2))).kind is GoalKind.FOLLOW


def test_nobody_is_followed_before_its_promotion_is_recorded_and_it_has_said_where() -> None:
    """Goal: no WAL from a primaryship that is over. Method: no address; recorded under an earlier number."""
    assert asked(THERE, address="").kind is GoalKind.HOLD
    assert asked(THERE, record=replace(MADE, primary_term=FencingTerm(2))).kind is GoalKind.HOLD


def test_with_no_owner_all_is_kept_as_it_is() -> None:
    """Goal: waiting loses nothing. Method: never assigned, and ended."""
    assert asked(THERE, owner=None).kind is GoalKind.HOLD
    assert asked(THERE, owner=Ownership(PRIMARY, None, TERM, Index(9))).kind is GoalKind.HOLD
