"""Who succeeds the primary: each rule with its story."""

from dataclasses import replace

import pytest

from mesh.ids import FencingTerm, HostId
from sidecar.postgres.failover import (
    FailoverStep,
    FailoverView,
    Standing,
    SuccessorView,
    decide_failover,
    target_of,
    why_no_switchover,
)
from sidecar.postgres.model import Ancestor, Lsn, SealReport, SyncSet, Timeline, TimelineHistory

A, B, C, D = (HostId(name) for name in "abcd")
OURS = "7000000000000000001"
FIRST = TimelineHistory(Timeline(1))


def line(timeline: int, *ancestors: tuple[int, int]) -> TimelineHistory:
    return TimelineHistory(
        Timeline(timeline), tuple(Ancestor(Timeline(number), Lsn(end)) for number, end in ancestors)
    )


def says(host: HostId, flushed: int, history: TimelineHistory = FIRST, **more: object) -> SealReport:
    found = SealReport(host, FencingTerm(4), OURS, history, Lsn(flushed))
    return replace(found, **more)  # type: ignore[arg-type]  # its own fields


def view(*reports: SealReport, **more: object) -> FailoverView:
    """A was primary number 4 of timeline 1 and is lost; B leads; 2 of b, c are to be asked."""
    found = FailoverView(
        leader=B,
        data_hosts=(A, B, C),
        alive=(B, C),
        holder=A,
        fencing_term=FencingTerm(4),
        standing=Standing.LOST,
        system_identifier=OURS,
        timeline=Timeline(1),
        primary_term=FencingTerm(4),
        published=SyncSet(7, (B, C), 2),
        reports={report.host: report for report in reports},
    )
    return replace(found, **more)  # type: ignore[arg-type]  # its own fields


def chosen(*reports: SealReport, **more: object) -> HostId | None:
    return decide_failover(view(*reports, **more)).chosen


# ---- the ordinary course --------------------------------------------------------


def test_a_primary_that_is_well_is_left_alone() -> None:
    """Goal: no failover without a reason. Method: alive and serving; also before the database is made."""
    assert decide_failover(view(standing=Standing.WELL)) == FailoverStep("a is primary and well")
    unmade = view(system_identifier="")
    assert decide_failover(unmade).chosen is None
    assert target_of(unmade, FailoverStep("")) == unmade.holder
    assert target_of(view(standing=Standing.WELL), FailoverStep("")) == A


def test_all_that_live_are_sealed_and_the_furthest_of_a_quorum_is_chosen() -> None:
    """Goal: the whole course. Method: nobody answered, one did, both did."""
    step = decide_failover(view())
    assert (step.seal, step.chosen) == ((B, C), None)
    step = decide_failover(view(says(B, 90)))
    assert (step.seal, step.chosen, step.missing) == ((C,), None, (C,))
    assert "1 of the 2 needed of b, c" in step.reason
    assert "c has not answered" in step.reason
    step = decide_failover(view(says(B, 90), says(C, 100)))
    assert (step.seal, step.chosen) == ((), C)
    assert (step.published_version, step.recorded_term) == (7, 4)
    facts = dict(step.facts)
    assert facts["report-c"] == "1@0/64"
    assert facts["report-a"] == "is lost"
    assert target_of(view(), step) == C


def test_of_equals_the_leader_is_chosen_and_then_the_first_name() -> None:
    """Goal: leader and primary on one host where it costs nothing. Method: same positions."""
    assert chosen(says(B, 90), says(C, 90)) is B
    assert chosen(says(B, 90), says(C, 90), leader=C) is C
    assert chosen(says(B, 90), says(C, 90), leader=D) is B


def test_a_database_that_cannot_serve_moves_while_its_host_lives() -> None:
    """Goal: postmaster or disk gone, sidecar alive. Method: unfit holder: it is sealed too."""
    step = decide_failover(view(says(B, 90), says(C, 90), standing=Standing.UNFIT, alive=(A, B, C)))
    assert (step.seal, step.chosen) == ((A,), B)


