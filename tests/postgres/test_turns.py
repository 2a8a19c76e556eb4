"""Whose database may go down next for its own good."""

from dataclasses import replace

import pytest

from mesh.ids import PRIMARY as NAME
from mesh.ids import FencingTerm, HostId, Index
from mesh.state.database_model import DatabaseRecord, DatabaseRole, DatabaseSpec, DatabaseStatus, Wants
from mesh.state.model import Ownership
from sidecar.postgres.turns import Turn, whose_turn

A, B, C = HOSTS = tuple(HostId(name) for name in "abc")
TERM = FencingTerm(4)
RECORD = DatabaseRecord(DatabaseSpec(), version=7, system_identifier="1")
OWNER = Ownership(NAME, A, TERM, Index(1))
PRIMARY = DatabaseStatus(DatabaseRole.PRIMARY, is_open=True, fencing_term=TERM, parameters_version=7)
STANDBY = DatabaseStatus(DatabaseRole.STANDBY, is_streaming=True, fencing_term=TERM, parameters_version=7)
DOWN = DatabaseStatus(DatabaseRole.STOPPED)
N, R, L, X = Wants.NOTHING, Wants.RESTART, Wants.RESTART_LATER, Wants.COPY


def statuses(a: Wants, b: Wants, c: Wants) -> dict[HostId, DatabaseStatus]:
    """`a` is primary."""
    return {A: replace(PRIMARY, wants=a), B: replace(STANDBY, wants=b), C: replace(STANDBY, wants=c)}


@pytest.mark.parametrize(
    ("wants", "host", "why"),
    [
        ((N, N, N), None, ""),
        # Standbys first, one after the other, then the primary.
        ((R, R, R), B, "starts anew"),
        ((R, N, R), C, "starts anew"),
        ((R, N, N), A, "starts anew"),
        # Lowered: the primary first.
        ((R, L, L), A, "starts anew"),
        ((N, L, L), B, "starts anew"),
        ((N, N, L), C, "starts anew"),
        # One of each: what is lowered stays until the primary has it, on every standby.
        ((R, R, L), B, "starts anew"),
        # Damage comes first; a copy is made of a primary that is not damaged.
        ((R, R, X), C, "copied anew"),
        ((N, X, X), B, "copied anew"),
        ((X, R, N), A, "hands over"),
        ((X, X, N), A, "hands over"),
        ((X, X, X), None, "not damaged"),
    ],
)
def test_the_order_of_turns(wants: tuple[Wants, Wants, Wants], host: HostId | None, why: str) -> None:
    """Goal: one host at a time, in the order in which it does no harm. Method: what each of three wants."""
    found = whose_turn(RECORD, OWNER, statuses(*wants), HOSTS, ())
    assert found.host == host
    assert why in found.reason
    assert bool(found.reason) == bool(why)


@pytest.mark.parametrize("wants", [R, L, X])
def test_nobody_goes_down_while_another_is_away_or_commits_would_wait(wants: Wants) -> None:
    """Goal: a turn costs no commit more than its own stop. Method: a host is away, lost, or not needed."""
    seen = statuses(N, wants, N)
    assert whose_turn(RECORD, OWNER, seen, HOSTS, ()).host == B
    away = {**seen, C: DOWN}
    assert whose_turn(RECORD, OWNER, away, HOSTS, ()) == Turn(None, "waits for c to stream")
    lost = whose_turn(RECORD, OWNER, away, HOSTS, (C,))
    assert lost == Turn(None, "waits for another standby: commits need 1 that streams")
    easy = replace(RECORD, spec=DatabaseSpec(standbys_needed=0))
    assert whose_turn(easy, OWNER, away, HOSTS, (C,)).host == B
    earlier = {**seen, C: replace(STANDBY, fencing_term=FencingTerm(3))}
    assert whose_turn(RECORD, OWNER, earlier, HOSTS, ()).host is None


@pytest.mark.parametrize("wants", [R, X])
def test_nobody_goes_down_while_the_primary_is_moved_or_closed(wants: Wants) -> None:
    """Goal: a failover or a switchover finds every standby. Method: owners and primaries in between."""
    seen = statuses(N, wants, N)
    for owner in (
        replace(OWNER, successor=B),
        replace(OWNER, holder=None),
        replace(OWNER, fencing_term=FencingTerm(5)),
    ):
        assert whose_turn(RECORD, owner, seen, HOSTS, ()) == Turn(None, "waits until a primary takes writes")
    closed = {**seen, A: replace(PRIMARY, is_open=False)}
    assert whose_turn(RECORD, OWNER, closed, HOSTS, ()).host is None
    # One that is asked to go on as it is is no move.
    assert whose_turn(RECORD, replace(OWNER, successor=A), seen, HOSTS, ()).host == B


def test_a_restart_waits_until_all_have_loaded_it_and_nobody_refuses() -> None:
    """Goal: what one host cannot start with takes down that one at most. Method: a refusal, a slow one."""
    seen = statuses(R, N, R)
    refusing = {**seen, B: replace(STANDBY, parameters_version=0, parameters_refused=7)}
    assert whose_turn(RECORD, OWNER, refusing, HOSTS, ()) == Turn(
        None, "not while b refuses what is declared"
    )
    refused_before = {**seen, B: replace(STANDBY, parameters_refused=6)}
    assert whose_turn(RECORD, OWNER, refused_before, HOSTS, ()).host == C
    slow = {**seen, A: replace(PRIMARY, wants=R, parameters_version=6)}
    assert whose_turn(RECORD, OWNER, slow, HOSTS, ()) == Turn(None, "waits for a to load what is declared")


def test_a_primary_goes_down_with_as_many_standbys_as_commits_need() -> None:
    """Goal: it can open again. Method: the other host is lost; alone where none is needed."""
    seen = statuses(R, N, N)
    assert whose_turn(RECORD, OWNER, seen, HOSTS, (C,)).host == A
    two = replace(RECORD, spec=DatabaseSpec(standbys_needed=2))
    assert whose_turn(two, OWNER, seen, HOSTS, (C,)).host is None
    alone = replace(RECORD, spec=DatabaseSpec(standbys_needed=0))
    assert whose_turn(alone, OWNER, {A: seen[A]}, (A,), ()).host == A
