"""Every state of a host and everything that may be asked of it."""

from dataclasses import replace
from itertools import product

import pytest

from mesh.ids import FencingTerm, HostId
from sidecar.postgres.decide import asked_of, decide, state_of
from sidecar.postgres.model import (
    Ancestor,
    DataKind,
    Do,
    Goal,
    GoalKind,
    LocalData,
    LocalProcess,
    LocalState,
    Lsn,
    ProcessKind,
    SyncNames,
    Timeline,
    TimelineHistory,
)
from sidecar.postgres.table import TABLE, Asked, Local

A, B, C = (HostId(name) for name in "abc")
OURS = "7000000000000000001"
FIRST = TimelineHistory(Timeline(1))
SECOND = TimelineHistory(Timeline(2), (Ancestor(Timeline(1), Lsn(100)),))
WHOLE = LocalData(DataKind.PRESENT, OURS, FIRST, end=Lsn(90))
FORMER = replace(WHOLE, was_primary=True, primary_term=FencingTerm(4), is_clean=True)
NAMES = SyncNames(1, (B, C))
FOLLOW_B = Goal(GoalKind.FOLLOW, FencingTerm(5), OURS, B, "b:5432", SECOND)
LEAD = Goal(GoalKind.PRIMARY, FencingTerm(5), OURS, closed_because="not yet", names=NAMES, peers=(B, C))
RUNS_STANDBY = LocalProcess(ProcessKind.STANDBY, flushed=Lsn(95))


def host(data: LocalData = WHOLE, process: LocalProcess | None = None, sealed: int = 0) -> LocalState:
    return LocalState(data, process or LocalProcess(), FencingTerm(sealed), slots=(B, C))


def does(local: LocalState, goal: Goal) -> Do:
    return decide(local, goal).do


def test_every_state_and_goal_has_a_row_with_a_sentence() -> None:
    """Goal: total, and explained to people. Method: all pairs, and nothing beyond them."""
    assert set(TABLE) == set(product(Local, Asked))
    for row in TABLE.values():
        assert len(row.sentence.split()) >= 2
        assert not row.sentence.endswith(".")
        assert row.do is Do.WAIT or not row.tends


def all_states() -> list[LocalState]:
    datas = [
        LocalData(),
        LocalData(DataKind.PARTIAL),
        *(
            replace(data, damaged=damaged, system_identifier=identifier, rewind_refused=refused)
            for data, damaged, identifier, refused in product(
                (WHOLE, FORMER, replace(FORMER, is_clean=False)), ("", "a page"), (OURS, "8"), ("", "no")
            )
        ),
    ]
    processes = [
        LocalProcess(),
        *(
            LocalProcess(
                kind,
                as_standby=standby,
                told=(source, "b:5432") if source is not None else None,
                receives_from=source,
                is_open=is_open,
                is_checkpointed=is_open,
                has_other_names=is_odd,
                is_stray=is_odd and not is_open,
            )
            for kind, standby, source, is_open, is_odd in product(
                ProcessKind, (False, True), (None, A, B), (False, True), (False, True)
            )
        ),
    ]
    return [host(*each) for each in product(datas, processes, (0, 5))]


GOALS = [
    replace(
        goal,
        kind=kind,
        primary_history=history,
        closed_because=closed,
        fencing_term=FencingTerm(term),
        names=NAMES,
    )
    for goal, kind, history, closed, term in product(
        (FOLLOW_B,), GoalKind, (None, SECOND), ("", "not yet"), (5,)
    )
]