# ---- never the wrong one --------------------------------------------------------


def test_a_lagging_standby_is_not_chosen_for_its_better_network() -> None:
    """Goal: LSN decides, not who answers first or leads. Method: the leader lags."""
    assert chosen(says(B, 50), says(C, 100)) is C


def test_a_higher_lsn_on_an_older_timeline_does_not_win() -> None:
    """Goal: timeline first. Method: C kept an unacknowledged tail of the primary before A; B has A's line."""
    second = line(2, (1, 80))
    more = {"timeline": Timeline(2)}
    assert chosen(says(B, 90, second), says(C, 500), **more) is B
    assert chosen(says(B, 80, second), says(C, 500), **more) is B


def test_a_standby_that_only_heard_of_the_new_timeline_does_not_win_by_its_number() -> None:
    """Goal: a number is no WAL. Method: B is told of timeline 2 and lacks what C has of timeline 1."""
    assert chosen(says(B, 60, line(2, (1, 80))), says(C, 75), timeline=Timeline(2)) is C


def test_two_that_were_promoted_on_the_same_number_are_not_mixed() -> None:
    """Goal: found by comparing histories; a person decides. Method: timeline 2 begun at 80 and at 95."""
    one, other = says(B, 120, line(2, (1, 80))), says(C, 130, line(2, (1, 95)))
    step = decide_failover(view(one, other, timeline=Timeline(2)))
    assert step.chosen is None
    assert "went apart" in step.reason
    accepted = decide_failover(view(one, other, timeline=Timeline(2), accepted_loss=FencingTerm(4)))
    assert (accepted.chosen, accepted.loss_accepted) == (C, True)


def test_a_branch_off_the_recorded_line_loses_against_the_recorded_timeline() -> None:
    """Goal: the recorded promotion is the true one. Method: C was promoted by hand."""
    recorded, by_hand = says(B, 150, line(3, (1, 80), (2, 140))), says(C, 400, line(2, (1, 70)))
    assert chosen(recorded, by_hand, timeline=Timeline(3)) is B
    assert chosen(says(B, 60, line(3, (1, 80), (2, 140))), by_hand, timeline=Timeline(3)) is C


def test_a_timeline_that_no_recorded_promotion_made_does_not_count() -> None:
    """Goal: promoted by hand counts for nothing. Method: timeline 2, the present primaryship recorded 1; then
    a primaryship that was assigned and died before it recorded itself."""
    step = decide_failover(view(says(B, 90), says(C, 200, line(2, (1, 80)))))
    assert (step.chosen, step.missing) == (None, (C,))
    assert "no recorded promotion" in step.reason
    assert chosen(says(B, 80), says(C, 85, line(2, (1, 80))), primary_term=FencingTerm(3)) is C


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"damaged": "page 7 of a table"}, "c is damaged: page 7"),
        ({"system_identifier": "8"}, "c holds another database (8)"),
        ({"fencing_term": FencingTerm(3)}, "c is sealed at 3, not at 4"),
        ({"catching_up": True}, "c still reads WAL"),
        ({"primary_term": FencingTerm(2)}, "c was primary number 2"),
    ],
    ids=["damaged", "stranger", "older-seal", "catching-up", "never-followed"],
)
def test_a_word_that_proves_nothing_does_not_count(change: dict[str, object], why: str) -> None:
    """Goal: no promotion by such a word, nor of such a host, with an accepted loss too. Method: one each."""
    word = replace(says(C, 900), **change)  # type: ignore[arg-type]  # its own fields
    step = decide_failover(view(says(B, 90), word))
    assert (step.chosen, step.missing) == (None, (C,))
    assert why in step.reason
    assert chosen(says(B, 90), word, accepted_loss=FencingTerm(4)) is B
    assert chosen(word, accepted_loss=FencingTerm(4)) is None
    assert chosen(says(B, 90), word, published=SyncSet(8, (B,), 1)) is B