def test_whatever_is_found_and_asked_there_is_one_thing_to_do_and_it_is_safe() -> None:
    """Goal: no combination without an answer, none with a dangerous one. Method: all of them."""
    seen: set[tuple[Local, Asked]] = set()
    for local, goal in product(all_states(), GOALS):
        state, asked = state_of(local, goal), asked_of(local, goal)
        seen.add((state, asked))
        action = decide(local, goal)
        assert action.reason
        process, promised = local.process, goal.fencing_term <= local.sealed_under
        if action.do is Do.PROMOTE:
            assert goal.kind is GoalKind.PRIMARY
            assert not promised
            assert process.kind is ProcessKind.STANDBY
            assert process.receives_from is None
            assert not local.data.damaged
        if action.do in (Do.OPEN, Do.START_CLOSED_PRIMARY):
            assert goal.kind in (GoalKind.PRIMARY, GoalKind.BOOTSTRAP)
            assert goal.kind is GoalKind.BOOTSTRAP or not promised
            assert not local.data.damaged or process.kind is ProcessKind.PRIMARY
        if action.do is Do.OPEN:
            assert not goal.closed_because
            assert process.kind is ProcessKind.PRIMARY
        if action.do is Do.FOLLOW:
            assert not promised
        if action.do in (Do.CLONE, Do.REWIND, Do.INITDB, Do.START_STANDBY):
            assert process.kind is ProcessKind.DOWN
            assert state is not Local.STRANGE
        if goal.kind in (GoalKind.FENCED, GoalKind.HOLD) and process.kind is ProcessKind.PRIMARY:
            assert action.do in (Do.KILL_ALL, Do.STOP_FAST)
    assert {state for state, _ in seen} == set(Local)
    assert {asked for _, asked in seen} == set(Asked)


def test_a_failover_as_the_chosen_standby_sees_it() -> None:
    """Goal: seal, promote, open, in this order. Method: one host through its states."""
    seal = Goal(GoalKind.SEALED, FencingTerm(4), OURS)
    receiving = host(process=replace(RUNS_STANDBY, receives_from=A))
    action = decide(receiving, seal)
    assert (action.do, action.fencing_term) == (Do.SEAL, 4)
    sealed = host(process=RUNS_STANDBY, sealed=4)
    assert does(sealed, seal) is Do.WAIT
    lead = replace(LEAD, timeline_above=Timeline(3))
    action = decide(sealed, lead)
    assert (action.do, action.names, action.timeline_above) == (Do.PROMOTE, NAMES, 3)
    closed = host(process=LocalProcess(ProcessKind.PRIMARY), sealed=4)
    assert decide(closed, lead).reason == "not open yet: not yet"
    assert does(closed, replace(lead, closed_because="")) is Do.OPEN
    is_open = host(process=LocalProcess(ProcessKind.PRIMARY, is_open=True), sealed=4)
    assert does(is_open, lead) is Do.WAIT


def test_a_chosen_host_that_still_receives_promises_only_the_earlier_primaryships() -> None:
    """Goal: it does not bar itself. Method: PRIMARY 5 while receiving: the promise is for 4."""
    action = decide(host(process=replace(RUNS_STANDBY, receives_from=A)), LEAD)
    assert (action.do, action.fencing_term) == (Do.SEAL, 4)


def test_the_other_standby_follows_the_new_primary_and_not_the_old_one() -> None:
    """Goal: the promise holds. Method: sealed at 4: primaryship 4 is barred, 5 is followed."""
    sealed = host(process=RUNS_STANDBY, sealed=4)
    old = replace(FOLLOW_B, fencing_term=FencingTerm(4), primary=A)
    assert does(sealed, old) is Do.WAIT
    assert does(host(process=replace(RUNS_STANDBY, receives_from=A), sealed=4), old) is Do.SEAL
    again = host(process=replace(RUNS_STANDBY, receives_from=C), sealed=4)
    assert does(again, replace(old, primary=A)) is Do.SEAL
    assert does(sealed, FOLLOW_B) is Do.FOLLOW
    assert does(host(process=replace(RUNS_STANDBY, receives_from=B), sealed=4), FOLLOW_B) is Do.WAIT