def test_a_host_that_is_no_voter_is_not_chosen_and_does_not_make_a_quorum() -> None:
    """Goal: only those count that acknowledged commits must be on. Method: D answers in place of C."""
    assert chosen(says(B, 90), says(D, 90), alive=(B, C, D), data_hosts=(A, B, C, D)) is None
    assert chosen(says(B, 90), says(D, 99), alive=(B, D), published=SyncSet(8, (B,), 1)) is B


# ---- what is missing ------------------------------------------------------------


def test_primary_and_one_standby_lost_together_is_refused_with_who_is_missing() -> None:
    """Goal: refuse rather than lose. Method: only B is left of 2 of b, c."""
    step = decide_failover(view(says(B, 90), alive=(B,)))
    assert (step.chosen, step.missing) == (None, (C,))
    assert step.reason == (
        "nobody is promoted: 1 of the 2 needed of b, c count; c is lost;"
        " bring one of them or a back, or accept the loss"
    )
    assert target_of(view(), step) is None


def test_both_standbys_lost_is_refused_and_the_primary_goes_on_when_it_returns() -> None:
    """Goal: nothing is given away when all but the primary are gone. Method: C alone, not a voter; then A
    returns after a crash, with its data."""
    step = decide_failover(view(alive=(C,), published=SyncSet(9, (B,), 1)))
    assert (step.chosen, step.missing) == (None, (B,))
    back = says(A, 0, primary_term=FencingTerm(4))
    step = decide_failover(view(back, alive=(A, C), standing=Standing.UNFIT, published=SyncSet(9, (B,), 1)))
    assert step.chosen is A
    assert "goes on" in step.reason


def test_a_standby_that_was_taken_out_of_the_set_before_leaves_the_other_enough() -> None:
    """Goal: one after the other is survived. Method: the set was shrunk to B before A was lost."""
    assert chosen(says(B, 90), alive=(B,), published=SyncSet(9, (B,), 1)) is B


def test_without_a_published_set_only_the_primary_itself_counts() -> None:
    """Goal: an empty promise promises nothing. Method: no set; a quorum of 0; one larger than the voters."""
    for published in (SyncSet(), SyncSet(1, (B, C), 0), SyncSet(1, (B, C), 3)):
        step = decide_failover(view(says(B, 90), says(C, 90), published=published))
        assert (step.chosen, step.missing) == (None, (A,))
        assert "only a is known" in step.reason


def test_a_loss_is_accepted_for_one_primaryship_only() -> None:
    """Goal: no licence for the next time. Method: accepted for 4, and for 3."""
    step = decide_failover(view(says(B, 90), alive=(B,), accepted_loss=FencingTerm(4)))
    assert (step.chosen, step.loss_accepted) == (B, True)
    assert chosen(says(B, 90), alive=(B,), accepted_loss=FencingTerm(3)) is None
    assert chosen(alive=(B,), accepted_loss=FencingTerm(4)) is None


def test_with_an_accepted_loss_the_furthest_of_all_that_answer_is_chosen() -> None:
    """Goal: lose as little as can be. Method: D is no voter and further than B; a quorum wins."""
    hosts = {"alive": (B, D), "data_hosts": (A, B, C, D), "accepted_loss": FencingTerm(4)}
    assert chosen(says(B, 90), says(D, 95), **hosts) is D
    step = decide_failover(view(says(B, 90), says(C, 91), accepted_loss=FencingTerm(4)))
    assert (step.chosen, step.loss_accepted) == (C, False)


# ---- the last primary itself ----------------------------------------------------


def test_the_last_primary_counts_only_if_nobody_was_recorded_after_it() -> None:
    """Goal: an overtaken primary never goes on. Method: number 3 while 4 is recorded."""
    late = says(A, 0, primary_term=FencingTerm(3))
    assert chosen(late, alive=(A,), standing=Standing.UNFIT) is None


def test_the_end_of_a_primary_that_crashed_is_not_known() -> None:
    """Goal: no standby is taken to have everything by a number that says nothing. Method: A is back after a
    crash, B answers, C does not."""
    back = says(A, 0, primary_term=FencingTerm(4))
    assert chosen(back, says(B, 90), alive=(A, B), standing=Standing.UNFIT) is A
    assert chosen(back, says(B, 90), says(C, 80), alive=(A, B, C), standing=Standing.UNFIT) is B


def test_a_new_primary_that_died_before_it_was_recorded_leaves_the_old_one_sure() -> None:
    """Goal: crash between assignment and promotion. Method: number 5 was B's and recorded nothing; A, number
    4, is back: nothing was acknowledged after it."""
    back = says(A, 0, primary_term=FencingTerm(4), fencing_term=FencingTerm(5))
    assert chosen(back, alive=(A,), holder=B, fencing_term=FencingTerm(5)) is A


def test_a_holder_that_is_well_again_gets_a_new_number_after_a_seal() -> None:
    """Goal: sealed standbys follow again. Method: the failover was not finished, the holder recovered."""
    step = decide_failover(view(says(C, 90), standing=Standing.WELL, alive=(A, B, C)))
    assert step.chosen is A
    assert "new number" in step.reason


# ---- switchover -----------------------------------------------------------------

READY = SuccessorView(C, True, True, Timeline(1), 0)


def test_a_switchover_waits_for_the_end_and_gives_it_to_the_successor_that_has_all() -> None:
    """Goal: planned, nothing lost, no seal before the end came through. Method: step by step."""
    asked = {"standing": Standing.WELL, "successor": C, "alive": (A, B, C)}
    assert why_no_switchover(view(**asked), READY, 1000) == ""
    step = decide_failover(view(**asked))
    assert (step.seal, step.chosen) == ((), None)
    assert target_of(view(**asked), step) is None
    end = says(A, 100, primary_term=FencingTerm(4), ended_cleanly=True)
    step = decide_failover(view(end, says(B, 100), **asked))
    assert (step.seal, step.chosen) == ((C,), None)
    step = decide_failover(view(end, says(B, 100), says(C, 100), **asked))
    assert (step.seal, step.chosen) == ((), C)
    assert "ended cleanly" in step.reason


def test_a_successor_that_lacks_the_end_does_not_get_it() -> None:
    """Goal: nothing lost by a plan. Method: C lacks the last record, B has it; then nobody has it."""
    asked = {"standing": Standing.WELL, "successor": C, "alive": (A, B, C)}
    end = says(A, 100, primary_term=FencingTerm(4), ended_cleanly=True)
    assert chosen(end, says(B, 100), says(C, 99), **asked) is B
    assert chosen(end, says(C, 99), published=SyncSet(8, (B,), 1), **asked) is A


def test_a_clean_end_needs_no_quorum() -> None:
    """Goal: one standby with everything is enough. Method: C is lost, B has the end."""
    end = says(A, 100, primary_term=FencingTerm(4), ended_cleanly=True)
    assert chosen(end, says(B, 100), alive=(A, B), standing=Standing.UNFIT) is B
    assert chosen(end, says(B, 99), alive=(A, B), standing=Standing.UNFIT) is A


@pytest.mark.parametrize(
    ("successor", "change", "why"),
    [
        (replace(READY, host=A), {}, "is the primary already"),
        (READY, {"standing": Standing.LOST}, "failover"),
        (replace(READY, host=D), {}, "no synchronous standby"),
        (replace(READY, is_alive=False), {}, "is lost"),
        (replace(READY, damaged="a page"), {}, "is damaged"),
        (replace(READY, is_streaming=False), {}, "does not stream"),
        (replace(READY, timeline=Timeline(2)), {}, "does not stream"),
        (replace(READY, lag_bytes=1001), {}, "1001 bytes behind"),
    ],
)
def test_a_switchover_to_a_host_that_is_not_ready_is_refused(
    successor: SuccessorView, change: dict[str, object], why: str
) -> None:
    """Goal: refused before anything stops, with the reason. Method: one fact each."""
    asked = view(**({"standing": Standing.WELL} | change))
    assert why in why_no_switchover(asked, successor, 1000)