def test_a_switchover_as_the_old_primary_sees_it() -> None:
    """Goal: checkpoint, stop, promise, follow without a rewind. Method: one host's states."""
    give = Goal(GoalKind.HAND_OVER, FencingTerm(4), OURS)
    serving = LocalProcess(ProcessKind.PRIMARY, is_open=True)
    assert does(host(FORMER, serving), give) is Do.CHECKPOINT
    assert does(host(FORMER, replace(serving, is_checkpointed=True)), give) is Do.STOP_FAST
    assert does(host(FORMER, LocalProcess(ProcessKind.PRIMARY)), give) is Do.STOP_FAST
    action = decide(host(FORMER), give)
    assert (action.do, action.fencing_term) == (Do.SEAL, 4)
    assert does(host(FORMER, sealed=4), give) is Do.WAIT
    assert does(host(FORMER, sealed=4), replace(LEAD, fencing_term=FencingTerm(4))) is Do.WAIT
    assert does(host(replace(FORMER, end=Lsn(100)), sealed=4), FOLLOW_B) is Do.START_STANDBY
    starting = LocalProcess(ProcessKind.STARTING, as_standby=True, told=(B, "b:5432"))
    assert does(host(FORMER, starting, sealed=4), FOLLOW_B) is Do.WAIT


@pytest.mark.parametrize("told", [None, (A, "a:5432"), (B, "b:6000")])
def test_a_standby_that_starts_for_another_primary_is_started_anew(told: tuple[HostId, str] | None) -> None:
    """Goal: one that needs WAL to come up is told from whom. Method: told nobody, another host or address."""
    starting = LocalProcess(ProcessKind.RECOVERING, as_standby=True, told=told)
    assert does(host(process=starting), FOLLOW_B) is Do.STOP_FAST
    assert does(host(process=replace(starting, told=(B, "b:5432"))), FOLLOW_B) is Do.WAIT
    for kind in (GoalKind.HOLD, GoalKind.PRIMARY):
        assert does(host(process=starting), replace(FOLLOW_B, kind=kind, names=NAMES)) is Do.WAIT
    assert does(host(process=starting, sealed=5), replace(FOLLOW_B, kind=GoalKind.SEALED)) is Do.WAIT


def test_a_primary_that_waits_for_others_than_it_was_told_is_set_right_or_ends() -> None:
    """Goal: it does not go on acknowledging what no promotion would ask for. Method: under every goal."""
    astray = host(FORMER, LocalProcess(ProcessKind.PRIMARY, is_open=True, has_other_names=True))
    for closed_because in ("", "being set"):
        assert does(astray, replace(LEAD, closed_because=closed_because)) is Do.SET_RIGHT
    closed = host(FORMER, LocalProcess(ProcessKind.PRIMARY, has_other_names=True))
    assert does(closed, LEAD) is Do.WAIT
    for goal in GOALS:
        is_leading = goal.kind in (GoalKind.PRIMARY, GoalKind.BOOTSTRAP)
        assert is_leading or does(astray, goal) in (Do.STOP_FAST, Do.KILL_ALL)


def test_a_promotion_that_outlived_whoever_began_it_is_ended() -> None:
    """Goal: no primary that nobody has an account of, and no fence. Method: under every goal."""
    stray = host(FORMER, LocalProcess(ProcessKind.PRIMARY, is_stray=True))
    for goal in (*GOALS, LEAD, replace(LEAD, closed_because="")):
        assert does(stray, goal) in (Do.KILL_ALL, Do.STOP_FAST)
    assert does(stray, LEAD) is Do.KILL_ALL


def test_a_primary_that_lost_its_place_ends_and_comes_back() -> None:
    """Goal: fenced, rewound, followed; cloned where that cannot be. Method: one host through its states."""
    serving = LocalProcess(ProcessKind.PRIMARY, is_open=True)
    assert does(host(FORMER, serving), Goal(GoalKind.FENCED, FencingTerm(4), OURS)) is Do.KILL_ALL
    assert does(host(FORMER, serving), FOLLOW_B) is Do.KILL_ALL
    crashed = replace(FORMER, is_clean=False)
    assert does(host(crashed, LocalProcess(ProcessKind.RECOVERING)), FOLLOW_B) is Do.KILL_ALL
    assert does(host(crashed), FOLLOW_B) is Do.REWIND
    refused = decide(host(replace(crashed, rewind_refused="WAL is gone")), FOLLOW_B)
    assert refused.do is Do.CLONE
    assert "WAL is gone" in refused.reason
    assert does(host(LocalData(DataKind.PARTIAL)), FOLLOW_B) is Do.CLONE


def test_nothing_may_acknowledge_before_it_is_known_who_must() -> None:
    """Goal: an empty list of standbys never comes into force by accident. Method: goals by default."""
    bare = Goal(GoalKind.PRIMARY, FencingTerm(5), OURS)
    assert does(host(process=RUNS_STANDBY), bare) is Do.WAIT
    assert does(host(FORMER), bare) is Do.WAIT
    assert does(host(FORMER, LocalProcess(ProcessKind.PRIMARY)), bare) is Do.WAIT
    assert does(host(LocalData()), Goal(GoalKind.BOOTSTRAP, FencingTerm(5))) is Do.WAIT


def test_a_primary_that_crash_restarts_begins_closed() -> None:
    """Goal: nobody reads what no standby has. Method: its own primaryship, the server gone."""
    action = decide(host(replace(FORMER, is_clean=False)), LEAD)
    assert (action.do, action.names) == (Do.START_CLOSED_PRIMARY, NAMES)


def test_data_of_another_database_are_never_touched() -> None:
    """Goal: refuse rather than lose. Method: every goal."""
    strange = replace(WHOLE, system_identifier="8")
    for goal in GOALS:
        assert does(host(strange), goal) in (Do.WAIT, Do.SEAL)


def test_a_diverged_standby_that_runs_is_stopped_to_be_rewound() -> None:
    """Goal: it does not ask for ever for what nobody can send. Method: too far on the old timeline."""
    far = replace(RUNS_STANDBY, flushed=Lsn(120), receives_from=A)
    assert does(host(process=far), FOLLOW_B) is Do.STOP_FAST
    assert does(host(replace(WHOLE, end=Lsn(120))), FOLLOW_B) is Do.REWIND
    assert does(host(process=far), replace(FOLLOW_B, primary_history=None)) is Do.WAIT


@pytest.mark.parametrize(("slots", "expected"), [((), Do.CREATE_SLOTS), ((A, B, C), Do.DROP_SLOTS)])
def test_slots_are_those_of_the_other_data_hosts(slots: tuple[HostId, ...], expected: Do) -> None:
    """Goal: any host can be followed at once, none keeps WAL for nobody. Method: too few, too many."""
    local = replace(host(process=LocalProcess(ProcessKind.PRIMARY, is_open=True)), slots=slots)
    action = decide(local, LEAD)
    assert action.do is expected
    assert action.hosts == ((B, C) if expected is Do.CREATE_SLOTS else (A,))


def test_a_database_is_made_once_and_never_over_data() -> None:
    """Goal: initdb only where nothing is. Method: the bootstrap host's states."""
    make = Goal(GoalKind.BOOTSTRAP, FencingTerm(1), names=NAMES)
    action = decide(host(LocalData()), make)
    assert (action.do, action.names) == (Do.INITDB, NAMES)
    assert does(host(LocalData(DataKind.PARTIAL)), make) is Do.INITDB
    assert does(host(FORMER), make) is Do.START_CLOSED_PRIMARY
    assert does(host(), make) is Do.WAIT
    assert does(host(FORMER, LocalProcess(ProcessKind.PRIMARY)), make) is Do.WAIT


def test_a_server_on_data_that_are_not_whole_is_ended() -> None:
    """Goal: a half copy never serves. Method: a process beside a marker file."""
    assert does(host(LocalData(DataKind.PARTIAL), RUNS_STANDBY), FOLLOW_B) is Do.KILL_ALL
